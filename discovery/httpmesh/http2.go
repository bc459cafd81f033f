package httpmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// The protocols that are offered in a handshake (RFC 7301).
const (
	alpnHTTP1 = "http/1.1"
	alpnHTTP2 = "h2"
)

// http2Pool is the connections to an endpoint that speaks HTTP/2, or says over TLS
// whether it does. One of HTTP/2 is shared by requests, each a stream of its own;
// HTTP/1.1 is http.Transport's business, as it is where nothing else is spoken.
//
// A request takes a stream of the first connection that has one left. If none has,
// a connection is made, for as many of the requests that wait as it has streams.
type http2Pool struct {
	leaf    *leaf
	http1   *http.Transport
	only    bool        // it speaks HTTP/2, and is not asked: for gRPC
	streams int         // on a connection at most; less than 1: HTTP/1.1 for all
	offers  *tls.Config // HTTP/2 and HTTP/1.1, or HTTP/2 only; nil: plain text
	offers1 *tls.Config // HTTP/1.1, for what HTTP/2 can't do

	mu     sync.Mutex // guards what follows
	shared []*shared
	flight *flight // the latest dial for several requests; nil: none under way
	chosen string  // what the endpoint chose last; empty: not known
	spare  *conn   // of HTTP/1.1, made by a flight, and not used so far
}

// shared is an HTTP/2 connection.
type shared struct {
	*conn
	used atomic.Bool // by a request
	old  bool        // for no further request; guarded by the pool's mutex
}

// flight is a dial for several requests.
type flight struct {
	done    chan struct{}
	waiting int     // that were told of it
	made    *shared // nil: none, or one of HTTP/1.1; read after done, as err is
	err     error
}

// reserve reserves a stream for a request that waited for the connection, whatever
// has become of its age meanwhile. It reports whether there was one.
func (s *http2Pool) reserve(c *shared) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.http2.InFlight() < s.streams && c.http2.Reserve() == nil
}

func newHTTP2Pool(l *leaf, r *route, http1 *http.Transport) *http2Pool {
	s := &http2Pool{leaf: l, http1: http1, only: r.key.grpc, streams: r.network.streams}
	if s.only && s.streams < 1 {
		s.streams = defaultMaxStreams // there is no gRPC without
	}
	if !r.key.secure {
		return s
	}
	cfg := new(tls.Config)
	if r.tls != nil {
		cfg = r.tls(r.key.service).Clone()
	}
	if cfg.ServerName == "" {
		cfg.ServerName = r.key.service
	}
	s.offers, s.offers1 = cfg.Clone(), cfg
	s.offers.NextProtos, s.offers1.NextProtos = []string{alpnHTTP2, alpnHTTP1}, []string{alpnHTTP1}
	if s.only {
		s.offers.NextProtos = []string{alpnHTTP2}
	}
	return s
}

// maxFlights is how many flights a request takes part in, whose streams others
// took before it.
const maxFlights = 3

var errCrowded = errors.New("every stream of the connections that were made is taken")

// RoundTrip sends a try's request.
func (s *http2Pool) RoundTrip(r *http.Request) (*http.Response, error) {
	a := r.Context().Value(attemptKey{}).(*attempt)
	if s.streams < 1 || a.x.upgrade {
		return s.http1.RoundTrip(r)
	}
	for range maxFlights {
		c, f := s.take(time.Now()) //nolint:contextcheck // a flight is others' too: it ends by its own time, or with the network
		switch {
		case c != nil:
			return c.roundTrip(r, a)
		case f == nil:
			return s.http1.RoundTrip(r)
		}
		if err := f.wait(r.Context(), a); err != nil {
			closeBody(r)
			return nil, err
		}
		if f.made != nil && s.reserve(f.made) {
			return f.made.roundTrip(r, a)
		}
	}
	closeBody(r)
	return nil, errCrowded
}

// take returns a connection with a stream that is reserved; else a flight to wait
// for; neither where the endpoint speaks HTTP/1.1.
func (s *http2Pool) take(now time.Time) (*shared, *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared = slices.DeleteFunc(s.shared, func(c *shared) bool { return c.http2.Err() != nil })
	for _, c := range s.shared {
		c.old = c.old || c.expired(now)
		if !c.old && c.http2.InFlight() < s.streams && c.http2.Reserve() == nil {
			return c, nil
		}
	}
	switch {
	case s.flight != nil && s.flight.waiting < s.streams:
	case s.chosen == alpnHTTP1:
		return nil, nil
	default:
		f := &flight{done: make(chan struct{})}
		if !s.leaf.network.begin(func() { s.fly(f) }) {
			f.err = net.ErrClosed
			close(f.done)
			return nil, f
		}
		s.flight = f
	}
	s.flight.waiting++
	return nil, s.flight
}

