package metrics

import (
	"context"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// clientTrace tells of requests that go out through the mesh.
func (m *Metrics) clientTrace() *httpmesh.Trace {
	return &httpmesh.Trace{Done: m.done, Balancer: balancer.Trace{Picked: m.picked, Ejected: m.ejected, Capped: m.capped}}
}

func (m *Metrics) done(ctx context.Context, r *httpmesh.Report) {
	service, peer := m.cfg.Service, m.peer(r.Service)
	m.cfg.observe(ctx, m.all.calls.WithLabelValues(service, peer, r.Outcome.String()), r.Elapsed)
	for n, try := range r.Tries {
		m.all.tries.WithLabelValues(service, peer, try.Outcome.String()).Inc()
		if n > 0 {
			m.all.retries.WithLabelValues(service, peer, reasonOf(try)).Inc()
		}
		if try.Beside {
			m.all.beside.WithLabelValues(service, peer).Inc()
		}
	}
	if r.OverBudget {
		m.all.overBudget.WithLabelValues(service, peer).Inc()
	}
}

// reasonOf says why there was a try beyond the first.
func reasonOf(try httpmesh.Try) string {
	if try.After == outcome.None {
		return "patience" // the one that it ran beside had not ended
	}
	return try.After.String()
}

func (m *Metrics) picked(service string, panicking bool) {
	mode := "normal"
	if panicking {
		mode = "panic"
	}
	m.all.picks.WithLabelValues(m.cfg.Service, m.peer(service), mode).Inc()
}

func (m *Metrics) capped(service string, _ catalog.Instance) {
	m.all.capped.WithLabelValues(m.cfg.Service, m.peer(service)).Inc()
}

func (m *Metrics) ejected(service string, _ catalog.Instance, x outlier.Ejection) {
	m.all.ejections.WithLabelValues(m.cfg.Service, m.peer(service), x.Reason.String()).Inc()
}
