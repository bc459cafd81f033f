package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// Transport is an http.RoundTripper for URLs that name a service. Use New, and
// Shutdown or Close at the end.
type Transport struct {
	cfg     Config
	network *network
	health  *outlier.Rules
	rules   tries.Rules
	outside *outside // nil: nothing leaves the mesh
	routes  sync.Map // routeKey to *route

	mu        sync.Mutex // held to begin a goroutine, or to be closed
	followers sync.WaitGroup

	closing  atomic.Bool  // no new requests
	inFlight atomic.Int64 // requests, their responses' bodies included
	drained  chan struct{}
	drain    sync.Once // closes drained
	closed   chan struct{}
	close    sync.Once // closes closed
}

// New returns a Transport, or an error that names every wrong setting.
func New(cfg Config) (*Transport, error) {
	cfg, wrong := cfg.filled()
	health, err := outlier.New(*cfg.Outliers)
	if err != nil {
		wrong = errors.Join(wrong, fmt.Errorf("httpmesh: Outliers: %w", err))
	}
	if wrong != nil {
		return nil, wrong
	}
	closed, n := make(chan struct{}), newNetwork(cfg)
	return &Transport{
		cfg:     cfg,
		health:  health,
		rules:   tries.Rules{MaxRetries: cfg.MaxRetries, Patience: patience(cfg.TryTimeout), Closed: closed},
		network: n,
		outside: newOutside(cfg.Outside, n),
		drained: make(chan struct{}),
		closed:  closed,
	}, nil
}

// RoundTrip sends the request to an instance of the service that the URL's host
// names, and to another if the rules in the package's comment allow it. The
// request goes out with ServiceHeader set and with its own Host; a Host that is
// empty becomes the service's name. The response's Request is r.
//
// An https URL goes to the instances whose entries say that they speak TLS, an http
// URL to the others. A call of gRPC, which is known by its content type, goes to those
// of Config.GRPC. A request that no instance answered gives an *Error. One whose
// URL names no service (a port, a dot, an address, localhost), has a user, or another
// scheme is refused with a plain error that says so, unless its host is one of
// Config.Outside.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL != nil && t.outside.has(r.URL.Host) {
		return t.sendOutside(r)
	}
	to, err := keyOf(r)
	if err != nil {
		closeBody(r)
		return nil, err
	}
	to.grpc = grpcwire.Is(r.Header)
	x := newExchange(t, r, to)
	if !t.enter() {
		return x.fail(outcome.Closed, fmt.Errorf("send to %s: %w", to.service, catalog.ErrClosed))
	}
	resp, err := x.run()
	if err != nil {
		t.leave()
	}
	return resp, err
}

func keyOf(r *http.Request) (routeKey, error) {
	u := r.URL
	if u == nil {
		return routeKey{}, errors.New("httpmesh: request without a URL; want http://<service>/")
	}
	problem := ""
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		problem = fmt.Sprintf("has scheme %q; want http or https", u.Scheme)
	case u.User != nil:
		problem = "has a user; want none"
	default:
		if problem = notService(u.Host); problem == "" {
			return routeKey{service: u.Host, secure: u.Scheme == "https"}, nil
		}
	}
	return routeKey{}, fmt.Errorf("httpmesh: URL %s %s", u.Redacted(), problem)
}

// enter counts a request in; false after Shutdown or Close.
func (t *Transport) enter() bool {
	t.inFlight.Add(1)
	if t.closing.Load() {
		t.leave()
		return false
	}
	return true
}

// leave counts a request out. The last one after the closing says so; see
// Shutdown for why none is missed.
func (t *Transport) leave() {
	if t.inFlight.Add(-1) == 0 && t.closing.Load() {
		t.drain.Do(func() { close(t.drained) })
	}
}

// route returns the way to a service. One without an instance has none that is
// kept: names taken from requests must not cost memory.
func (t *Transport) route(s *catalog.Snapshot, key routeKey, now time.Time) *route {
	key.service = s.Service()
	found, ok := t.routes.Load(key)
	if !ok {
		fresh := t.newRoute(key, now)
		if s.Len() == 0 {
			fresh.use(s, now)
			return fresh
		}
		found, _ = t.routes.LoadOrStore(key, fresh)
	}
	r := found.(*route)
	if t.use(r, s, now) && !r.followed.Load() {
		t.begin(r, s)
	}
	return r
}

// use gives the route a snapshot. It forgets the route, and returns false, if
// that leaves no instance.
func (t *Transport) use(r *route, s *catalog.Snapshot, now time.Time) bool {
	r.use(s, now)
	if s.Len() == 0 && len(r.balancer.Endpoints()) == 0 {
		t.routes.CompareAndDelete(r.key, r)
		return false
	}
	return true
}

// begin has the route follow its service, if it does not yet.
func (t *Transport) begin(r *route, s *catalog.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isClosed() && !r.followed.Swap(true) {
		t.followers.Go(func() { t.follow(r, s) })
	}
}

