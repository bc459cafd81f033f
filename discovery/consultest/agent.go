package consultest

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Agent is a Consul agent in memory, and the servers behind it. Use New, and
// AddAgent for one more of the same cluster. Its methods may be called from any
// goroutine, and do nothing harmful after Close.
type Agent struct {
	*cluster
	started  time.Time
	pipe     *pipeListener
	server   *http.Server
	done     chan struct{} // closed by Close
	close    sync.Once
	handlers sync.WaitGroup // requests being answered
	serving  sync.WaitGroup // Serve loops
	mux      *http.ServeMux
	name     string // of the node

	// The cluster's mu guards what follows.
	closed     bool
	nodeID     string
	address    string // of the node
	local      local
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
	c := &cluster{changed: make(chan struct{}), leader: true}
	a := c.join(NodeName)
	t.Cleanup(a.Close)
	return a
}

// AddAgent starts a client agent on a node of its own, with this name, in the
// cluster of a: it has its own services and checks, connections and faults,
// and shares the servers with their catalog. Each is closed by itself; the
// servers live on with the rest.
func (a *Agent) AddAgent(t testing.TB, node string) *Agent {
	t.Helper()
	b := a.join(node)
	t.Cleanup(b.Close)
	return b
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
