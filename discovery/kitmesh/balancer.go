package kitmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/lb"
	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

var _ lb.Balancer = (*Balancer)(nil)

// Balancer is an lb.Balancer over an Instancer's instances. It stands in the place
// of sd.NewEndpointer and lb.NewRoundRobin: it chooses by the mesh's policy, and the
// outcome of each call is noted, in the health that the mesh's own requests and all
// its Balancers have of the service's instances: what one method's calls have found,
// the next one's know. Use NewBalancer.
//
// It makes one call at one instance, which the mesh's trace is told of as a request. What
// is called again is said by what is around it: lb.Retry calls again after every error,
// also what may have been done.
type Balancer struct {
	instancer *Instancer
	factory   sd.Factory
	judge     func(error) outcome.Code // nil: codeOf alone
	endpoint  endpoint.Endpoint        // b.call
	made      sync.Map                 // *balancer.Endpoint to *made
	closed    atomic.Bool
}

// NewBalancer returns a Balancer. The factory makes the endpoint of an instance, of
// its host:port, when it is first chosen. Its closer is called when the instance has
// left and the last call to it has ended, or after Close. While a factory fails,
// the instance counts as unreachable.
//
// judge says what an endpoint's error means, as outcome.Code; None, or a nil judge,
// leaves it to the rules: an error in dialling is Unreachable; another one of the
// network is Broken; one that has StatusCode() int is what an answer with that status
// is; the end of the call's context is Silent after the mesh's HTTP.TryTimeout, and
// before that nobody's fault; any other one is Error. So what a service says no
// with belongs into the response (go-kit's endpoint.Failer), as for go-kit's
// circuit breakers; where a decoder makes an error of it, judge should say OK.
//
// An error names the argument that can't be used. Call Close at the end.
func NewBalancer(instancer *Instancer, factory sd.Factory, judge func(error) outcome.Code) (*Balancer, error) {
	if instancer == nil {
		return nil, errors.New("kitmesh: instancer is nil; want one that NewInstancer made")
	}
	if factory == nil {
		return nil, errors.New("kitmesh: factory is nil; want a function that makes the endpoint of an instance")
	}
	b := &Balancer{instancer: instancer, factory: factory, judge: judge}
	b.endpoint = b.call
	instancer.mu.Lock()
	defer instancer.mu.Unlock()
	instancer.balancers[b] = true
	return b, nil
}

// Endpoint returns an endpoint that chooses an instance for each call. When the
// service has none it returns an error that wraps lb.ErrNoEndpoints and
// catalog.ErrNoInstance. Before the first answer about the service, the calls wait
// for it within their contexts.
func (b *Balancer) Endpoint() (endpoint.Endpoint, error) {
	if b.closed.Load() {
		return nil, fmt.Errorf("kitmesh: call %s: the Balancer is %w", b.instancer.service, catalog.ErrClosed)
	}
	if s := b.instancer.state.Load(); s.err == nil && len(s.addresses) == 0 {
		return nil, fmt.Errorf("kitmesh: call %s: %w: %w", b.instancer.service, lb.ErrNoEndpoints, catalog.ErrNoInstance)
	}
	return b.endpoint, nil
}

// call makes one call at one instance.
func (b *Balancer) call(ctx context.Context, request any) (response any, err error) {
	began := time.Now()
	shared, err := b.instancer.shared(ctx)
	if err != nil {
		return nil, fmt.Errorf("kitmesh: call %s: %w", b.instancer.service, err)
	}
	if begin := b.instancer.mesh.RoundTripper().Config().Trace.Begin; begin != nil {
		ctx = begin(ctx, b.instancer.service, "")
	}
	lease, err := shared.Pick(balancer.Request{Now: began, Group: outcome.Unsafe})
	if err != nil {
		b.tell(ctx, outcome.NoInstance, time.Since(began), err)
		return nil, fmt.Errorf("kitmesh: %w: %w", lb.ErrNoEndpoints, err)
	}
	code := outcome.None // of an endpoint that panics
	defer func() {
		now := time.Now()
		lease.Done(outcome.Result{Code: code, Group: outcome.Unsafe, Began: began, At: now, Latency: now.Sub(began)})
		b.tell(ctx, code, now.Sub(began), err, lease.Endpoint().Instance())
	}()
	m, err := b.hold(lease.Endpoint(), shared)
	if err != nil {
		code = outcome.Unreachable
		return nil, err
	}
	defer m.release()
	response, err = m.call(ctx, request)
	code = b.codeOf(ctx, err, time.Since(began))
	return response, err
}

