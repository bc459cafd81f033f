package registration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Registered is an instance whose entry is kept true from Start to Close:
//
//	             seen                    vanished, wrong,
//	            in the                    or no answer
//	starting ── catalog ──▶ registered ─────────────────▶ adrift
//	   │                     │      ▲                     │    │
//	   │                     │      └───── seen again ────┘    │
//	   ├──────── Drain ──────┴──────────── Drain ──────────────┤
//	   │                         ▼                             │
//	   │                      draining                         │
//	   │                         │                             │
//	   └──────── Close ──────▶ gone ◀──────── Close ───────────┘
type Registered struct {
	cfg     Config // filled and valid
	status  atomic.Pointer[Status]
	refresh chan struct{} // holds one: somebody asks for a beat
	lookNow chan struct{} // holds one: somebody asks for a look
	seen    chan struct{} // closed when the entry was first seen
	ended   chan struct{} // closed when the goroutine has ended

	drainOnce sync.Once
	drainBy   *time.Timer   // ends a drain that Consul does not answer
	endCalm   func()        // tells the goroutine to drain, and cuts its reading
	drained   chan struct{} // closed when the drain is over
	drainDone sync.Once     // closes drained
	exhausted atomic.Bool   // the drain used up Unreachable

	closeOnce sync.Once
	endStay   func() // tells the goroutine to leave, and cuts its reading
	endAll    func() // cuts every call
	closed    error  // of the deregistration; set before ended is closed
}

// Start checks the settings and begins the instance's life in the background.
// It never waits for Consul. An error means a wrong setting, which it names, and
// nothing was begun. The caller must Close what Start returned.
func Start(cfg Config) (*Registered, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.warnOfHost()
	r := &Registered{
		cfg:     cfg,
		refresh: make(chan struct{}, 1),
		lookNow: make(chan struct{}, 1),
		seen:    make(chan struct{}),
		ended:   make(chan struct{}),
		drained: make(chan struct{}),
	}
	r.status.Store(&Status{State: StateStarting, Why: "not registered yet", Since: time.Now()})

	// The life has three contexts, each the parent of the next: all of it, the
	// time until Close, the calm time until Drain or Close. They outlive this
	// call on purpose: Close ends them.
	all, endAll := context.WithCancel(context.Background())
	stay, endStay := context.WithCancel(all)
	calm, endCalm := context.WithCancel(stay)
	r.endAll, r.endStay, r.endCalm = endAll, endStay, endCalm
	go newLife(r).run(all, stay, calm)
	return r, nil
}

// ID returns the entry's ID.
func (r *Registered) ID() string { return r.cfg.ID }

// Status returns the state, why it is so, and since when.
func (r *Registered) Status() Status { return *r.status.Load() }

// Seen is closed when the entry was first seen in the catalog.
func (r *Registered) Seen() <-chan struct{} { return r.seen }

// Refresh asks Ready again at once, rather than at the next beat, and tells
// Consul. While Consul does not answer it changes nothing: the answer of Ready
// is told as soon as it does.
func (r *Registered) Refresh() {
	select {
	case r.refresh <- struct{}{}:
	default:
	}
}

// Look has the entry looked up in the catalog at once, rather than within
// Config.Look: call it when there is reason to believe that Consul forgot
// something, as when a watch of this process sees its index go backwards. Many
// calls are one look.
func (r *Registered) Look() {
	select {
	case r.lookNow <- struct{}{}:
	default:
	}
}

// Drain says "draining" to Consul, waits until that is seen in the catalog, and
// then for Config.Settle: longer while new requests arrive, up to SettleMax. Call
// it before the listener closes. The entry stays, as critical with an output that
// begins with "draining", until Close.
//
// It returns nil when that is done or when nothing more can be: Consul could not
// be told within Config.Unreachable, the instance was never registered, or Close
// was called. If ctx ends first, its cause is returned, and the drain goes on in
// the background. Calls after the first wait for the same drain.
func (r *Registered) Drain(ctx context.Context) error {
	r.drainOnce.Do(func() {
		r.drainBy = time.AfterFunc(r.cfg.Unreachable, func() {
			r.exhausted.Store(true)
			r.endDrain()
		})
		r.endCalm()
	})
	select {
	case <-r.drained:
		return nil
	default:
	}
	select {
	case <-r.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain %s: %w", r.cfg.ID, context.Cause(ctx))
	}
}

// endDrain lets the calls of Drain return.
func (r *Registered) endDrain() { r.drainDone.Do(func() { close(r.drained) }) }

// Close deregisters and ends the instance's life: when it returns, the entry is
// gone for good and no goroutine is left. A Consul that does not answer holds it
// up for Config.Unreachable at most, and for an eighth of that if a drain waited
// in vain before. The error says that the entry could not be deregistered; Consul
// then removes it DeregisterAfter after its check ran out. Close may be called
// without Drain, and again, with the same result.
func (r *Registered) Close() error {
	r.closeOnce.Do(func() {
		r.endStay()
		within := r.cfg.Unreachable
		if r.exhausted.Load() {
			within /= 8
		}
		limit := time.AfterFunc(within, r.endAll)
		<-r.ended
		limit.Stop()
		r.endAll()
		r.drainOnce.Do(func() {}) // a later Drain has nothing to do
		if r.drainBy != nil {
			r.drainBy.Stop()
		}
	})
	return r.closed
}
