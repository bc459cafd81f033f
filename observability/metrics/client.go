package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// client has the metrics of requests that go out through the mesh.
type client struct {
	peer      func(service string) string
	durations *prometheus.HistogramVec
	tries     *prometheus.CounterVec
	retries   *prometheus.CounterVec
	picks     *prometheus.CounterVec
	ejections *prometheus.CounterVec
}

func newClient(r prometheus.Registerer, peer func(string) string) *client {
	c := &client{
		peer:      peer,
		ejections: newEjections(r),
		durations: prometheus.NewHistogramVec(durations("rollcall_client_request_duration_seconds",
			"Time of a request through the mesh, all tries included, to the header of the response or the failure, by the service asked and how it ended: the outcome of the try whose answer or failure the caller got, or no_instance."),
			[]string{"peer", "outcome"}),
		tries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_client_tries_total",
			Help: "Tries at one instance, by the service asked and how the try ended: one of the outcomes of docs/explanation/choosing.md.",
		}, []string{"peer", "outcome"}),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_client_retries_total",
			Help: "Tries beyond the first of a request, by the service asked.",
		}, []string{"peer"}),
		picks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "rollcall_picks_total",
			Help: "Instances chosen to send to, by the service asked and mode: normal, or panic (none was ready, so those that are critical were used rather than failing everything).",
		}, []string{"peer", "mode"}),
	}
	r.MustRegister(c.durations, c.tries, c.retries, c.picks)
	return c
}

func (c *client) trace() *httpmesh.Trace {
	return &httpmesh.Trace{Done: c.done, Balancer: balancer.Trace{Picked: c.picked, Ejected: c.ejected}}
}

func (c *client) done(r *httpmesh.Report) {
	peer := c.peer(r.Service)
	c.durations.WithLabelValues(peer, r.Outcome.String()).Observe(r.Elapsed.Seconds())
	for _, try := range r.Tries {
		c.tries.WithLabelValues(peer, try.Outcome.String()).Inc()
	}
	if n := len(r.Tries); n > 1 {
		c.retries.WithLabelValues(peer).Add(float64(n - 1))
	}
}

func (c *client) picked(service string, panicking bool) {
	mode := "normal"
	if panicking {
		mode = "panic"
	}
	c.picks.WithLabelValues(c.peer(service), mode).Inc()
}
