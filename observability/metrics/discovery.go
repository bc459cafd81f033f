package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// Trace returns the functions by which the mesh tells these metrics what it
// does.
func (m *Metrics) Trace() *discovery.Trace {
	return &discovery.Trace{
		Watch:        m.watch.trace(),
		Registration: m.register.trace(),
		HTTP:         m.client.trace(),
	}
}

// watches has the metrics of following services.
type watches struct {
	peer    func(service string) string
	changes *prometheus.CounterVec
	errors  *prometheus.CounterVec
	refused *prometheus.CounterVec
	missing *prometheus.CounterVec
}

func newWatches(r prometheus.Registerer, peer func(string) string) *watches {
	w := &watches{
		peer: peer,
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_watch_changes_total",
			Help: "Times that a new set of instances was put into use, by the service followed.",
		}, []string{"peer"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_watch_errors_total",
			Help: "Questions to Consul that failed or whose answer was not believed, by the service followed. The last good set stays in use.",
		}, []string{"peer"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_watch_refused_entries_total",
			Help: "Catalog entries that were dropped because they can't be used, by the service followed and the field at fault.",
		}, []string{"peer", "field"}),
		missing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_watch_missing_total",
			Help: "Instances that vanished from Consul's answer and were kept in use for a while, by the service followed.",
		}, []string{"peer"}),
	}
	r.MustRegister(w.changes, w.errors, w.refused, w.missing)
	return w
}

func (w *watches) trace() *watch.Trace {
	return &watch.Trace{
		Changed: func(s *catalog.Snapshot) { w.changes.WithLabelValues(w.peer(s.Service())).Inc() },
		Failed:  func(service string, _ error) { w.errors.WithLabelValues(w.peer(service)).Inc() },
		Refused: func(service string, err *catalog.InvalidError) {
			w.refused.WithLabelValues(w.peer(service), err.Field).Inc()
		},
		Missing: func(service string, _ catalog.Instance) { w.missing.WithLabelValues(w.peer(service)).Inc() },
		Forgot:  w.forget,
	}
}

// forget drops the series of a service that is not followed any more.
func (w *watches) forget(service string) {
	peer := w.peer(service)
	if peer == Other {
		return // shared with services that are still followed
	}
	for _, v := range []*prometheus.CounterVec{w.changes, w.errors, w.refused, w.missing} {
		v.DeletePartialMatch(prometheus.Labels{"peer": peer})
	}
}

// registrations has the metrics of our own entry in Consul.
type registrations struct {
	attempts    *prometheus.CounterVec
	transitions *prometheus.CounterVec
	state       *prometheus.GaugeVec
}

func newRegistrations(r prometheus.Registerer) *registrations {
	s := &registrations{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registration_attempts_total",
			Help: "Calls to Consul about this instance's own entry, by what was asked (register, deregister, beat, look) and whether it worked: ok or error.",
		}, []string{"op", "outcome"}),
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_registration_transitions_total",
			Help: "Changes of the state that this instance's entry in Consul is in, by the state it left and the one it came to.",
		}, []string{"from", "to"}),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "rollcall_registration_state",
			Help: "1 for the state that this instance's entry in Consul is in, 0 for the others: starting, registered, recovering (being mended), draining, deregistered.",
		}, []string{"state"}),
	}
	r.MustRegister(s.attempts, s.transitions, s.state)
	return s
}

func (s *registrations) trace() *registration.Trace {
	return &registration.Trace{
		Changed: func(_, _ string, from, to registration.State, _ string) {
			s.transitions.WithLabelValues(from.String(), to.String()).Inc()
			s.set(to)
		},
		Attempted: func(_, _, op string, err error) {
			outcome := "ok"
			if err != nil {
				outcome = "error"
			}
			s.attempts.WithLabelValues(op, outcome).Inc()
		},
	}
}

func (s *registrations) set(now registration.State) {
	for _, state := range registration.States {
		v := 0.0
		if state == now {
			v = 1
		}
		s.state.WithLabelValues(state.String()).Set(v)
	}
}
