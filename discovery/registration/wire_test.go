package registration

import (
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// wire is one instance's way to Consul: it counts what is under way, and can be
// cut.
type wire struct {
	next  http.RoundTripper
	bytes atomic.Int64 // of answers' bodies that were read

	mu          sync.Mutex // guards what follows
	broken      bool
	calls, held int // under way
	mostCalls   int
	mostHeld    int
}

// client is a client of the backend over this wire.
func (w *wire) client(t *testing.T, b backend) *api.Client {
	t.Helper()
	addr := consultest.Address
	switch b := b.(type) {
	case *consultest.Agent:
		w.next = b.HTTPClient().Transport
	case *consultest.Server:
		own := &http.Transport{}
		t.Cleanup(own.CloseIdleConnections)
		w.next, addr = own, b.Addr()
	}
	c, err := api.NewClient(&api.Config{Address: addr, Scheme: "http", HttpClient: &http.Client{Transport: w}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// cut lets each call from now on fail as a refused connection does.
func (w *wire) cut() { w.set(true) }

// join ends cut.
func (w *wire) join() { w.set(false) }

func (w *wire) set(broken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = broken
}

func (w *wire) most() (calls, held int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mostCalls, w.mostHeld
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	n := &w.calls
	w.mu.Lock()
	if w.broken {
		w.mu.Unlock()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	if req.URL.Query().Has("wait") {
		n = &w.held
	}
	*n++
	w.mostCalls, w.mostHeld = max(w.mostCalls, w.calls), max(w.mostHeld, w.held)
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		*n--
		w.mu.Unlock()
	}()
	resp, err := w.next.RoundTrip(req)
	if err == nil {
		resp.Body = &counted{resp.Body, &w.bytes}
	}
	return resp, err
}

type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(int64(n))
	return n, err
}
