package metrics

import (
	"cmp"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/failover"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// watchTrace tells of following services.
func (m *Metrics) watchTrace() *watch.Trace {
	one := func(v *prometheus.CounterVec, service string) prometheus.Counter {
		return v.WithLabelValues(m.cfg.Service, m.peer(service))
	}
	return &watch.Trace{
		Changed: func(s *catalog.Snapshot) { one(m.all.changes, s.Service()).Inc() },
		Failed:  func(service string, _ error) { one(m.all.errors, service).Inc() },
		Refused: func(service string, err *catalog.InvalidError) {
			m.all.invalid.WithLabelValues(m.cfg.Service, m.peer(service), err.Field).Inc()
		},
		Missing: func(service string, _ catalog.Instance) { one(m.all.missing, service).Inc() },
		Forgot:  m.forget,
		Answered: func(service string, changed bool) {
			result := "unchanged"
			if changed {
				result = "changed"
			}
			m.all.answers.WithLabelValues(m.cfg.Service, m.peer(service), result).Inc()
		},
		Asked: func(op string) { m.all.questions.WithLabelValues(m.cfg.Service, op).Inc() },
	}
}

// failoverTrace tells of other datacenters' instances that come into use.
func (m *Metrics) failoverTrace() *failover.Trace {
	return &failover.Trace{Switched: func(service, datacenter string) {
		to := "away"
		if datacenter == "" {
			to = "home"
		}
		m.all.switches.WithLabelValues(m.cfg.Service, m.peer(service), to).Inc()
	}}
}

// forget drops the series of a service that is not followed any more.
func (m *Metrics) forget(service string) {
	peer := m.peer(service)
	if peer == Other {
		return // shared with services that are still followed
	}
	for _, v := range []*prometheus.CounterVec{m.all.changes, m.all.answers, m.all.errors, m.all.invalid, m.all.missing} {
		v.DeletePartialMatch(prometheus.Labels{"service": m.cfg.Service, "peer": peer})
	}
}

// registrationTrace tells of this process's own entries in Consul. Their service
// is the one that was registered, whatever Config.Service says.
func (m *Metrics) registrationTrace() *registration.Trace {
	return &registration.Trace{
		Changed: func(service, _ string, from, to registration.State, _ string) {
			m.all.transitions.WithLabelValues(service, from.String(), to.String()).Inc()
		},
		Attempted: func(service, _, op string, err error) {
			outcome := "ok"
			if err != nil {
				outcome = "error"
			}
			// What is asked for all registrations of a process is its own service's.
			m.all.attempts.WithLabelValues(cmp.Or(service, m.cfg.Service), op, outcome).Inc()
		},
		Left: func(service, _, step string, took time.Duration) {
			m.all.leaving.WithLabelValues(service, step).Observe(took.Seconds())
		},
	}
}
