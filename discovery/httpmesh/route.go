package httpmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// routeKey names a route: those that speak TLS and those that don't are instances
// of their own, as those that speak gRPC are, and their health tells nothing of each
// other.
type routeKey struct {
	service string
	secure  bool // https
	grpc    bool // calls of gRPC
}

// route is how one service is reached: its balancer, and a leaf for each of its
// endpoints that was picked so far.
type route struct {
	key      routeKey
	tls      func(service string) *tls.Config
	network  *network
	ledger   *tries.Ledger
	balancer *balancer.Balancer
	snapshot atomic.Pointer[catalog.Snapshot] // the last one given to use
	leaves   sync.Map                         // *balancer.Endpoint to *leaf
	followed atomic.Bool                      // a goroutine runs Transport.follow
	named    atomic.Bool                      // an answer has named the service

	mu sync.Mutex // held to change leaves
}

func (t *Transport) newRoute(key routeKey, now time.Time) *route {
	return &route{
		key: key, tls: t.cfg.TLS, network: t.network, ledger: t.newLedger(now),
		balancer: balancer.New(key.service, balancer.Config{
			Policy: t.cfg.Policy, Outliers: t.health, Trace: &t.cfg.Trace.Balancer,
			Only: func(i catalog.Instance) bool { return i.TLS() == key.secure },
		}),
	}
}

// otherScheme is the error of a service all of whose instances want the other
// scheme; nil if one fits, or there is none at all.
func (r *route) otherScheme(s *catalog.Snapshot) error {
	if len(r.balancer.Endpoints()) > 0 || s.Len() == 0 {
		return nil
	}
	asked, speak, want := "http", "speak TLS", "https"
	if r.key.secure {
		asked, speak, want = "https", "speak plain text, as their entries say (no "+catalog.MetaTLS+" in their Meta)", "http"
	}
	return fmt.Errorf("send to %s://%s: nothing was sent, for all of its %d instances %s; want %s://%s: %w",
		asked, r.key.service, s.Len(), speak, want, r.key.service, catalog.ErrNoInstance)
}

// use gives the snapshot to the balancer, and drops the leaves of endpoints
// that are gone.
func (r *route) use(s *catalog.Snapshot, now time.Time) {
	if r.snapshot.Load() == s {
		return
	}
	r.balancer.Use(s, now)
	r.snapshot.Store(s)
	r.mu.Lock()
	known := make(map[*balancer.Endpoint]bool)
	for _, e := range r.balancer.Endpoints() {
		known[e] = true
	}
	var gone []*leaf
	for e, l := range r.each() {
		if !known[e] {
			r.leaves.Delete(e)
			gone = append(gone, l)
		}
	}
	r.mu.Unlock()
	for _, l := range gone {
		l.retire()
	}
}

// each ranges over the leaves.
func (r *route) each() func(yield func(*balancer.Endpoint, *leaf) bool) {
	return func(yield func(*balancer.Endpoint, *leaf) bool) {
		r.leaves.Range(func(e, l any) bool { return yield(e.(*balancer.Endpoint), l.(*leaf)) })
	}
}

// leaf returns the endpoint's leaf; it is made at the first pick.
func (r *route) leaf(e *balancer.Endpoint) *leaf {
	if l, ok := r.leaves.Load(e); ok {
		return l.(*leaf)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l, ok := r.leaves.Load(e); ok {
		return l.(*leaf)
	}
	l := newLeaf(e, r)
	if slices.Contains(r.balancer.Endpoints(), e) {
		r.leaves.Store(e, l)
	} else { // it went between the pick and now: for this request only
		l.retired.Store(true)
	}
	return l
}

func (r *route) closeIdleConnections() {
	for _, l := range r.each() {
		l.pool.CloseIdleConnections()
	}
}

// pool is the connections to one endpoint: an *http.Transport, or an http2Pool.
type pool interface {
	http.RoundTripper
	CloseIdleConnections()
}

// leaf is the connections to one endpoint. They are not shared with another
// endpoint at the same address, so that they can go when their endpoint does.
type leaf struct {
	addr     string
	endpoint *balancer.Endpoint
	network  *network
	balancer *balancer.Balancer
	pool     pool
	retired  atomic.Bool
	heard    atomic.Int64 // when it last answered, since the network began
	stalled  atomic.Int64 // dials that take too long
	open     atomic.Int64 // connections
}

const (
	// maxIdle connections to an endpoint are kept: as many as there were
	// requests at once, within reason; the standard library's default of 2
	// makes a busy client dial for most of its requests.
	maxIdle = 256
	// maxStalled dials to an endpoint may take too long at once. A request that
	// would begin one more does not wait for it.
	maxStalled = 16
	// continueTimeout is how long a request with Expect: 100-continue waits.
	continueTimeout = time.Second
)

func newLeaf(e *balancer.Endpoint, r *route) *leaf {
	l := &leaf{addr: e.Instance().Addr(), endpoint: e, network: r.network, balancer: r.balancer}
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	plain := r.network.transport(http1)
	plain.MaxIdleConnsPerHost = maxIdle
	if !r.key.secure && !r.key.grpc {
		plain.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dial(ctx, nil, false) }
		l.pool = plain
		return l
	}
	s := newHTTP2Pool(l, r, plain)
	plain.DialTLSContext = s.dial
	l.pool = s
	return l
}

// dial makes a connection, of TLS if there is a config for it; see network.dial. It may go on when
// the request that it was begun for has gone elsewhere, and what comes of it is
// kept; so what became of it is told here, and not by the request.
func (l *leaf) dial(ctx context.Context, secure *tls.Config, http2 bool) (net.Conn, error) {
	n := l.network
	group := outcome.Safe
	a, _ := ctx.Value(attemptKey{}).(*attempt)
	if a != nil {
		group = a.x.Group
	}
	if l.stalled.Load() >= maxStalled {
		return nil, errStalled
	}
	began, at := time.Now(), n.since()
	d := l.endpoint.Dial()
	defer d.Done()
	timer := time.AfterFunc(n.timeout, func() {
		d.Stalled()
		l.stalled.Add(1)
		if a != nil {
			a.stall()
		}
	})
	c, err := n.dial(ctx, l.addr, secure, http2, &l.open)
	if !timer.Stop() {
		l.stalled.Add(-1) // or will have been added
	}
	if failed, ok := errors.AsType[*dialError](err); ok {
		if l.heard.Load() < int64(at) {
			// The idle connections lead to the same place. If it has answered
			// meanwhile it is slow and not dead, and more dialling would not make
			// it faster.
			l.pool.CloseIdleConnections()
		}
		l.balancer.Note(l.endpoint, outcome.Result{Code: failed.code, Group: group, Began: began, At: time.Now()})
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// retire closes the idle connections, and lets release close those in use.
func (l *leaf) retire() {
	l.retired.Store(true)
	l.pool.CloseIdleConnections()
}

// release is called when a request is over.
func (l *leaf) release() {
	if l.retired.Load() {
		l.pool.CloseIdleConnections()
	}
}
