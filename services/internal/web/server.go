package web

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

// Limits bound what a client may take. All are required, but for the one that
// says so.
type Limits struct {
	// ReadHeaderTimeout is how long a client may take to send a request's
	// header.
	ReadHeaderTimeout time.Duration
	// ReadTimeout and WriteTimeout are how long the request may take to come
	// in, and until the answer must be out, both counted from the header on.
	ReadTimeout, WriteTimeout time.Duration
	// StreamTimeout replaces both where answers may last for ever: it is how
	// long one piece of a body may take to come in or to go out. 0 means that
	// ReadTimeout and WriteTimeout hold.
	StreamTimeout time.Duration
	// IdleTimeout is how long a connection may wait for its next request.
	IdleTimeout time.Duration
	// MaxHeaderBytes is the size of the largest request header that is served;
	// a larger one is answered 431. It is at most MaxMaxHeaderBytes.
	MaxHeaderBytes int
	// MaxConnections is how many connections may be open, all listeners taken
	// together; the next one is answered 503 and closed.
	MaxConnections int
	// MaxRequests is how many requests may be in flight, all listeners taken
	// together, streams and upgraded connections included; the next one is
	// answered 503. 0 means as many as MaxConnections.
	MaxRequests int
	// MaxStreams is how many requests one HTTP/2 connection may have in flight.
	// 0 means 100, below which RFC 9113 (section 6.5.2) advises not to go.
	MaxStreams int
}

func (l Limits) maxRequests() int { return cmp.Or(l.MaxRequests, l.MaxConnections) }

// MaxMaxHeaderBytes is where net/http stops reading a header and answers 431
// itself, in plain text.
const MaxMaxHeaderBytes = 64 << 10

// Config says what a Server is to be.
type Config struct {
	Limits Limits
	// Metrics are told of each request and connection. nil means nobody is.
	Metrics *metrics.Server
	// Spans are made of each request. nil means none.
	Spans Spans
	// Log gets one line a request and what goes wrong. Required.
	Log *slog.Logger
	// Edge says that requests come from outside the mesh: no header whose name
	// begins with Rollcall- goes out, for these are words between services.
	Edge bool
	// TLS says how the listeners serve. nil means plain text.
	TLS *tls.Config
	// AccessLevel is the level of the line a request. The zero value is info.
	AccessLevel slog.Level
}

// Spans makes a span of a request, as tracing.Server does.
type Spans interface {
	// Begin returns the context that the request goes on with, made of ctx.
	Begin(ctx context.Context, r *http.Request) context.Context
	// End is told how it was answered, with that context.
	End(ctx context.Context, r *http.Request, status int)
}

// Server serves one or more listeners, which share its limits. Use New.
type Server struct {
	cfg         Config
	connections *connections
	arrivals    atomic.Uint64
	retired     atomic.Bool
	inFlight    gauge
	refusals    seldom
	newborn     newborn
	cut         context.CancelFunc // ends the context of every request
	base        func(net.Listener) context.Context

	mu      sync.Mutex // guards what follows
	servers []*http.Server
	closed  bool
}

// New returns a server without a listener.
func New(cfg Config) *Server {
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		cfg:         cfg,
		connections: newConnections(cfg),
		cut:         cancel,
		base:        func(net.Listener) context.Context { return ctx },
	}
}