// wait waits until the flight has ended, as long as a request waits for a dial.
func (f *flight) wait(ctx context.Context, a *attempt) error {
	timer := time.AfterFunc(a.leaf.network.timeout, a.stall)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fly makes a connection. Like any dial it ends by its own time, or with the
// network.
func (s *http2Pool) fly(f *flight) {
	c, chosen, err := s.make()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flight == f {
		s.flight = nil
	}
	s.chosen = chosen
	if c != nil {
		s.shared = append(s.shared, c)
	}
	f.made, f.err = c, err
	close(f.done)
}

// make makes a connection, and keeps one of HTTP/1.1 as the spare. It returns what
// was chosen; without a connection that is nothing: who was away may come back as
// another.
func (s *http2Pool) make() (*shared, string, error) {
	made, err := s.leaf.dial(context.Background(), s.offers, s.only)
	if err != nil {
		return nil, "", err
	}
	c := made.(*conn)
	if c.http2 != nil {
		return &shared{conn: c}, alpnHTTP2, nil
	}
	s.mu.Lock()
	before := s.spare
	s.spare = c
	s.mu.Unlock()
	if before != nil {
		_ = before.Close()
	}
	return nil, alpnHTTP1, nil
}

// dial makes a connection of HTTP/1.1 for http.Transport, or hands the spare over.
func (s *http2Pool) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	s.mu.Lock()
	spare := s.spare
	s.spare = nil
	s.mu.Unlock()
	if spare != nil {
		return spare, nil
	}
	c, err := s.leaf.dial(ctx, s.offers1, false)
	if err != nil {
		s.mu.Lock()
		s.chosen = "" // who was away may come back as another
		s.mu.Unlock()
	}
	return c, err
}

// CloseIdleConnections closes the connections without a request. Those that have
// one get no other, and are closed by the call after its end, or by IdleTimeout.
func (s *http2Pool) CloseIdleConnections() {
	s.mu.Lock()
	spare := s.spare
	s.spare = nil
	var idle []*shared
	s.shared = slices.DeleteFunc(s.shared, func(c *shared) bool {
		c.old = true
		unused := c.http2.InFlight() == 0
		if unused {
			idle = append(idle, c)
		}
		return unused
	})
	s.mu.Unlock()
	if spare != nil {
		_ = spare.Close()
	}
	for _, c := range idle {
		_ = c.http2.Close()
	}
	s.http1.CloseIdleConnections()
}

// abandon takes a connection out of use for later requests: nothing came on it for
// as long as patience lasts.
func (s *http2Pool) abandon(c *shared) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.old = true
}

// stream is what a try over HTTP/2 knows of its own: its connection is others'
// too.
type stream struct {
	on      *shared
	wroteAt atomic.Int64 // when the header or the whole of it was written, since the network began; 0: it was not
}

// roundTrip sends the request on the stream that was reserved.
func (c *shared) roundTrip(r *http.Request, a *attempt) (*http.Response, error) {
	if !a.dial.CompareAndSwap(dialWaits, dialGot) {
		c.http2.Release()
		closeBody(r)
		return nil, errStalled
	}
	s := &stream{on: c}
	a.conn, a.stream = c.conn, s
	a.before, a.seen = c.sent.Load(), c.received.Load()
	a.reused = c.used.Swap(true)
	// RFC 9113, section 8.2.2: these are about one connection, and not sent.
	for _, name := range [...]string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade"} {
		delete(a.header, name)
	}
	wrote := func() { s.wroteAt.Store(max(1, int64(c.network.since()))) }
	resp, err := c.http2.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		WroteHeaders: wrote,
		WroteRequest: func(httptrace.WroteRequestInfo) { wrote() },
	})))
	if err != nil {
		closeBody(r) // one that it refuses it leaves open
	}
	return resp, err
}

// code says what an error of HTTP/2 is before anything was written: the
// connection's end, or else the request's own fault.
func (s *stream) code(err error) outcome.Code {
	if s.on.http2.Err() != nil || notProcessed(err) || strings.HasPrefix(err.Error(), "http2: client conn") {
		return outcome.Unsent
	}
	return outcome.CallerError
}