// tell reports a call to what listens to the mesh's requests: one of one try, or of none,
// for what calls again is around it. One whose endpoint panicked has no outcome.
func (b *Balancer) tell(ctx context.Context, code outcome.Code, took time.Duration, err error, tried ...catalog.Instance) {
	done := b.instancer.mesh.RoundTripper().Config().Trace.Done
	if done == nil || code == outcome.None {
		return
	}
	r := &httpmesh.Report{Service: b.instancer.service, Elapsed: took, Outcome: code}
	for _, i := range tried {
		r.Tries = append(r.Tries, httpmesh.Try{Instance: i, Outcome: code, Latency: took, Err: err, Used: err == nil})
	}
	done(ctx, r)
}

// codeOf says how a call ended that took so long.
func (b *Balancer) codeOf(ctx context.Context, err error, took time.Duration) outcome.Code {
	switch {
	case err == nil:
		return outcome.OK
	case ctx.Err() == nil:
		if b.judge != nil {
			if code := b.judge(err); code != outcome.None {
				return code
			}
		}
		return codeOf(err)
	case took >= b.instancer.mesh.RoundTripper().Patience():
		return outcome.Silent
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return outcome.Timeout
	}
	return outcome.Canceled
}

func codeOf(err error) outcome.Code {
	network, inNetwork := errors.AsType[*net.OpError](err)
	_, byClient := errors.AsType[*url.Error](err)
	var answer kithttp.StatusCoder
	switch {
	case inNetwork && network.Op == "dial" && tries.OwnFault(err):
		return outcome.Unsent
	case inNetwork && network.Op == "dial":
		return outcome.Unreachable
	case inNetwork, byClient, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return outcome.Broken
	case errors.As(err, &answer):
		return outcome.OfStatus(answer.StatusCode())
	}
	return outcome.Error
}

// made is what the factory made for an instance. It is held by the Balancer until
// the instance has left, and by each call; the last to let go closes it.
type made struct {
	call    endpoint.Endpoint
	closer  io.Closer // nil: nothing to close
	holders atomic.Int64
}

// hold reports whether it is still there to be held.
func (m *made) hold() bool {
	for {
		n := m.holders.Load()
		if n == 0 {
			return false
		}
		if m.holders.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (m *made) release() {
	if m.holders.Add(-1) == 0 && m.closer != nil {
		_ = m.closer.Close() // as go-kit: nobody is left to be told
	}
}

// hold returns what was made for the endpoint, or has it made.
func (b *Balancer) hold(e *balancer.Endpoint, shared *balancer.Balancer) (*made, error) {
	if m, ok := b.made.Load(e); ok && m.(*made).hold() {
		return m.(*made), nil
	}
	addr := e.Instance().Addr()
	call, closer, err := b.factory(addr)
	if err != nil {
		return nil, fmt.Errorf("kitmesh: make an endpoint of %s at %s: %w", b.instancer.service, addr, err)
	}
	fresh := &made{call: call, closer: closer}
	fresh.holders.Store(2) // the Balancer and the caller
	other, there := b.made.LoadOrStore(e, fresh)
	if there && other.(*made).hold() { // another call was faster
		fresh.release()
		fresh.release()
		return other.(*made), nil
	}
	if there || !b.keeps(e, shared) { // it left between the choice and now: for this call only
		if b.made.CompareAndDelete(e, fresh) || there {
			fresh.release()
		}
	}
	return fresh, nil
}

// keeps reports whether what is made for an endpoint is kept.
func (b *Balancer) keeps(e *balancer.Endpoint, shared *balancer.Balancer) bool {
	return !b.closed.Load() && slices.Contains(shared.Endpoints(), e)
}

// prune lets go of what was made for instances that have left.
func (b *Balancer) prune(shared *balancer.Balancer) {
	for e, m := range b.made.Range {
		if !b.keeps(e.(*balancer.Endpoint), shared) && b.made.CompareAndDelete(e, m) {
			m.(*made).release()
		}
	}
}

// Close has everything closed that the factory made, when the calls that run have
// ended; it does not wait for them. It may be called again.
func (b *Balancer) Close() {
	b.instancer.mu.Lock()
	delete(b.instancer.balancers, b)
	b.instancer.mu.Unlock()
	b.closed.Store(true)
	b.prune(nil)
}