// follow gives the route each newer snapshot when it comes, so that idle
// connections to instances that left do not wait for the next request to be closed.
// It ends with the Transport, with the route, and when the source follows the
// service no more.
func (t *Transport) follow(r *route, s *catalog.Snapshot) {
	defer r.followed.Store(false)
	for {
		select {
		case <-s.Superseded():
		case <-t.closed:
			return
		}
		if s = s.Newest(); s == nil {
			r.closeIdleConnections()
			return
		}
		t.use(r, s, time.Now())
		// Any other call that has forgotten the route did so before it was given the
		// snapshot, or has seen that the snapshot is empty.
		if kept, ok := t.routes.Load(r.key); !ok || kept != any(r) {
			return
		}
	}
}

// Config returns the settings in use, the defaults filled in.
func (t *Transport) Config() Config { return t.cfg }

// Balancers returns the balancers of a service: one of the instances that http URLs
// go to, one of those for https, and two more of those that calls of gRPC go to. There is none of those that were never asked for,
// and of a service without an instance.
func (t *Transport) Balancers(service string) (all []*balancer.Balancer) {
	for _, r := range t.routesTo(service) {
		all = append(all, r.balancer)
	}
	return all
}

// Connections returns how many connections are open to each instance of a service that
// was asked so far, idle ones included.
func (t *Transport) Connections(service string) map[catalog.Key]int {
	open := map[catalog.Key]int{}
	for _, r := range t.routesTo(service) {
		for e, l := range r.each() {
			open[e.Instance().Key()] += int(l.open.Load())
		}
	}
	return open
}

// RetriesLeft returns how many tries beyond the first of a request Config.Budget would pay
// for now. There is a budget for each of the Balancers, of which it is the least.
func (t *Transport) RetriesLeft(service string, now time.Time) int {
	routes := t.routesTo(service)
	if len(routes) == 0 {
		return t.newLedger(now).Left(now)
	}
	left := math.MaxInt
	for _, r := range routes {
		left = min(left, r.ledger.Left(now))
	}
	return left
}

func (t *Transport) routesTo(service string) (all []*route) {
	for _, key := range [...]routeKey{{}, {secure: true}, {grpc: true}, {secure: true, grpc: true}} {
		key.service = service
		if r, ok := t.routes.Load(key); ok {
			all = append(all, r.(*route))
		}
	}
	return all
}

func (t *Transport) newLedger(now time.Time) *tries.Ledger {
	return &tries.Ledger{Ratio: t.cfg.Budget.Ratio, Floor: t.cfg.Budget.Floor, Began: now}
}

// BalancerFor returns the balancer of a service, with its latest instances, those that
// speak TLS or those that don't: for one who sends to them by other means, and picks
// and tells the outcomes as a request does, so that there is one health. It waits for
// the first answer about the service until ctx ends. Ask for it anew for each pick.
func (t *Transport) BalancerFor(ctx context.Context, service string, tls bool) (*balancer.Balancer, error) {
	if t.closing.Load() {
		return nil, fmt.Errorf("httpmesh: send to %s: %w", service, catalog.ErrClosed)
	}
	t.cfg.Source.KeepAlive(service)
	s, err := t.cfg.Source.Latest(ctx, service)
	if err != nil {
		return nil, err
	}
	return t.route(s, routeKey{secure: tls}, time.Now()).balancer, nil
}

// Patience is how long a silence lasts that counts as the instance's failure; see
// Config.TryTimeout.
func (t *Transport) Patience() time.Duration { return t.rules.Patience }

// CloseIdleConnections closes the connections that no request uses.
func (t *Transport) CloseIdleConnections() {
	t.routes.Range(func(_, r any) bool {
		r.(*route).closeIdleConnections()
		return true
	})
	if t.outside != nil {
		t.outside.pool.CloseIdleConnections()
	}
}

// Shutdown refuses new requests, with an error that wraps catalog.ErrClosed,
// waits for those in flight until their responses' bodies are closed, and
// closes. If ctx ends first it returns an error with the number of those left,
// which run on until Close.
func (t *Transport) Shutdown(ctx context.Context) error {
	// A request counts itself in before it looks at closing, and out before
	// it looks again. So either it saw closing, or we see it in the count, or
	// it sees closing when it is the last to go.
	t.closing.Store(true)
	if t.inFlight.Load() == 0 {
		t.drain.Do(func() { close(t.drained) })
	}
	select {
	case <-t.drained:
		return t.Close()
	case <-ctx.Done():
	}
	select {
	case <-t.drained:
		return t.Close()
	default:
		return fmt.Errorf("httpmesh: shut down: %d requests are still in flight: %w", t.inFlight.Load(), context.Cause(ctx))
	}
}

// Close refuses new requests, breaks off those in flight, and closes every
// connection. Closing again does nothing. It returns nil.
func (t *Transport) Close() error {
	t.closing.Store(true)
	t.close.Do(func() {
		t.mu.Lock()
		close(t.closed)
		t.mu.Unlock()
		t.CloseIdleConnections()
		t.network.close()
		t.followers.Wait()
	})
	return nil
}

// patience is the length of silence that counts, see Config.TryTimeout.
func patience(tryTimeout time.Duration) time.Duration {
	if tryTimeout > 0 {
		return tryTimeout
	}
	return defaultTryTimeout
}

func (t *Transport) isClosed() bool {
	select {
	case <-t.closed:
		return true
	default:
		return false
	}
}
