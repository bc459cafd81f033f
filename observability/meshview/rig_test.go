package meshview

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/observability/debug"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is the processes of a mesh, as the page asks them.
type fleet struct {
	mu      sync.Mutex // guards what follows
	at      map[string]http.HandlerFunc
	asked   map[string]int
	now     int
	busiest int // how many were asked at once
}

func newFleet() *fleet {
	return &fleet{at: map[string]http.HandlerFunc{}, asked: map[string]int{}}
}

// RoundTrip makes a fleet a transport.
func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	h := f.at[r.URL.Host]
	f.asked[r.URL.Host]++
	f.now++
	f.busiest = max(f.busiest, f.now)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	if h == nil {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	h(w, r)
	if err := context.Cause(r.Context()); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func (f *fleet) serve(addr string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at[addr] = h
}

// count returns how often a process was asked so far.
func (f *fleet) count(addr string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[addr]
}

// peak returns how many were asked at once so far.
func (f *fleet) peak() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.busiest
}

// says serves a status, whose time is that of the question if it has none.
func says(status map[string]any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		doc := map[string]any{"version": 1, "at": time.Now()}
		maps.Copy(doc, status)
		_ = json.NewEncoder(w).Encode(doc)
	}
}

// hangs never answers.
func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// rig is a view of a mesh in a bubble.
type rig struct {
	*testing.T
	agent *consultest.Agent
	fleet *fleet
	view  *View
}

// inBubble runs a test with a view, whose Config is changed by some.
func inBubble(t *testing.T, body func(r *rig), some ...func(*Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, agent: consultest.New(t), fleet: newFleet()}
		mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Client: r.agent.Client()}, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = mesh.Close() })
		cfg := Config{Mesh: mesh, Log: quiet(), Transport: r.fleet}
		for _, change := range some {
			change(&cfg)
		}
		if r.view, err = New(cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.view.Close() })
		body(r)
	})
}

// join registers an instance "service-n" at 10.0.0.n:80, whose process is at port 81.
func (r *rig) join(service string, n int, meta ...string) string {
	r.Helper()
	id := fmt.Sprintf("%s-%d", service, n)
	entry := &api.AgentServiceRegistration{
		ID: id, Name: service, Address: fmt.Sprintf("10.0.%d.%d", n/250, n%250), Port: 80, Tags: []string{"http"},
		Meta:  map[string]string{"version": "v1", debug.MetaAdmin: "81"},
		Check: &api.AgentServiceCheck{CheckID: id + ":ttl", Name: "heartbeat", TTL: "10h", Status: api.HealthPassing},
	}
	for pair := range slices.Chunk(meta, 2) {
		entry.Meta[pair[0]] = pair[1]
	}
	if err := r.agent.Client().Agent().ServiceRegister(entry); err != nil {
		r.Fatal(err)
	}
	return id
}

func (r *rig) leave(id string) {
	r.Helper()
	if err := r.agent.Client().Agent().ServiceDeregister(id); err != nil {
		r.Fatal(err)
	}
}

// service returns a service of the latest picture.
func (r *rig) service(name string) Service {
	r.Helper()
	for _, s := range r.view.latest().Services {
		if s.Name == name {
			return s
		}
	}
	r.Fatalf("the picture has no %s", name)
	return Service{}
}

// instance returns an instance of the latest picture.
func (r *rig) instance(id string) Instance {
	r.Helper()
	for _, s := range r.view.latest().Services {
		for _, i := range s.Instances {
			if i.ID == id {
				return i
			}
		}
	}
	r.Fatalf("the picture has no %s", id)
	return Instance{}
}

// happened returns the kinds and texts of all events so far.
func (r *rig) happened() []string {
	var all []string
	for _, e := range r.view.events(0) {
		all = append(all, e.Kind+": "+e.Text)
	}
	return all
}

// get asks the view.
func (r *rig) get(path string, header ...string) *httptest.ResponseRecorder {
	return ask(r.T, r.view, http.MethodGet, path, "", header...)
}

func ask(t *testing.T, h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// viewer is a stream being read.
type viewer struct {
	cancel context.CancelFunc
	done   chan struct{}
	status atomic.Int64

	mu     sync.Mutex // guards text
	text   strings.Builder
	header http.Header
}

// watch opens a stream, which ends with the test.
func (r *rig) watch(header ...string) *viewer {
	ctx, cancel := context.WithCancel(r.Context())
	v := &viewer{cancel: cancel, done: make(chan struct{}), header: http.Header{}}
	req := httptest.NewRequestWithContext(ctx, http.MethodGet, "/mesh/stream", nil)
	for pair := range slices.Chunk(header, 2) {
		req.Header.Set(pair[0], pair[1])
	}
	go func() {
		defer close(v.done)
		r.view.ServeHTTP(v, req)
	}()
	r.Cleanup(v.leave)
	return v
}

func (v *viewer) leave() {
	v.cancel()
	<-v.done
}

// Header is http.ResponseWriter's, as are the others.
func (v *viewer) Header() http.Header { return v.header }

func (v *viewer) WriteHeader(status int) { v.status.CompareAndSwap(0, int64(status)) }

func (v *viewer) Write(b []byte) (int, error) {
	v.WriteHeader(http.StatusOK)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.text.Write(b)
}

func (v *viewer) Flush() {}

// take returns what has come since it was called last.
func (v *viewer) take() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := v.text.String()
	v.text.Reset()
	return text
}
