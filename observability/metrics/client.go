package metrics

import (
	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// clientTrace tells of requests that go out through the mesh.
func (m *Metrics) clientTrace() *httpmesh.Trace {
	return &httpmesh.Trace{Done: m.done, Balancer: balancer.Trace{Picked: m.picked, Ejected: m.ejected}}
}

func (m *Metrics) done(r *httpmesh.Report) {
	service, peer := m.cfg.Service, m.peer(r.Service)
	m.all.calls.WithLabelValues(service, peer, r.Outcome.String()).Observe(r.Elapsed.Seconds())
	for _, try := range r.Tries {
		m.all.tries.WithLabelValues(service, peer, try.Outcome.String()).Inc()
	}
	if n := len(r.Tries); n > 1 {
		m.all.retries.WithLabelValues(service, peer).Add(float64(n - 1))
	}
}

func (m *Metrics) picked(service string, panicking bool) {
	mode := "normal"
	if panicking {
		mode = "panic"
	}
	m.all.picks.WithLabelValues(m.cfg.Service, m.peer(service), mode).Inc()
}

func (m *Metrics) ejected(service string, _ catalog.Instance, x outlier.Ejection) {
	m.all.ejections.WithLabelValues(m.cfg.Service, m.peer(service), x.Reason.String()).Inc()
}
