package consultest

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// Agent is a Consul agent in memory, and the servers behind it. Use New. Its
// methods may be called from any goroutine, and do nothing harmful after
// Close.
type Agent struct {
	started  time.Time
	pipe     *pipeListener
	server   *http.Server
	done     chan struct{} // closed by Close
	close    sync.Once
	handlers sync.WaitGroup // requests being answered
	serving  sync.WaitGroup // Serve loops
	mux      *http.ServeMux

	mu         sync.Mutex // guards what follows
	closed     bool
	changed    chan struct{} // closed and replaced at each change of what is below
	local      local
	catalog    catalog
	leader     bool
	leaderLost time.Time
	faults     map[string]Fault // by path prefix
	requests   []Request
	held       map[*http.Request]struct{} // blocking queries that wait
	limit      int                        // of open connections; 0 means none
	conns      map[net.Conn]struct{}
	transports []*http.Transport
	jitter     *rand.Rand
}

// Request is one request that reached the agent.
type Request struct {
	At     time.Time
	Method string
	Path   string
	Query  url.Values
}

// New returns an agent that knows only itself. It is closed by the test's
// cleanup, which in a synctest bubble runs inside the bubble; whatever uses
// the agent must be closed before, so make the agent first.
func New(t testing.TB) *Agent {
	t.Helper()
	a := &Agent{
		started: time.Now(),
		pipe:    newPipeListener(),
		done:    make(chan struct{}),
		changed: make(chan struct{}),
		leader:  true,
		faults:  map[string]Fault{},
		held:    map[*http.Request]struct{}{},
		conns:   map[net.Conn]struct{}{},
		jitter:  rand.New(rand.NewPCG(1, 2)),
	}
	a.local.services = map[string]*localService{}
	a.local.checks = map[string]*localCheck{}
	a.catalog.wipe()
	a.mux = a.routes()
	a.server = &http.Server{
		Handler:           http.HandlerFunc(a.serve),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState:         a.track,
		ConnContext:       a.admit,
	}
	a.listen(a.pipe)
	t.Cleanup(a.Close)
	return a
}

// Close cuts every connection, ends every wait and timer, and returns when the
// last request has ended. It may be called twice.
func (a *Agent) Close() {
	a.close.Do(func() {
		a.mu.Lock()
		a.closed = true
		a.local.stopTimers()
		transports := a.transports
		a.mu.Unlock()
		// First the connections, so that nobody gets an answer from a wait
		// that ends for this reason only.
		a.server.Close()
		close(a.done)
		a.handlers.Wait()
		a.serving.Wait()
		for _, t := range transports {
			t.CloseIdleConnections()
		}
	})
}

// Client returns a client of Consul's real API module that talks to the agent
// over connections of its own.
func (a *Agent) Client() *api.Client {
	// NewClient can only fail for an address or TLS setting that it can't
	// read, and these are fixed. Scheme and Address are given so that
	// CONSUL_HTTP_ADDR and CONSUL_HTTP_SSL have no say.
	c, err := api.NewClient(&api.Config{Address: Address, Scheme: "http", HttpClient: a.HTTPClient()})
	if err != nil {
		return nil
	}
	return c
}

// Address is the host and port that stand for the agent in URLs. Nothing
// listens there: see DialContext.
const Address = "127.0.0.1:8500"

// HTTPClient returns an HTTP client, without a timeout, that reaches the agent
// whatever the host of the URL is, over connections of its own.
func (a *Agent) HTTPClient() *http.Client {
	t := &http.Transport{DialContext: a.DialContext, MaxIdleConnsPerHost: 100, IdleConnTimeout: 90 * time.Second}
	a.mu.Lock()
	a.transports = append(a.transports, t)
	a.mu.Unlock()
	return &http.Client{Transport: t}
}

// DialContext connects to the agent; network and address are ignored. It is
// made for http.Transport.
func (a *Agent) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	if a.fault("").refuse {
		return nil, errRefused()
	}
	return a.pipe.dial(ctx)
}

// Listen serves the agent on a free port of the loopback interface too, until
// it is closed, and returns host:port: for what can only be given an address.
// It is real I/O, and has no place in a synctest bubble. Faults hold there too,
// but Refuse can only close a new connection, not refuse it.
func (a *Agent) Listen() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	a.listen(l)
	return l.Addr().String(), nil
}

func (a *Agent) listen(l net.Listener) {
	a.serving.Go(func() {
		// Serve closes the listener, and ends when the server is closed.
		_ = a.server.Serve(l)
	})
}

// Requests returns, oldest first, the requests so far whose path begins with
// the prefix, those included that a fault swallowed: "" means all.
func (a *Agent) Requests(prefix string) []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []Request
	for _, r := range a.requests {
		if strings.HasPrefix(r.Path, prefix) {
			out = append(out, r)
		}
	}
	return out
}

// Held returns the number of blocking queries that wait now and whose path
// begins with the prefix: "" means all.
func (a *Agent) Held(prefix string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for r := range a.held {
		if strings.HasPrefix(r.URL.Path, prefix) {
			n++
		}
	}
	return n
}

// Connections returns the number of connections that are open.
func (a *Agent) Connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conns)
}

// LimitConnections sets how many connections may be open; a request on one
// more is answered with 429 and the connection closed, as Consul does with its
// http_max_conns_per_client (200 by default there). 0 means no limit, which is
// the default here.
func (a *Agent) LimitConnections(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = n
}

type overLimit struct{}

func (a *Agent) admit(ctx context.Context, c net.Conn) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.limit > 0 && len(a.conns) >= a.limit {
		return context.WithValue(ctx, overLimit{}, true)
	}
	a.conns[c] = struct{}{}
	return ctx
}

func (a *Agent) track(c net.Conn, s http.ConnState) {
	if s != http.StateClosed && s != http.StateHijacked {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
}

// cut closes every connection, as a process that ends does.
func (a *Agent) cut() {
	a.mu.Lock()
	conns := make([]net.Conn, 0, len(a.conns))
	for c := range a.conns {
		conns = append(conns, c)
	}
	a.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// notify wakes whoever waits for a change. The caller holds mu.
func (a *Agent) notify() {
	close(a.changed)
	a.changed = make(chan struct{})
}

// waitUntil returns when ok is true, when the limit is over (0: no limit), or
// when ctx or the agent ends; it says whether ok is true. The caller holds mu,
// which is given up while waiting.
func (a *Agent) waitUntil(ctx context.Context, limit time.Duration, ok func() bool) bool {
	var over <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		over = timer.C
	}
	for !ok() {
		changed := a.changed
		a.mu.Unlock()
		ended := false
		select {
		case <-changed:
		case <-over:
			ended = true
		case <-ctx.Done():
			ended = true
		case <-a.done:
			ended = true
		}
		a.mu.Lock()
		if ended {
			return ok()
		}
	}
	return true
}
