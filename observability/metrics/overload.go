package metrics

import "github.com/prometheus/client_golang/prometheus"

// Limiter adds the metrics of a limit on the requests at work, for requests of
// a kind, and returns what counts one that was shed. now is asked at each
// scrape, for the limit and for how many are at work. It is to be called once
// for each kind.
func (m *Metrics) Limiter(kind string, now func() (limit, atWork int)) (shed func()) {
	labels := prometheus.Labels{"service": m.server.service, "kind": kind}
	limit := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "http_server_requests_limit",
		Help:        "Requests that may be at work at once, by kind: read (GET, HEAD, OPTIONS, TRACE) or write. It falls while latency shows that they are in each other's way.",
		ConstLabels: labels,
	}, func() float64 {
		limit, _ := now()
		return float64(limit)
	})
	atWork := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "http_server_requests_at_work",
		Help:        "Requests at work now, by kind: those in flight, but for those that wait for another service.",
		ConstLabels: labels,
	}, func() float64 {
		_, atWork := now()
		return float64(atWork)
	})
	count := prometheus.NewCounter(prometheus.CounterOpts{
		Name:        "http_server_requests_shed_total",
		Help:        "Requests over the limit, by kind, which were answered 503 before any work was done.",
		ConstLabels: labels,
	})
	m.registry.MustRegister(limit, atWork, count)
	return count.Inc
}
