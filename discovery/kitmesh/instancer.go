package kitmesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/kit/sd"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

var _ sd.Instancer = (*Instancer)(nil)

// Instancer is an sd.Instancer over a mesh: it publishes the addresses of a
// service that the mesh itself would send to, host:port with IPv6 in brackets, each
// once. Those are the instances that are ready, the missing ones among them for as
// long as the mesh keeps them, or for want of any the critical ones. Draining ones
// and those in maintenance are never among them.
// What the mesh selects is selected here too (see discovery.Mesh.Select); without
// that it is what speaks HTTP.
//
// An error is published when there is no set to be had: Consul has not answered so
// far, the set has outlived the mesh's Watch.StaleFor, or the mesh was closed. A
// Consul that is away is none: the last set stays. Use NewInstancer.
type Instancer struct {
	mesh     *discovery.Mesh
	service  string
	tls      bool // of instances that speak TLS
	cancel   context.CancelFunc
	followed chan struct{} // closed when follow has ended

	state atomic.Pointer[state] // never nil

	mu        sync.Mutex // guards what follows
	stopped   bool
	senders   map[chan<- sd.Event]*sender
	balancers map[*Balancer]bool
}

// state is what is published at one time.
type state struct {
	addresses  []string // sorted, each once; not to be changed
	err        error
	superseded chan struct{}
}

// errPending is the state's before there is any.
var errPending = errors.New("no answer so far")

const (
	// firstWait bounds the wait for the first answer about the service until it is
	// published that there is none; the mesh's own bound may be shorter.
	firstWait = 5 * time.Second
	// registerWait bounds how long Register waits for the present state to be read.
	registerWait = 2 * firstWait
	// keepAlive is how often the mesh is told that the service is in use. It would
	// end the watch after Watch.IdleFor, 10 minutes if nothing else is set.
	keepAlive = time.Minute
	// pause before the mesh is asked again that has answered with an error at once.
	pause = time.Second
)

// NewInstancer returns an Instancer of the service's instances that the mesh sends
// to: of those that speak plain text, or after https:// ("https://user") of those that
// speak TLS. What is published is host:port either way. It waits for nothing: Register and the calls of a Balancer do. An error names
// the argument that can't be used. Call Stop at the end.
func NewInstancer(mesh *discovery.Mesh, service string) (*Instancer, error) {
	if mesh == nil {
		return nil, errors.New("kitmesh: mesh is nil; want an open one")
	}
	name, tls := strings.CutPrefix(service, "https://")
	if !validService(name) {
		return nil, fmt.Errorf("kitmesh: service is %q; want %s, perhaps after https://", service, serviceWanted)
	}
	i := &Instancer{mesh: mesh, service: name, tls: tls, followed: make(chan struct{}), senders: map[chan<- sd.Event]*sender{}, balancers: map[*Balancer]bool{}}
	i.state.Store(&state{err: errPending, superseded: make(chan struct{})})
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	go i.follow(ctx)
	return i, nil
}

