package registration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Registration is an instance whose entry is kept true from Start to Close:
//
//	             seen                    vanished, wrong,
//	            in the                    or no answer
//	starting ── catalog ──▶ registered ─────────────────▶ recovering
//	   │                     │      ▲                     │    │
//	   │                     │      └───── seen again ────┘    │
//	   ├──────── Drain ──────┴──────────── Drain ──────────────┤
//	   │                         ▼                             │
//	   │                      draining                         │
//	   │                         │                             │
//	   └──────── Close ────▶ deregistered ◀────── Close ───────┘
type Registration struct {
	cfg     Config // filled and valid
	agent   *Agent
	own     bool // the Agent is this registration's, to be closed with it
	status  atomic.Pointer[Status]
	calls   callbacks
	news    chan struct{} // holds one: of the agent's
	refresh chan struct{} // holds one: a heartbeat is asked for
	seen    chan struct{} // closed when the entry was first seen
	ended   chan struct{} // closed when the goroutine has ended

	drainOnce sync.Once
	drainBy   *time.Timer   // ends a drain that Consul does not answer
	endCalm   func()        // tells the goroutine to drain, and cuts its reading
	drained   chan struct{} // closed when the drain is over
	drainDone sync.Once     // closes drained
	exhausted atomic.Bool   // the drain used up ConsulTimeout

	closeOnce sync.Once
	endStay   func() // tells the goroutine to leave, and cuts its reading
	endAll    func() // cuts every call
	closed    error  // of the deregistration; set before ended is closed
}

// Start checks the settings and begins the instance's life in the background. It
// never waits for Consul: see Wait. An error means a wrong setting, which it names,
// and nothing was begun. The caller must Close what Start returned.
func Start(cfg Config) (*Registration, error) {
	cfg, err := cfg.filled()
	if err != nil {
		return nil, err
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Registration{
		cfg:     cfg,
		agent:   cfg.Agent,
		own:     cfg.Agent == nil,
		news:    make(chan struct{}, 1),
		refresh: make(chan struct{}, 1),
		seen:    make(chan struct{}),
		ended:   make(chan struct{}),
		drained: make(chan struct{}),
	}
	if r.own {
		if r.agent, err = NewAgent(AgentConfig{Client: cfg.Client, Trace: cfg.Trace, Log: cfg.Log}); err != nil {
			return nil, err
		}
	}
	if err := r.agent.attach(cfg.ID, r.news); err != nil {
		if r.own {
			r.agent.Close()
		}
		return nil, err
	}
	cfg.warnOfHost()
	r.calls.begin()
	r.status.Store(&Status{State: StateStarting, Why: "not registered yet", Err: errNotSeen, Since: time.Now()})

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
func (r *Registration) ID() string { return r.cfg.ID }

// Service returns the name of the service that the instance is of.
func (r *Registration) Service() string { return r.cfg.Service }

// Status returns the state, why it is so, and since when.
func (r *Registration) Status() Status { return *r.status.Load() }

// Wait waits until the entry was seen in the catalog with its checks, where others
// find it; passing or not, that is Config.Ready's affair. If ctx ends first, or the
// registration is closed before, the error says what is in the way: it wraps
// Status.Err, and the context's cause.
func (r *Registration) Wait(ctx context.Context) error {
	select {
	case <-r.seen:
		return nil
	default:
	}
	select {
	case <-r.seen:
		return nil
	case <-r.ended:
		return fmt.Errorf("register %s: closed before it was seen in the catalog", r.cfg.ID)
	case <-ctx.Done():
		return fmt.Errorf("register %s: not seen in the catalog: %w (%w)", r.cfg.ID, r.Status().Err, context.Cause(ctx))
	}
}

// Refresh has Ready asked again at once, rather than at the next heartbeat, and
// Consul told. Call it when readiness has changed. While Consul does not answer it
// changes nothing: the answer of Ready is told as soon as it does.
func (r *Registration) Refresh() { poke(r.refresh) }

// Drain says "draining" to Consul, waits until that is seen in the catalog, and
// then for Config.Settle: longer while new requests arrive, up to SettleMax. Call
// it before the listener closes. The entry stays, as critical with an output that
// begins with "draining", until Close.
//
// It returns nil when that is done or when nothing more can be: Consul could not
// be told within Config.ConsulTimeout, the instance was never registered, its ID is
// another process's by now, or Close was called. If ctx ends first, its cause is
// returned, and the drain goes on in the background. Calls after the first wait for
// the same drain.
func (r *Registration) Drain(ctx context.Context) error {
	r.drainOnce.Do(func() {
		r.drainBy = time.AfterFunc(r.cfg.ConsulTimeout, func() {
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
func (r *Registration) endDrain() { r.drainDone.Do(func() { close(r.drained) }) }

// Close deregisters and ends the instance's life: when it returns, the entry is
// gone for good and no goroutine is left but that of a callback which hangs. A
// Consul that does not answer holds it up for Config.ConsulTimeout at most, and for
// an eighth of that if a drain waited in vain before. The error says that the entry
// could not be deregistered, and which node has it; Consul then removes it
// DeregisterAfter after its check ran out. Close may be called without Drain, and
// by several: each waits for the end, with the same result.
func (r *Registration) Close() error {
	r.closeOnce.Do(func() {
		r.endStay()
		within := r.cfg.ConsulTimeout
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
		r.agent.detach(r.cfg.ID)
		if r.own {
			r.agent.Close()
		}
		r.calls.end()
	})
	return r.closed
}
