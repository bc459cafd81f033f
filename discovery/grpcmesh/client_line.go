package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

var (
	errStalled = errors.New("no connection within DialTimeout")
	errDropped = errors.New("the connection was closed as soon as it was made")
	errRetired = errors.New("the instance has left")
)

// link is how one endpoint is reached: over one connection, besides that which is
// being made and those that are renewed and end with their last call.
type link struct {
	client   *client
	endpoint *balancer.Endpoint
	addr     string
	ready    atomic.Pointer[line] // nil: no connection

	mu      sync.Mutex // guards what follows
	dialing *line      // nil: none is being made
	retired bool
}

// line is one connection, and one SubConn that has no other: gRPC would wait for
// seconds before it dials again (its backoff), where ejection does that here.
type line struct {
	link    *link
	sub     grpcbalancer.SubConn
	expires time.Time // zero: never; set before it is ready
	lost    atomic.Bool

	// While it is being made.
	began time.Time
	dial  *balancer.Dial
	slow  *time.Timer   // DialTimeout
	made  chan struct{} // closed when it is ready, or err is set
	err   error
}

// line returns the connection, and waits for one as long as DialTimeout. One that
// has reached its age is used until another is there.
func (l *link) line(ctx context.Context) (*line, error) {
	if ready := l.ready.Load(); ready != nil {
		if ready.expires.IsZero() || time.Now().Before(ready.expires) {
			return ready, nil
		}
		_, _ = l.begin()
		return ready, nil
	}
	n, err := l.begin()
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(l.client.settings.DialTimeout)
	defer timer.Stop()
	select {
	case <-n.made:
	case <-timer.C:
		return nil, errStalled
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-l.client.closed:
		return nil, catalog.ErrClosed
	}
	if n.err != nil {
		return nil, &dialError{n.err}
	}
	return n, nil
}

// dialError marks the failure of a dial, which says that nothing was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// begin returns the connection that is being made; it begins one if there is none.
func (l *link) begin() (*line, error) {
	cc := l.client.conn.Load()
	if cc == nil {
		return nil, catalog.ErrClosed // before it was ever open
	}
	l.mu.Lock()
	if l.dialing != nil {
		defer l.mu.Unlock()
		return l.dialing, nil
	}
	if ready := l.ready.Load(); ready != nil && (ready.expires.IsZero() || time.Now().Before(ready.expires)) {
		defer l.mu.Unlock()
		return ready, nil // it has come meanwhile
	}
	n := &line{link: l, began: time.Now(), dial: l.endpoint.Dial(), made: make(chan struct{})}
	sub, err := cc.NewSubConn([]resolver.Address{{Addr: l.addr}}, grpcbalancer.NewSubConnOptions{StateListener: n.state}) //nolint:staticcheck // its use with one address is what stays
	if err != nil {
		l.mu.Unlock()
		n.dial.Done()
		return nil, fmt.Errorf("%w: %w", catalog.ErrClosed, err)
	}
	n.sub = sub
	n.slow = time.AfterFunc(l.client.settings.DialTimeout, n.dial.Stalled)
	l.dialing = n
	l.mu.Unlock()
	sub.Connect()
	return n, nil
}

// state is told of the SubConn's.
func (n *line) state(s grpcbalancer.SubConnState) {
	switch s.ConnectivityState {
	case connectivity.Ready:
		n.opened()
	case connectivity.TransientFailure:
		n.ended(s.ConnectionError)
	case connectivity.Idle:
		n.ended(errDropped)
	case connectivity.Shutdown:
		n.ended(errRetired)
	case connectivity.Connecting:
	}
}

// opened makes it the one that is used; the calls of the one before go on, and it is
// closed with the last of them.
func (n *line) opened() {
	l := n.link
	if age := l.client.settings.MaxConnAge; age > 0 {
		n.expires = time.Now().Add(spread(age))
	}
	l.mu.Lock()
	if l.dialing != n { // it has been given up
		l.mu.Unlock()
		return
	}
	l.dialing = nil
	retired := l.retired
	before := l.ready.Swap(n)
	l.mu.Unlock()
	n.slow.Stop()
	n.dial.Done()
	close(n.made)
	if before != nil {
		before.drop()
	}
	if retired { // for the try that waits for it, and no other
		time.AfterFunc(time.Second, n.drop)
	}
	l.client.changed()
}

// ageSpread is how far a connection's greatest age may lie on either side of the
// setting, so that those made together don't end together.
const ageSpread = 0.1

func spread(age time.Duration) time.Duration {
	d := time.Duration(ageSpread * float64(age))
	return age - d + rand.N(2*d+1)
}

// ended notes that the connection, or the making of it, has: a server's GOAWAY ends
// it for new calls. Those under way go on in the transport, if it is still there.
func (n *line) ended(err error) {
	l := n.link
	if n.lost.Swap(true) {
		return
	}
	l.ready.CompareAndSwap(n, nil)
	l.mu.Lock()
	dialed := l.dialing == n
	if dialed {
		l.dialing = nil
		n.err = err
	}
	l.mu.Unlock()
	if dialed {
		n.slow.Stop()
		n.dial.Done()
		close(n.made)
		if !errors.Is(err, errRetired) && !tries.OwnFault(err) && !l.client.isClosed() {
			l.client.balancer.Note(l.endpoint, outcome.Result{Code: outcome.Unreachable, Began: n.began, At: time.Now()})
		}
	}
	n.sub.Shutdown()
	l.client.changed()
}

// drop closes the connection when its last call has ended.
func (n *line) drop() {
	n.lost.Store(true)
	n.link.ready.CompareAndSwap(n, nil)
	n.sub.Shutdown()
}

// retire lets the connection go.
func (l *link) retire() {
	l.mu.Lock()
	l.retired = true
	dialing := l.dialing
	l.mu.Unlock()
	if ready := l.ready.Load(); ready != nil {
		ready.drop()
	}
	if dialing != nil {
		dialing.ended(errRetired)
	}
}

// dial makes the connections of every client.
func dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Control: control}
	return d.DialContext(ctx, "tcp", addr)
}