// follow publishes each newer set until ctx ends or the mesh is closed.
func (i *Instancer) follow(ctx context.Context) {
	defer close(i.followed)
	timer := time.NewTimer(keepAlive)
	defer timer.Stop()
	for {
		s, err := i.latest(ctx)
		if ctx.Err() != nil {
			return
		}
		i.publish(s, err)
		if err == nil {
			i.prune(ctx)
		}
		var superseded <-chan struct{}
		switch {
		case err == nil:
			superseded = s.Superseded()
			timer.Reset(keepAlive)
		case errors.Is(err, catalog.ErrClosed):
			return
		default:
			timer.Reset(pause)
		}
		select {
		case <-superseded:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

func (i *Instancer) latest(ctx context.Context) (*catalog.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, firstWait)
	defer cancel()
	return i.mesh.Latest(ctx, i.service)
}

// publish makes a set, or the error in its place, the present state, if that is
// news.
func (i *Instancer) publish(s *catalog.Snapshot, err error) {
	next := &state{superseded: make(chan struct{})}
	if err != nil {
		next.err = fmt.Errorf("kitmesh: instances of %s: %w", i.service, err)
	} else {
		next.addresses = addresses(s, i.tls)
	}
	if last := i.state.Load(); !next.same(last) {
		i.state.Store(next)
		close(last.superseded)
	}
}

// prune has the Balancers let go of the instances that have left.
func (i *Instancer) prune(ctx context.Context) {
	i.mu.Lock()
	balancers := slices.Collect(maps.Keys(i.balancers))
	i.mu.Unlock()
	if len(balancers) == 0 {
		return
	}
	shared, err := i.shared(ctx)
	if err != nil {
		return // the set that was just there is gone; follow sees to it
	}
	for _, b := range balancers {
		b.prune(shared)
	}
}

// shared is the balancer that the mesh's own requests have.
func (i *Instancer) shared(ctx context.Context) (*balancer.Balancer, error) {
	return i.mesh.RoundTripper().BalancerFor(ctx, i.service, i.tls)
}

func (s *state) same(other *state) bool {
	if s.err != nil || other.err != nil {
		return s.err != nil && other.err != nil && s.err.Error() == other.err.Error()
	}
	return slices.Equal(s.addresses, other.addresses)
}

// addresses are those of the instances that may be sent to, as packages httpmesh and
// balancer have it.
func addresses(s *catalog.Snapshot, tls bool) []string {
	var ready, critical []string
	for i := range s.All() {
		switch {
		case i.TLS() != tls:
		case i.State.Ready():
			ready = append(ready, i.Addr())
		case i.State == catalog.StateCritical:
			critical = append(critical, i.Addr())
		}
	}
	if len(ready) == 0 {
		ready = critical
	}
	slices.Sort(ready)
	return slices.Compact(ready)
}

// event is what receivers get: a copy each, for go-kit's sort it in place.
func (s *state) event() sd.Event {
	return sd.Event{Instances: slices.Clone(s.addresses), Err: s.err}
}

// sender sends each state to one channel, or of several that came meanwhile the
// latest. A channel that is not read holds up nothing else.
type sender struct {
	ch   chan<- sd.Event
	quit chan struct{} // closed to end it
	done chan struct{} // closed when it has ended
}

// send sends each state that differs from the one that was sent before, until it is
// told to quit, or if once is not nil until it has sent one or once comes. It returns
// the state that was sent last.
func (i *Instancer) send(r *sender, sent *state, once <-chan time.Time) *state {
	for {
		s, to := i.state.Load(), r.ch
		if s == sent || s.err == errPending { //nolint:errorlint // it is never wrapped
			to = nil
		}
		select {
		case to <- s.event():
			if sent = s; once != nil {
				return sent
			}
		case <-s.superseded:
		case <-r.quit:
			return sent
		case <-once:
			return sent
		}
	}
}

// end ends the sender, which its caller has taken out of the map. nil is none.
func (r *sender) end() {
	if r != nil {
		close(r.quit)
		<-r.done
	}
}

// Register sends the present state to the channel, and from then on each that
// differs from the one before, until Deregister. It returns when the present state
// was read, but does not wait for that for longer than 10 s: then it is still sent
// when the channel is read. A channel that is registered already gets the present
// state once more.
func (i *Instancer) Register(ch chan<- sd.Event) {
	r := &sender{ch: ch, quit: make(chan struct{}), done: make(chan struct{})}
	i.mu.Lock()
	stopped, before := i.stopped, i.senders[ch]
	if !stopped {
		i.senders[ch] = r
	}
	i.mu.Unlock()
	before.end()
	timer := time.NewTimer(registerWait)
	defer timer.Stop()
	sent := i.send(r, nil, timer.C)
	// An Endpointer makes its endpoints after it has received them, in a goroutine of its
	// own, for which go-kit's NewEndpointer does not wait.
	runtime.Gosched()
	if stopped {
		return
	}
	go func() {
		defer close(r.done)
		i.send(r, sent, nil)
	}()
}

// Deregister ends what Register began: nothing is sent to the channel any more when
// it returns, so that it may be closed.
func (i *Instancer) Deregister(ch chan<- sd.Event) {
	i.mu.Lock()
	r := i.senders[ch]
	delete(i.senders, ch)
	i.mu.Unlock()
	r.end()
}

// Stop ends all that it began: nothing is published any more. Close its Balancers
// before. It may be called again, and leaves the mesh open.
func (i *Instancer) Stop() {
	i.mu.Lock()
	senders := i.senders
	i.stopped, i.senders = true, map[chan<- sd.Event]*sender{}
	i.mu.Unlock()
	i.cancel()
	<-i.followed
	for _, r := range senders {
		r.end()
	}
	if i.state.Load().err == errPending { //nolint:errorlint // it is never wrapped
		i.publish(nil, catalog.ErrClosed)
	}
}
