package debug_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/debug"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, mesh debug.Mesh) (page map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	debug.Discovery(mesh).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/discovery", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != "application/json" {
		t.Errorf("got %d %s; want 200 and JSON", w.Code, got)
	}
	return page
}

// status is a Mesh.
type status discovery.Status

func (s status) Status() discovery.Status { return discovery.Status(s) }

func TestPageIsTheStatusOfTheMesh(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	page := get(t, status{Version: 1, At: at, Services: []discovery.ServiceStatus{{
		Service: "user", Since: at, Error: "connection refused", FromDisk: true, Missing: 1, RetriesLeft: 30,
		Calls: discovery.CallStatus{WindowSeconds: 10, Requests: 7, Failed: 1, Retries: 2, P50Seconds: 0.002, P99Seconds: 0.3},
		Instances: []discovery.InstanceStatus{{
			ID: "a", Addr: "[::1]:80", State: catalog.StatePassing, MissingUntil: at.Add(time.Second),
			Protocol: "http", Version: "v7", Connections: 2, LatencySeconds: 0.001,
		}},
	}}})
	want := map[string]any{
		"service": "user", "since": "2026-11-01T12:00:00Z", "error": "connection refused", "from_disk": true,
		"panic": false, "ready": 0.0, "ejected": 0.0, "missing": 1.0, "retry_budget_left": 30.0,
		"calls": map[string]any{
			"window_seconds": 10.0, "requests": 7.0, "failed": 1.0, "retries": 2.0, "over_budget": 0.0, "p50_seconds": 0.002, "p99_seconds": 0.3,
		},
		"instances": []any{map[string]any{
			"id": "a", "addr": "[::1]:80", "state": "passing", "weight": 0.0, "in_flight": 0.0, "missing_until": "2026-11-01T12:00:01Z",
			"protocol": "http", "version": "v7", "connections": 2.0, "latency_seconds": 0.001,
		}},
	}
	if diff := cmp.Diff([]any{want}, page["services"]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if page["version"] != 1.0 {
		t.Errorf("got version %v; want 1", page["version"])
	}
}

func TestPageLeavesTheMeshAsItIs(t *testing.T) {
	addr, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}, Follow: []string{"user"}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if _, err := mesh.Register(registration.Config{Service: "user", Host: "127.0.0.1", Port: 8080}); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if services, _ := get(t, mesh)["services"].([]any); len(services) == 1 {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("the page never shows the service")
		}
	}
	if b := mesh.RoundTripper().Balancers("user"); len(b) != 0 {
		t.Errorf("the page made the balancer %v", b)
	}
}
