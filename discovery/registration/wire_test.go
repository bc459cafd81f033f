package registration

import (
	"net/http"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// wire is one instance's way to Consul: it counts what is under way, and can be
// cut, as a process that was killed is.
type wire struct {
	next http.RoundTripper

	mu          sync.Mutex // guards what follows
	calls, held int        // under way
	mostCalls   int
	mostHeld    int
}

// client is a client of the agent over this wire.
func (w *wire) client(t *testing.T, agent *consultest.Agent) *api.Client {
	t.Helper()
	w.next = agent.HTTPClient().Transport
	c, err := api.NewClient(&api.Config{Address: consultest.Address, Scheme: "http", HttpClient: &http.Client{Transport: w}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *wire) most() (calls, held int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mostCalls, w.mostHeld
}

func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	n := &w.calls
	w.mu.Lock()
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
	return w.next.RoundTrip(req)
}
