package httpmesh

import (
	"context"
	"crypto/tls"
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
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// network is all that a Transport has open: its dials and its connections.
// They are noted here when they begin and end, so requests pay nothing for it.
type network struct {
	timeout time.Duration // how long a request waits for a dial
	idle    time.Duration // how long a connection is kept that nothing uses
	maxAge  time.Duration // of a connection; 0: none
	streams int           // of an HTTP/2 connection at most; less than 1: no HTTP/2
	began   time.Time     // times are counted from it, by the monotonic clock
	dialer  func(ctx context.Context, network, addr string) (net.Conn, error)

	http2   *http.Transport // makes HTTP/2 of connections that were made
	flights sync.WaitGroup  // goroutines that dial for several requests

	mu     sync.Mutex // guards what follows
	closed bool
	open   map[any]func() // how to end each
}

func newNetwork(cfg Config) *network {
	n := &network{
		timeout: cfg.DialTimeout, idle: cfg.IdleTimeout, maxAge: cfg.MaxConnAge, streams: cfg.MaxStreams,
		began: time.Now(), dialer: cfg.dial,
	}
	// It is given connections that were made, TLS included: what it sees is HTTP/2
	// without.
	http2 := new(http.Protocols)
	http2.SetUnencryptedHTTP2(true)
	n.http2 = n.transport(http2)
	n.http2.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ctx.Value(madeKey{}).(*conn), nil
	}
	return n
}

// madeKey is for the connection of which network.http2 makes HTTP/2.
type madeKey struct{}

// transport returns what all connections have in common.
func (n *network) transport(protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		Protocols:             protocols,
		DisableCompression:    true, // bodies pass as they are
		IdleConnTimeout:       n.idle,
		ExpectContinueTimeout: continueTimeout,
	}
}

// errVeto is the error of writing to a connection whose request was ended before.
var errVeto = errors.New("the request was ended before it was written")

// since is the time as the atomics of its connections hold it.
func (n *network) since() time.Duration { return time.Since(n.began) }

// dialError marks the failure of a dial, which says that nothing was sent. The
// dial itself has told the balancer of it.
type dialError struct {
	code outcome.Code // Unreachable or Untrusted
	err  error
}

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

// begin runs a dial for several requests; false after close.
func (n *network) begin(dial func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.flights.Go(dial)
	}
	return !n.closed
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
	n.flights.Wait()
}

// dialPatience is how many times the timeout a dial lasts in all: a lost packet is
// sent again after a second.
const dialPatience = 10

// dial connects, and shakes hands if there is a config for that, for as long as
// dialPatience says. HTTP/2 is spoken if that is chosen, or if http2 says so. While it is
// open the connection is counted in open, unless that is nil. A failure that is the
// address's, and not the end of ctx or close, is a *dialError.
func (n *network) dial(parent context.Context, addr string, secure *tls.Config, http2 bool, open *atomic.Int64) (*conn, error) {
	ctx, cancel := context.WithTimeout(parent, dialPatience*n.timeout)
	defer cancel()
	dialing := &ctx
	if !n.add(dialing, cancel) {
		return nil, catalog.ErrClosed
	}
	defer n.remove(dialing)
	c, err := n.connect(ctx, addr, secure, http2, open)
	if err != nil {
		if parent.Err() != nil || errors.Is(ctx.Err(), context.Canceled) {
			return nil, err
		}
		if tries.OwnFault(err) {
			return nil, fmt.Errorf("%w: %w", errOwnFault, err)
		}
		if handshake, ok := errors.AsType[*handshakeError](err); ok && handshake.untrusted() {
			return nil, &dialError{outcome.Untrusted, err}
		}
		return nil, &dialError{outcome.Unreachable, err}
	}
	return c, nil
}

var errNoHTTP2 = errors.New("it has not chosen HTTP/2, which gRPC needs")

// connect does what dial says, and returns any error as it is.
func (n *network) connect(ctx context.Context, addr string, secure *tls.Config, http2 bool, open *atomic.Int64) (*conn, error) {
	raw, err := n.dialer(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, network: n, expires: n.expiry(time.Now()), open: open}
	if secure != nil {
		if c.Conn, c.tls, err = shakeHands(ctx, raw, secure); err != nil {
			return nil, err
		}
	}
	if !n.add(c, func() { _ = raw.Close() }) {
		_ = raw.Close()
		return nil, catalog.ErrClosed
	}
	if open != nil {
		open.Add(1)
	}
	chosen := c.tls != nil && c.tls.NegotiatedProtocol == alpnHTTP2
	if http2 && secure != nil && !chosen {
		_ = c.Close()
		return nil, &handshakeError{errNoHTTP2}
	}
	if http2 || chosen {
		if err := n.multiplex(ctx, c, addr); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// multiplex begins HTTP/2 on a connection. How many streams it takes is the first
// thing that a server says (RFC 9113, section 3.4). One that does not believe our
// certificate ends the connection instead: in TLS 1.3 the handshake is over for us
// by then.
func (n *network) multiplex(ctx context.Context, c *conn, addr string) (err error) {
	spoken := make(chan error, 1)
	c.spoken = spoken
	if c.http2, err = n.http2.NewClientConn(context.WithValue(ctx, madeKey{}, c), "http", addr); err != nil {
		return err
	}
	select {
	case err := <-spoken:
		if err != nil {
			return &handshakeError{err}
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
	tls     *tls.ConnectionState // nil: plain text
	http2   *http.ClientConn     // nil: HTTP/1.1
	spoken  chan error           // gets how the first read went; nil: nobody waits for that
	expires time.Time            // zero: never
	open    *atomic.Int64        // counts it until it is closed; nil: nothing does
	closed  atomic.Bool          // Close was called
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
	if c.spoken != nil {
		if n > 0 {
			c.spoken <- nil
		} else {
			c.spoken <- err
		}
		c.spoken = nil
	}
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
	if !c.closed.Swap(true) && c.open != nil {
		c.open.Add(-1)
	}
	c.network.remove(c)
	return c.Conn.Close()
}

func closeWrite(w any) error {
	if w, ok := w.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return http.ErrNotSupported
}
