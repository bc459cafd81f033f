package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/internal/logtest"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func limits() web.Limits {
	return web.Limits{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		MaxConnections:    100,
	}
}

// rig is a server on pipes inside a bubble, and a client for it.
type rig struct {
	*web.Server
	t       *testing.T
	metrics *prometheus.Registry
	log     *lines
	pipes   *pipes
	client  *http.Client
	served  chan error
}

// bubble runs the test with a server for h; the server is shut down and
// everything joined before it returns.
func bubble(t *testing.T, l web.Limits, h http.Handler, test func(t *testing.T, r *rig)) {
	t.Helper()
	bubbleOf(t, web.Config{Limits: l}, h, test)
}

// bubbleOf is bubble with more of the configuration; metrics and log are the
// rig's.
func bubbleOf(t *testing.T, cfg web.Config, h http.Handler, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		m, err := metrics.New(metrics.Config{Registerer: reg, Service: "order"})
		if err != nil {
			t.Fatal(err)
		}
		log := &lines{}
		cfg.Metrics, cfg.Log = m.Server(), slog.New(logging.WithContextIDs(slog.NewJSONHandler(log, nil)))
		r := &rig{t: t, metrics: reg, log: log, pipes: newPipes(), served: make(chan error, 1), Server: web.New(cfg)}
		r.client = &http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return r.pipes.dial() },
		}}
		go func() { r.served <- r.Serve(r.pipes, h) }()
		synctest.Wait()
		test(t, r)
		r.client.CloseIdleConnections()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_ = r.Shutdown(ctx) // a second time, in tests of Shutdown
		if err := <-r.served; err != nil {
			t.Errorf("Serve() = %v; want nil after Shutdown", err)
		}
	})
}

func (r *rig) do(req *http.Request) (*http.Response, string) {
	r.t.Helper()
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: read the answer: %v", req.Method, req.URL, err)
	}
	return resp, string(body)
}

func (r *rig) get(path string, header ...string) (*http.Response, string) {
	r.t.Helper()
	return r.do(r.request(path, nil, header...))
}

func (r *rig) request(path string, body io.Reader, header ...string) *http.Request {
	r.t.Helper()
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, "http://order"+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		req.Header.Add(header[n], header[n+1])
	}
	return req
}

// problem checks that the answer is a problem of that status.
func (r *rig) problem(resp *http.Response, body string, status int) {
	r.t.Helper()
	var p struct {
		Type, Title, Detail, Instance string
		Status                        int
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		r.t.Fatalf("the body is no JSON: %v\n%s", err, body)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != status || p.Status != status || got != "application/problem+json" {
		r.t.Errorf("got %d %s %+v; want a problem with status %d", resp.StatusCode, got, p, status)
	}
	if p.Type == "" || p.Title == "" || p.Detail == "" {
		r.t.Errorf("the problem %s lacks a member", body)
	}
}

// lines is a log of lines of JSON.
type lines struct{ logtest.Buffer }

// named returns the lines with that message.
func (l *lines) named(t *testing.T, msg string) []map[string]any {
	t.Helper()
	var found []map[string]any
	dec := json.NewDecoder(bytes.NewReader([]byte(l.String())))
	for {
		line := map[string]any{}
		if err := dec.Decode(&line); err != nil {
			return found
		}
		if line["msg"] == msg {
			found = append(found, line)
		}
	}
}

// pipes is a listener whose connections are pipes.
type pipes struct {
	slow   func(n int) // called after each read of n bytes by a client, if it is not nil
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		if p.slow != nil {
			return &slowConn{Conn: ours, after: p.slow}, nil
		}
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// slowConn takes its time to read.
type slowConn struct {
	net.Conn
	after func(n int)
}

func (c *slowConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.after(n)
	return n, err
}
