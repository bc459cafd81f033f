package metrics

import "github.com/prometheus/client_golang/prometheus"

// Replays adds the metric of requests that were answered as before, since their
// Idempotency-Key was known, and returns what counts one. It is to be called
// once.
func (m *Metrics) Replays() (replayed func()) {
	count := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "rollcall_replayed_answers_total",
		Help: "Answers that were given before, to the first request with the same Idempotency-Key.",
	})
	m.registry.MustRegister(count)
	return count.Inc
}
