// Package metrics holds the Prometheus metrics of one process: what its HTTP
// server does, what the mesh does for it, and what the process itself costs.
//
//	m := metrics.New(metrics.Config{Service: "order", Version: "1.2.0", Peers: []string{"user"}})
//	mesh, err := discovery.Open(ctx, discovery.Config{Trace: m.Trace()})
//	m.Watch(mesh)
//	mux.Handle("GET /metrics", m.Handler())
//
// Every label is bounded: routes are patterns, unknown methods and peers count
// as "other", and nothing is labelled with an ID, a path or an address. The
// series of a service that is not followed any more vanish.
package metrics

import (
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Other stands for every label value that is not known beforehand.
const Other = "other"

// Config says whose metrics they are.
type Config struct {
	// Service is the name of the service that the process is an instance of.
	Service string
	// Version of the program. Empty means unknown.
	Version string
	// Peers are the services that the process talks to: the values of the
	// label peer. Any other service counts as "other".
	Peers []string
}

// Metrics is a registry of its own with all metrics of the process in it. Use
// New.
type Metrics struct {
	registry *prometheus.Registry
	peers    []string
	server   *Server
	client   *client
	watch    *watches
	register *registrations
}

// New makes the metrics.
func New(cfg Config) *Metrics {
	if cfg.Version == "" {
		cfg.Version = "unknown"
	}
	r := prometheus.NewRegistry()
	m := &Metrics{registry: r, peers: slices.Clone(cfg.Peers)}
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "rollcall_build_info",
		Help: "Always 1; its labels say which version of the program runs, and which version of Go built it.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(cfg.Version, runtime.Version()).Set(1)
	r.MustRegister(build)

	m.server = newServer(r, cfg.Service)
	m.client = newClient(r, m.peer)
	m.watch = newWatches(r, m.peer)
	m.register = newRegistrations(r)
	return m
}

// Server returns the metrics of the process's HTTP server.
func (m *Metrics) Server() *Server { return m.server }

// Registry returns the registry, for metrics that a service adds of its own.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }

// Gatherer returns the registry as a reader of it sees it.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Handler serves the metrics in the format that the scraper asks for. Scrapes
// and their errors are counted too.
func (m *Metrics) Handler() http.Handler {
	return promhttp.InstrumentMetricHandler(m.registry, promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:            m.registry,
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 8,
		Timeout:             10 * time.Second,
	}))
}

// peer bounds the label of that name.
func (m *Metrics) peer(service string) string {
	if slices.Contains(m.peers, service) {
		return service
	}
	return Other
}

// durations are the options of every histogram of seconds: a native histogram,
// whose buckets grow by a tenth at most, and classic buckets for those who
// don't read native ones yet.
func durations(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name:                            name,
		Help:                            help,
		Buckets:                         []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}
