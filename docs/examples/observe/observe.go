// Package observe is a program that shows what it does: metrics, logs, health and
// what its mesh knows. docs/how-to/observe-your-own-program.md tells of it.
package observe

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/debug"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

// Program is an instance of the service billing, which asks the service user.
type Program struct {
	Traffic http.Handler // what others ask
	Admin   http.Handler // what operators and probes ask, on a port of its own

	mesh   *discovery.Mesh
	checks *health.Registry
	log    *slog.Logger
}

// New makes the program's parts. The mesh is Consul's at that address; ping asks the
// program's own store.
func New(ctx context.Context, consul string, ping health.Check, output io.Writer) (*Program, error) {
	log, err := logging.New(logging.Config{Output: output})
	if err != nil {
		return nil, err
	}

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector())
	m, err := metrics.New(metrics.Config{Registerer: reg, Service: "billing", Version: "1.4.0", Peers: []string{"user"}})
	if err != nil {
		return nil, err
	}

	mesh, err := discovery.Open(ctx, discovery.Config{Consul: discovery.Consul{Address: consul}, Trace: m.Trace(), Log: log})
	if err != nil {
		return nil, err
	}
	m.Watch(mesh)

	checks := health.New(health.Config{})
	checks.Add("store", health.Required, ping)
	checks.Add("user", health.Informational, func(ctx context.Context) error {
		_, err := mesh.Latest(ctx, "user")
		return err
	})

	client := &http.Client{Transport: logging.PassRequestID(mesh.RoundTripper())}
	mux := http.NewServeMux()
	mux.Handle("GET /bills/{user}", bill(client))
	traffic := m.Server().Handler(logging.Handler(log, mux))

	admin := http.NewServeMux()
	admin.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	admin.Handle("GET /livez", checks.LiveHandler())
	admin.Handle("GET /readyz", checks.ReadyHandler())
	admin.Handle("GET /debug/discovery", debug.Discovery(mesh))

	return &Program{Traffic: traffic, Admin: admin, mesh: mesh, checks: checks, log: log}, nil
}

// Register makes the program an instance of billing, once both ports are open.
func (p *Program) Register(host string, port int) error {
	entry, err := p.mesh.Register(registration.Config{
		Service: "billing",
		Host:    host,
		Port:    port,
		Ready:   p.checks.Ready,
	})
	if err != nil {
		return err
	}
	p.checks.OnChange(entry.Refresh)
	return nil
}

// Close leaves the mesh.
func (p *Program) Close() error {
	p.checks.SetDraining()
	err := p.mesh.Close()
	p.checks.Close()
	return err
}

// bill answers with what the service user says of a user.
func bill(client *http.Client) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user/users/"+r.PathValue("user"), nil)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		resp, err := client.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body) // a client that has gone needs no answer
	})
}
