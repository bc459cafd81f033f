package browsertest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/observability/meshview"
)

// object is JSON.
type object = map[string]any

// fleet is a mesh, and the page that shows it.
type fleet struct {
	t      *testing.T
	consul *consultest.Agent
	client *http.Client // of Consul
	page   *httptest.Server

	mu   sync.Mutex // guards gone
	gone bool       // the page's server answers nobody
}

// newFleet returns an empty mesh. It ends with the test, after the tabs that are opened
// later. settings change the page's.
func newFleet(t *testing.T, settings ...func(cfg *meshview.Config, mesh *discovery.Mesh)) *fleet {
	t.Helper()
	f := &fleet{t: t, consul: consultest.New(t)}
	f.client = f.consul.HTTPClient()
	addr, err := f.consul.Listen()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	cfg := meshview.Config{Mesh: mesh, Log: log, ConsulUI: "http://consul.example/ui/dc1", Prometheus: "http://prometheus.example"}
	for _, set := range settings {
		set(&cfg, mesh)
	}
	view, err := meshview.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { view.Close() })
	f.page = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		gone := f.gone
		f.mu.Unlock()
		if gone {
			panic(http.ErrAbortHandler)
		}
		view.ServeHTTP(w, r)
	}))
	t.Cleanup(f.page.Close)
	t.Cleanup(f.page.CloseClientConnections) // the streams'
	return f
}

func (f *fleet) url() string { return f.page.URL + "/mesh/" }

// lose lets the page's server vanish, or come back.
func (f *fleet) lose(gone bool) {
	f.mu.Lock()
	f.gone = gone
	f.mu.Unlock()
	if gone {
		f.page.CloseClientConnections()
	}
}

// put asks Consul for a change.
func (f *fleet) put(path string, body any) {
	f.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		f.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPut, "http://consul"+path, bytes.NewReader(text))
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	if said, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		f.t.Fatalf("PUT %s: %s: %s", path, res.Status, said)
	}
}

// instance is an entry in Consul.
type instance struct {
	service, id string
	port        int
	status      string // passing if empty
	output      string
	process     *process // that gives its status; nil: none does
	zone        string
	version     string
}

func (f *fleet) register(i instance) {
	f.t.Helper()
	meta := object{"version": i.version}
	if i.process != nil {
		meta["rollcall_admin"] = strconv.Itoa(i.process.port)
	}
	check := object{"CheckID": i.id + ":alive", "Name": "alive", "TTL": "1h", "Status": "passing"}
	entry := object{"ID": i.id, "Name": i.service, "Address": "127.0.0.1", "Port": i.port, "Tags": []string{"http"}, "Meta": meta, "Check": check}
	if i.zone != "" {
		entry["Locality"] = object{"Region": "here", "Zone": i.zone}
	}
	f.put("/v1/agent/service/register", entry)
	if i.status != "" {
		f.tell(i.id, i.status, i.output)
	}
}

// tell has an instance's check say something else.
func (f *fleet) tell(id, status, output string) {
	f.t.Helper()
	f.put("/v1/agent/check/update/"+url.PathEscape(id+":alive"), object{"Status": status, "Output": output})
}

func (f *fleet) deregister(id string) {
	f.t.Helper()
	f.put("/v1/agent/service/deregister/"+url.PathEscape(id), nil)
}