// Serve answers the listener's connections with h until Shutdown, and returns
// nil then. It closes the listener. It may be called for several listeners.
func (s *Server) Serve(l net.Listener, h http.Handler) error {
	limits := s.cfg.Limits
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	if s.cfg.TLS != nil {
		protocols.SetHTTP2(true)
	} else {
		protocols.SetUnencryptedHTTP2(true) // for clients that know beforehand (RFC 9113, section 3.3)
	}
	server := &http.Server{
		Protocols:         protocols,
		TLSConfig:         s.cfg.TLS.Clone(),
		Handler:           s.handler(h),
		ReadHeaderTimeout: limits.ReadHeaderTimeout,
		ReadTimeout:       limits.ReadTimeout,
		WriteTimeout:      limits.WriteTimeout,
		IdleTimeout:       limits.IdleTimeout,
		MaxHeaderBytes:    MaxMaxHeaderBytes,
		BaseContext:       s.base,
		ConnState:         s.newborn.note,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: cmp.Or(limits.MaxStreams, 100),
			// A stream's own deadline is of no use on a connection that takes no
			// byte.
			WriteByteTimeout: cmp.Or(limits.StreamTimeout, limits.WriteTimeout),
		},
		// "OPTIONS *" is a request like any other, with its time and its line.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	if limits.StreamTimeout > 0 {
		// These are for what net/http reads and writes before the handler is
		// called, or instead; from then on the clock sets its own.
		server.ReadTimeout, server.WriteTimeout = limits.StreamTimeout, limits.StreamTimeout
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(fmt.Errorf("serve %s: %w", l.Addr(), http.ErrServerClosed), l.Close())
	}
	s.servers = append(s.servers, server)
	s.mu.Unlock()

	serve := server.Serve
	if s.cfg.TLS != nil {
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
	}
	if err := serve(s.connections.listen(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Arrivals returns how many requests have arrived so far.
func (s *Server) Arrivals() uint64 { return s.arrivals.Load() }

// Retire asks clients to leave: from now on each answer closes its connection,
// so that the next request goes elsewhere. Idle connections stay open, since a
// request may be on its way on one of them (http.Server's SetKeepAlivesEnabled
// would close them, and a POST that meets the closing can't be sent again).
func (s *Server) Retire() { s.retired.Store(true) }

// grace is how long handlers may take to return after they were cut off.
const grace = time.Second

// Shutdown closes the listeners and waits for the requests in flight, streams
// and upgraded connections included. When ctx ends it cuts them off, and the
// error says how many. It is to be called once.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Retire()
	s.mu.Lock()
	s.closed = true
	servers := s.servers
	s.mu.Unlock()
	defer s.cut()

	errs := make([]error, len(servers))
	var closing, waiting sync.WaitGroup
	shut, done := context.WithCancel(ctx)
	waiting.Go(func() { s.newborn.closeSoon(shut) })
	for n, server := range servers {
		closing.Go(func() { errs[n] = server.Shutdown(ctx) })
	}
	closing.Wait()
	done()
	waiting.Wait()
	err := errors.Join(errs...)
	if s.inFlight.wait(ctx) && err == nil {
		s.connections.wait()
		return nil
	}
	left := s.inFlight.value()
	s.cut()
	for _, server := range servers {
		_ = server.Close() // what it may say, Shutdown has said
	}
	s.connections.wait()
	// Handlers end with their contexts; ctx, which has ended, can't bound that.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	s.inFlight.wait(last)
	if left == 0 {
		return nil // connections without a request: nothing was lost
	}
	return fmt.Errorf("shut down: %d requests were cut off: %w", left, context.Cause(ctx))
}

// gauge counts what is under way, and lets one wait for none to be.
type gauge struct {
	mu   sync.Mutex // guards what follows
	n    int
	none chan struct{} // closed when n comes down to 0; nil if nobody waits
}

// add returns what the count is then.
func (g *gauge) add(delta int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n += delta; g.n == 0 && g.none != nil {
		close(g.none)
		g.none = nil
	}
	return g.n
}

func (g *gauge) value() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n
}

// wait reports whether the count came down to 0 before ctx ended.
func (g *gauge) wait(ctx context.Context) bool {
	g.mu.Lock()
	if g.n == 0 {
		g.mu.Unlock()
		return true
	}
	if g.none == nil {
		g.none = make(chan struct{})
	}
	none := g.none
	g.mu.Unlock()
	select {
	case <-none:
		return true
	case <-ctx.Done():
		return g.value() == 0
	}
}
