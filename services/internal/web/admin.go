package web

import (
	"maps"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/observability/debug"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/services/internal/fault"
)

// Admin returns what is served on the admin port: /metrics, /livez, /readyz
// (?verbose for more), /debug/discovery and /debug/pprof/; in a test build
// /faults too; what else there is by pattern; and at / which pages these are, if no
// pattern has that. It is for operators and probes, and must not be reachable from
// outside.
func Admin(registry *prometheus.Registry, checks *health.Registry, mesh debug.Mesh, more map[string]http.Handler) http.Handler {
	pages := map[string]http.Handler{
		"GET /metrics": promhttp.InstrumentMetricHandler(registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{
			Registry:            registry,
			EnableOpenMetrics:   true,
			MaxRequestsInFlight: 8,
			Timeout:             10 * time.Second,
		})),
		"GET /livez":           checks.LiveHandler(),
		"GET /readyz":          checks.ReadyHandler(),
		"GET /debug/discovery": debug.Discovery(mesh),
		"GET /debug/pprof/":    http.HandlerFunc(pprof.Index),
	}
	maps.Copy(pages, more)
	const root = "GET /{$}"
	if pages[root] == nil {
		pages[root] = index(slices.Collect(maps.Keys(pages)))
	}
	mux := http.NewServeMux()
	for pattern, page := range pages {
		mux.Handle(pattern, page)
	}
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return fault.Admin(problem.Router(mux))
}
