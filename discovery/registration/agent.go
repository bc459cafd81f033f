package registration

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

// callTimeout bounds each call: the API client has no limit of its own.
const callTimeout = 5 * time.Second

// errNotAsked is the trouble of an agent that was not asked anything yet.
var errNotAsked = errors.New("not asked yet: Consul")

// Agent is Consul's agent as one process sees it: who it is, whether it answers,
// and what the catalog has of its node. The registrations of a process share it,
// so that each costs no more than its heartbeats: three connections and two
// questions that Consul holds serve them all.
//
// Close it after its registrations.
type Agent struct {
	cfg     AgentConfig
	process string        // the nonce of this process: see processKey
	writes  atomic.Int64  // of entries: see writeKey
	turn    chan struct{} // held during a call that the agent answers itself

	calls   callbacks
	seen    atomic.Pointer[sight]
	doubts  chan struct{}    // holds one: ask whether all is as believed
	learned chan struct{}    // holds one: it is known now where entries are written to
	hurries [2]chan struct{} // hold one each: something was written

	line    consul.Line // of the questions that Consul holds
	failed  int         // in a row; run's own
	end     context.CancelFunc
	ended   chan struct{}
	closing sync.Once

	mu       sync.Mutex // guards what follows
	lives    map[string]chan<- struct{}
	home     string    // the node that entries are written to; empty: unknown
	homeSeen time.Time // when it last answered
	several  bool      // said that the address leads to several agents
}

// AgentConfig says how to reach an agent.
type AgentConfig struct {
	// Client of the agent; required.
	Client *api.Client
	// HoldClient asks the questions that Consul holds open, over connections of its
	// own. nil means Client: where Consul's address leads to several agents, Client's
	// connections are then not all to one of them.
	HoldClient *api.Client
	// CloseIdle closes the idle connections of Client. It is called to reach
	// another agent where the address leads to several. nil waits until they end
	// by themselves.
	CloseIdle func()
	// Recovered is called when Consul answers again after it did not. It must not
	// wait. nil means none.
	Recovered func()
	// Trace is told of the questions that are no single registration's: service
	// and ID are empty. nil means none.
	Trace *Trace
	// Log gets trouble, once per outage. nil means slog.Default().
	Log *slog.Logger
}

// NewAgent begins to ask the agent, in the background. An error means a wrong
// setting.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if cfg.Client == nil {
		return nil, errors.New("registration: AgentConfig.Client is nil; want a client of Consul")
	}
	if cfg.HoldClient == nil {
		cfg.HoldClient = cfg.Client
	}
	if cfg.CloseIdle == nil {
		cfg.CloseIdle = func() {}
	}
	if cfg.Recovered == nil {
		cfg.Recovered = func() {}
	}
	if cfg.Trace == nil {
		cfg.Trace = &Trace{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	var nonce [8]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand
	a := &Agent{
		cfg:     cfg,
		process: hex.EncodeToString(nonce[:]),
		turn:    make(chan struct{}, 1),
		doubts:  make(chan struct{}, 1),
		learned: make(chan struct{}, 1),
		hurries: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)},
		ended:   make(chan struct{}),
		lives:   map[string]chan<- struct{}{},
	}
	a.seen.Store(&sight{err: errNotAsked})
	// Close ends it, not the caller's context.
	ctx, end := context.WithCancel(context.Background())
	a.end = end
	a.calls.begin()
	go a.run(ctx)
	return a, nil
}

// Close ends the questions and waits for that; it may be called twice. Registrations
// that are not closed yet see a Consul that does not answer.
func (a *Agent) Close() {
	a.closing.Do(func() {
		a.end()
		<-a.ended
		a.calls.end()
	})
}

// Look has it asked at once whether Consul answers and has all entries: call it
// when there is reason to believe that Consul was away or lost something, as when
// a watch of this process sees its index go backwards. Many calls are one look.
func (a *Agent) Look() { poke(a.doubts) }

