// Package metrics puts what a mesh and an HTTP server do into a Prometheus
// registry.
//
//	m, err := metrics.New(metrics.Config{Registerer: reg, Service: "order", Peers: []string{"user"}})
//	mesh, err := discovery.Open(ctx, discovery.Config{Trace: m.Trace()})
//	defer m.Watch(mesh)()
//	server := &http.Server{Handler: m.Server().Handler(mux)}
//
// The metrics and their labels are listed in docs/reference/metrics.md. Go's own
// metrics and the page /metrics are not part of it: client_golang has both
// (collectors.NewGoCollector, promhttp.HandlerFor).
//
// # Several meshes in one process
//
// Any number of them may use one registry. Every series has the label service,
// and series with the same labels are one: counters add up, and gauges count the
// instances of both. To tell two meshes of one service apart, wrap the registry
// for each of them, with the same label:
//
//	prometheus.WrapRegistererWith(prometheus.Labels{"mesh": "eu"}, reg)
//
// # Bounds
//
// The number of series is bounded: service is what the program says it is, peer
// one of Config.Peers or "other", route a pattern of the program's, method one of
// nine or "other", code a status, and every other label a fixed list; but for
// peer_instance, an instance's ID, of peers with 200 instances at most. Nothing is
// labelled with a path or an address. The series of a service that is not
// followed any more, of an instance that has left, and of one that is deregistered,
// vanish.
//
// Everything here may be called by any number of goroutines.
package metrics

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery"
)

// Other stands for each label value that is not known beforehand.
const Other = "other"

// Config says whose metrics they are.
type Config struct {
	// Registerer takes the metrics. nil means prometheus.DefaultRegisterer.
	Registerer prometheus.Registerer
	// Service is the name of the service that the process is an instance of: the
	// label service. Empty, for a process that only calls others, means no such
	// label, as far as Prometheus is concerned.
	Service string
	// Version of the program, for rollcall_build_info. Empty means "unknown".
	Version string
	// Peers are the services that the process talks to: the values of the label
	// peer. Any other service counts as "other".
	Peers []string
	// Exemplar returns the labels of an exemplar for a latency, which lead from a
	// bucket to one request in it: as the ID of the context's trace. At most 128
	// characters, names and values together. An empty set means none. nil means that
	// there are none.
	Exemplar func(context.Context) map[string]string
}

// Metrics are the metrics of one mesh and one HTTP server. Use New.
type Metrics struct {
	cfg  Config
	all  *collector
	http *Server
}

// New puts the metrics into the registry, or finds those that are there. The
// error is the registry's, which has other metrics by one of these names; nothing
// was registered then.
func New(cfg Config) (*Metrics, error) {
	if cfg.Registerer == nil {
		cfg.Registerer = prometheus.DefaultRegisterer
	}
	if cfg.Version == "" {
		cfg.Version = "unknown"
	}
	cfg.Peers = slices.Clone(cfg.Peers)
	all, err := register(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	all.build.WithLabelValues(cfg.Service, cfg.Version, runtime.Version()).Set(1)
	return &Metrics{cfg: cfg, all: all, http: newServer(all, cfg)}, nil
}

// Server returns the metrics of an HTTP server.
func (m *Metrics) Server() *Server { return m.http }

// Trace returns the functions by which a mesh tells these metrics what it does:
// the Trace of discovery.Config.
func (m *Metrics) Trace() *discovery.Trace {
	return &discovery.Trace{
		Watch:        m.watchTrace(),
		Registration: m.registrationTrace(),
		HTTP:         m.clientTrace(),
		TLS:          m.TLS("mesh"),
		Failover:     m.failoverTrace(),
	}
}

// peer bounds the label of that name.
func (m *Metrics) peer(service string) string {
	if slices.Contains(m.cfg.Peers, service) {
		return service
	}
	return Other
}

// observe notes how long something took, with the exemplar of its context.
func (c Config) observe(ctx context.Context, into prometheus.Observer, took time.Duration) {
	if c.Exemplar != nil {
		labels := c.Exemplar(ctx)
		if with, ok := into.(prometheus.ExemplarObserver); ok && len(labels) > 0 {
			with.ObserveWithExemplar(took.Seconds(), labels)
			return
		}
	}
	into.Observe(took.Seconds())
}

// durations are the options of every histogram of seconds: a native histogram,
// whose buckets grow by a tenth at most, and classic buckets for readers that
// don't know native ones yet.
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
