package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// network is all that a Transport has open: its dials and its connections.
// They are noted here when they begin and end, so requests pay nothing for it.
type network struct {
	timeout time.Duration // how long a request waits for a dial
	idle    time.Duration // how long a connection is kept that nothing uses
	maxAge  time.Duration // of a connection; 0: none
	began   time.Time     // times are counted from it, by the monotonic clock
	dialer  func(ctx context.Context, network, addr string) (net.Conn, error)

	mu     sync.Mutex // guards what follows
	closed bool
	open   map[any]func() // how to end each
}

// errVeto is the error of writing to a connection whose request was ended before.
var errVeto = errors.New("the request was ended before it was written")

// since is the time as the atomics of its connections hold it.
func (n *network) since() time.Duration { return time.Since(n.began) }

// dialError marks the failure of a dial, which says that nothing was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// add notes something open. It reports false, and notes nothing, after close.
func (n *network) add(what any, end func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	if n.open == nil {
		n.open = map[any]func(){}
	}
	n.open[what] = end
	return true
}

func (n *network) remove(what any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.open, what)
}

// close ends all that is open, and refuses what comes later.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	open := n.open
	n.open = nil
	n.mu.Unlock()
	for _, end := range open {
		end()
	}
}

// dialPatience is how many times the timeout a dial lasts in all: a lost packet is
// sent again after a second.
const dialPatience = 10

// dial connects, for as long as dialPatience says. A failure that is the address's, and not
// the end of ctx or close, is a *dialError.
func (n *network) dial(parent context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(parent, dialPatience*n.timeout)
	defer cancel()
	dialing := &ctx
	if !n.add(dialing, cancel) {
		return nil, catalog.ErrClosed
	}
	inner, err := n.dialer(ctx, network, addr)
	n.remove(dialing)
	if err != nil {
		if parent.Err() != nil || errors.Is(ctx.Err(), context.Canceled) {
			return nil, err
		}
		if ownFault(err) {
			return nil, fmt.Errorf("%w: %w", errOwnFault, err)
		}
		return nil, &dialError{err}
	}
	c := &conn{Conn: inner, network: n, expires: n.expiry(time.Now())}
	if !n.add(c, func() { _ = inner.Close() }) {
		_ = inner.Close()
		return nil, catalog.ErrClosed
	}
	return c, nil
}

// ageSpread is how far a connection's greatest age may lie on either side of the
// setting, as a share of it, so that those made together don't end together.
const ageSpread = 0.1

// expiry returns until when a connection made now is used; zero is for ever.
func (n *network) expiry(now time.Time) time.Time {
	if n.maxAge <= 0 {
		return time.Time{}
	}
	spread := time.Duration(ageSpread * float64(n.maxAge))
	return now.Add(n.maxAge - spread + rand.N(2*spread+1))
}

// conn counts what is sent, and is known to its network.
type conn struct {
	net.Conn
	network *network
	expires time.Time // zero: never
	// sent is the number of bytes written; those being written count.
	sent     atomic.Int64
	received atomic.Int64
	wroteAt  atomic.Int64 // when the last byte was written, since the network began
	veto     atomic.Bool  // nothing may be written
}

// expired reports whether it has reached its age.
func (c *conn) expired(now time.Time) bool { return !c.expires.IsZero() && !now.Before(c.expires) }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	if c.veto.Load() {
		return 0, errVeto
	}
	c.sent.Add(int64(len(p)))
	n, err := c.Conn.Write(p)
	c.sent.Add(int64(n - len(p)))
	c.wroteAt.Store(int64(c.network.since()))
	return n, err
}

// ReadFrom lets the kernel move bytes where the connection can.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if c.veto.Load() {
		return 0, errVeto
	}
	c.sent.Add(1)
	n, err := io.Copy(c.Conn, r)
	c.sent.Add(n - 1)
	c.wroteAt.Store(int64(c.network.since()))
	return n, err
}

// CloseWrite ends one direction, which protocols after an upgrade may need.
func (c *conn) CloseWrite() error { return closeWrite(c.Conn) }

func (c *conn) Close() error {
	c.network.remove(c)
	return c.Conn.Close()
}

func closeWrite(w any) error {
	if w, ok := w.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return http.ErrNotSupported
}