// process gives the status of a process of the mesh.
type process struct {
	port   int
	server *httptest.Server

	mu       sync.Mutex // guards what follows
	services []object
	ahead    time.Duration // of its clock
}

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{services: []object{}}
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		now := time.Now().Add(p.ahead)
		_ = json.NewEncoder(w).Encode(object{"version": 1, "at": now, "started": now.Add(-time.Hour), "services": p.services, "registrations": []any{}})
	}))
	t.Cleanup(p.server.Close)
	_, port, err := net.SplitHostPort(p.server.Listener.Addr().String())
	if err == nil {
		p.port, err = strconv.Atoi(port)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// calls sets what the process says of a service: how many requests it sent in the last
// ten seconds, how many failed, and what it knows of the instances.
func (p *process) calls(service string, requests, failed int, instances ...object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.services[:0:0]
	for _, s := range p.services {
		if s["service"] != service {
			kept = append(kept, s)
		}
	}
	if instances == nil {
		instances = []object{}
	}
	p.services = append(kept, object{
		"service": service, "since": time.Now(), "proven": time.Now(), "ready": len(instances), "instances": instances,
		"calls": object{"window_seconds": 10, "requests": requests, "failed": failed, "retries": failed, "p50_seconds": 0.004, "p99_seconds": 0.023},
	})
}

// small is the fleet of the tutorial: gateway calls order and user, order calls user.
func small(t *testing.T) (f *fleet, gateway, order, user *process) {
	t.Helper()
	f = newFleet(t)
	gateway, order, user = newProcess(t), newProcess(t), newProcess(t)
	f.register(instance{service: "gateway", id: "gateway-1", port: 8080, process: gateway, zone: "a", version: "1.4.2"})
	f.register(instance{service: "order", id: "order-1", port: 5001, process: order, zone: "a", version: "1.4.2"})
	f.register(instance{service: "order", id: "order-2", port: 5002, zone: "b", version: "1.4.2"})
	f.register(instance{service: "user", id: "user-1", port: 5000, process: user, zone: "a", version: "1.4.1"})
	gateway.calls("order", 1423, 0,
		object{"id": "order-1", "addr": "127.0.0.1:5001", "state": "passing", "weight": 1, "health": "healthy", "latency_seconds": 0.0032, "in_flight": 2, "connections": 4},
		object{"id": "order-2", "addr": "127.0.0.1:5002", "state": "passing", "weight": 1, "health": "healthy", "latency_seconds": 0.0041, "connections": 2})
	gateway.calls("user", 312, 0, object{"id": "user-1", "addr": "127.0.0.1:5000", "state": "passing", "weight": 1, "health": "healthy", "latency_seconds": 0.002})
	order.calls("user", 84, 0, object{"id": "user-1", "addr": "127.0.0.1:5000", "state": "passing", "weight": 1, "health": "healthy", "latency_seconds": 0.002})
	return f, gateway, order, user
}

// troubled is a fleet in which something of everything is wrong.
func troubled(t *testing.T) *fleet {
	t.Helper()
	f, gateway, _, _ := small(t)
	silent, ahead := newProcess(t), newProcess(t)
	silent.server.Close()
	ahead.ahead = 90 * time.Second
	f.register(instance{service: "order", id: "order-3", port: 5003, process: silent})
	f.register(instance{service: "order", id: "order-4", port: 5004, status: "critical", output: "HTTP GET http://127.0.0.1:5004/readyz: 503 Service Unavailable Output: database is locked"})
	f.register(instance{service: "order", id: "order-5", port: 5005, status: "warning"})
	f.register(instance{service: "order", id: "order-6", port: 5006})
	f.put("/v1/agent/service/maintenance/order-6?enable=true&reason=replacing+its+disk", nil)
	f.register(instance{service: "user", id: "user-2", port: 5007, process: ahead})
	f.register(instance{service: `<script>alert("service")</script>`, id: "odd-1", port: 5011}) // no name of a service that can be asked
	f.register(instance{service: "mail", id: `<img src=x onerror=alert("instance")>`, port: 5008, status: "critical", output: `</pre><script>alert("check")</script>`})
	f.register(instance{service: "a-service-with-a-name-that-is-much-longer-than-anybody-would-like", id: "a-service-with-a-name-that-is-much-longer-than-anybody-would-like-1", port: 5009})
	now := time.Now()
	gateway.calls("order", 1423, 312,
		object{"id": "order-1", "addr": "127.0.0.1:5001", "state": "passing", "weight": 1, "health": "healthy", "latency_seconds": 0.0032},
		object{
			"id": "order-2", "addr": "127.0.0.1:5002", "state": "passing", "weight": 1, "health": "ejected", "latency_seconds": 0.0041,
			"ejected": object{"since": now.Add(-12 * time.Second), "until": now.Add(time.Hour), "reason": "5 failures in a row"},
		},
		object{"id": "order-9", "addr": "127.0.0.1:5010", "state": "passing", "weight": 1, "missing_until": now.Add(time.Hour)})
	return f
}

// card is the expression for a service's card in the page.
func card(service string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".service")].find(c => c.querySelector("h3").textContent === %q)`, service)
}

// dot is the expression for an instance's mark in the page.
func dot(id string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(".dots button")].find(b => b.getAttribute("aria-label").startsWith(%q))`, id+": ")
}