// hurry has both questions asked now if they are not held open: something was
// written, and is to be seen.
func (a *Agent) hurry() {
	for _, h := range a.hurries {
		poke(h)
	}
}

// poke sends into a channel that holds one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// attach has the channel poked at each news, until detach. An ID may be attached
// once.
func (a *Agent) attach(id string, news chan<- struct{}) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lives[id] != nil {
		return fmt.Errorf("registration: ID is %q, which this process has registered already; want another, or Close first", id)
	}
	a.lives[id] = news
	return nil
}

func (a *Agent) detach(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.lives, id)
}

// sight returns the latest news; it is never nil.
func (a *Agent) sight() *sight { return a.seen.Load() }

func (a *Agent) publish(s sight) {
	a.seen.Store(&s)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, news := range a.lives {
		poke(news)
	}
}

// call does one exchange of a registration's. Those of a process go one after the
// other, so that one connection serves them and the agent that answers is mostly the
// same.
func (a *Agent) call(ctx context.Context, tell func(error), do func(q *api.QueryOptions) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return a.exchange(ctx, tell, do)
}

// exchange does one exchange, whatever the registrations do: a heartbeat that hangs
// inside of a Consul without a leader must not hold up what finds the leader.
func (a *Agent) exchange(ctx context.Context, tell func(error), do func(q *api.QueryOptions) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := consul.Clip(do((&api.QueryOptions{}).WithContext(ctx)))
	tell(err)
	return err
}

// tell is the Trace of a call for all registrations.
func (a *Agent) tell(op string) func(error) {
	return func(err error) {
		if f := a.cfg.Trace.Attempted; f != nil {
			a.calls.do(func() { f("", "", op, err) })
		}
	}
}

// run keeps the sight true until ctx ends.
func (a *Agent) run(ctx context.Context) {
	defer close(a.ended)
	var (
		wait   backoff
		held   consul.Hold
		warned bool
	)
	for ctx.Err() == nil {
		began := time.Now()
		found, err := a.meet(ctx)
		up := false
		away := err != nil && consul.Unreachable(err)
		if err == nil {
			up, err = a.follow(ctx, found, held.Longest(time.Now()))
		}
		if ctx.Err() != nil {
			break
		}
		lasted := time.Since(began)
		if up {
			wait, warned = backoff{}, false
			_ = pause.For(ctx, lookSpacing-lasted, nil)
			switch {
			case err == nil:
				held.Whole()
			case lasted < time.Second: // an answer that breaks again and again
				held.Whole()
				wait.failed(err)
				_ = pause.For(ctx, time.Until(wait.until), nil)
			default:
				held.Cut(lasted, time.Now())
			}
			continue
		}
		if err == nil {
			continue
		}
		a.failed++
		held = consul.Hold{} // it was no proxy
		wait.failed(err)
		a.publish(sight{err: err, away: away})
		if a.failed >= 2 && !warned {
			warned = true
			warnOf(a.cfg.Log, err)
		}
		_ = pause.For(ctx, time.Until(wait.until), a.doubts)
		_ = pause.For(ctx, lookSpacing-time.Since(began), nil)
	}
	a.publish(sight{err: context.Canceled, away: true})
}

// up notes that Consul was asked and has answered.
func (a *Agent) up() {
	if a.failed > 0 {
		a.failed = 0
		a.calls.do(a.cfg.Recovered)
	}
}

// warnOf logs trouble that was tried on without success.
func warnOf(log *slog.Logger, err error) {
	switch {
	case errors.Is(err, ErrSeveralAgents): // said already
	case consul.Denied(err), errors.Is(err, errNodeUnreadable): // there is something to do
		log.Error("Consul refuses our token, trying on; want one with service:write for the service, and node:read for the agent's node", "err", err)
	default:
		log.Warn("trouble with Consul, trying on", "err", err)
	}
}
