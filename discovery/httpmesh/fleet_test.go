package httpmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inOrder is a policy that makes tests tell what they mean: the first one by ID
// that was not tried.
type inOrder struct{}

func (inOrder) Pick(tier balancer.Tier, q balancer.Request) *balancer.Endpoint {
	for e := range tier.All(q) {
		if !slices.Contains(q.Tried, e) {
			return e
		}
	}
	return nil
}

func (inOrder) Learn(*balancer.Endpoint, outcome.Result) {}

// fleet is servers on a network in memory, so that it runs in a synctest
// bubble, and the source that lists them.
type fleet struct {
	t         testing.TB
	source    catalog.Fixed
	instances map[string][]catalog.Instance
	idle      time.Duration // of the servers that are added; 0: for ever

	mu    sync.Mutex
	nodes map[string]*node // by address
}

// node is what stands at an address.
type node struct {
	accept  chan net.Conn
	done    chan struct{}
	mode    atomic.Value // "serve", "refuse", "swallow", "lack" (of descriptors), "lose" (the first packet)
	dials   atomic.Int64
	calls   atomic.Int64
	server  *http.Server
	serving sync.WaitGroup
}

func (n *node) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.done:
		return nil, net.ErrClosed
	}
}
func (n *node) Close() error   { close(n.done); return nil }
func (n *node) Addr() net.Addr { return &net.TCPAddr{} }

func newFleet(t testing.TB) *fleet {
	f := &fleet{t: t, instances: map[string][]catalog.Instance{}, nodes: map[string]*node{}}
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, n := range f.nodes {
			_ = n.server.Close()
			n.serving.Wait()
		}
	})
	return f
}

// add starts an instance of the service with the handler (nil answers 200 with
// the instance's ID), lists it, and returns its node.
func (f *fleet) add(service, id string, handler http.HandlerFunc, change ...func(*catalog.Instance)) *node {
	f.t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, id) }
	}
	n := &node{accept: make(chan net.Conn), done: make(chan struct{})}
	n.mode.Store("serve")
	n.server = &http.Server{IdleTimeout: f.idle, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.calls.Add(1)
		handler(w, r)
	})}
	n.serving.Go(func() { _ = n.server.Serve(n) })
	f.mu.Lock()
	i := catalog.Instance{ID: id, Host: fmt.Sprintf("10.0.0.%d", len(f.nodes)+1), Port: 8080}
	f.nodes[i.Addr()] = n
	f.mu.Unlock()
	for _, c := range change {
		c(&i)
	}
	f.list(service, append(f.instances[service], i)...)
	return n
}

func (f *fleet) list(service string, instances ...catalog.Instance) {
	f.t.Helper()
	f.instances[service] = instances
	if err := f.source.Set(service, instances...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	f.mu.Lock()
	n := f.nodes[addr]
	f.mu.Unlock()
	if n == nil {
		return nil, fmt.Errorf("dial tcp %s: no such host", addr)
	}
	n.dials.Add(1)
	switch n.mode.Load() {
	case "refuse":
		return nil, fmt.Errorf("dial tcp %s: connection refused", addr)
	case "swallow":
		<-ctx.Done()
		return nil, fmt.Errorf("dial tcp %s: %w", addr, ctx.Err())
	case "lack":
		return nil, fmt.Errorf("dial tcp %s: %w", addr, syscall.EMFILE)
	case "lose":
		again := time.NewTimer(time.Second) // TCP sends it again
		defer again.Stop()
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	here, there := net.Pipe()
	select {
	case n.accept <- there:
		return here, nil
	case <-n.done:
		return nil, fmt.Errorf("dial tcp %s: connection refused", addr)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// transport returns a Transport that picks in order, unless cfg says otherwise.
func (f *fleet) transport(cfg httpmesh.Config) *httpmesh.Transport {
	f.t.Helper()
	if cfg.Source == nil {
		cfg.Source = &f.source
	}
	if cfg.Policy == nil {
		cfg.Policy = inOrder{}
	}
	return newTransport(f.t, cfg.WithDial(f.dial))
}

func newTransport(t testing.TB, cfg httpmesh.Config) *httpmesh.Transport {
	t.Helper()
	transport, err := httpmesh.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
		if n := transport.Open(); n != 0 {
			t.Errorf("%d dials and connections are open after Close", n)
		}
	})
	return transport
}

// answer is a response that was read to its end.
type answer struct {
	status int
	body   string
	report httpmesh.Report
	err    error
}

func send(t testing.TB, transport http.RoundTripper, method, url string, body io.Reader) answer {
	t.Helper()
	return sendWith(t.Context(), t, transport, method, url, body)
}

func sendWith(ctx context.Context, t testing.TB, transport http.RoundTripper, method, url string, body io.Reader) (a answer) {
	t.Helper()
	r, err := http.NewRequestWithContext(httpmesh.WithReport(ctx, &a.report), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		a.err = err
		return a
	}
	if resp.Request != r {
		t.Error("the response's Request is not the one that was sent")
	}
	a.status = resp.StatusCode
	text, err := io.ReadAll(resp.Body)
	a.body, a.err = string(text), err
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return a
}

// words returns the outcomes of the tries, and of the request.
func words(r httpmesh.Report) string {
	text := ""
	for _, try := range r.Tries {
		text += try.Instance.ID + " " + try.Outcome.String() + ", "
	}
	return text + r.Outcome.String()
}

// stream is a body that can be read once, like that of a request that came in
// through a server, and counts.
type stream struct {
	text   io.Reader
	read   atomic.Int64
	closed atomic.Int64
	err    error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.closed.Load() > 0 {
		return 0, errors.New("read of a body that is closed")
	}
	n, err := s.text.Read(p)
	s.read.Add(int64(n))
	if err == io.EOF && s.err != nil {
		err = s.err
	}
	return n, err
}
func (s *stream) Close() error { s.closed.Add(1); return nil }

// wantClosedOnce waits, since a transport may close a body a little later.
func (s *stream) wantClosedOnce(t testing.TB) {
	t.Helper()
	eventually(t, "the body is closed", func() bool { return s.closed.Load() > 0 })
	if n := s.closed.Load(); n != 1 {
		t.Errorf("the body was closed %d times; want once", n)
	}
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// echo answers with the request's body, once it has all of it.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(body)
}

// hang answers when the client has gone.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// nap sleeps unless the client goes. Handlers use it, so that they end with
// their server, as a bubble wants.
func nap(r *http.Request, d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	}
}

// abort breaks the connection off.
func abort(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}
