package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descLimit = prometheus.NewDesc("http_server_requests_limit",
		"Requests that may be at work at once, gRPC's included, by kind: read (GET, HEAD, OPTIONS, TRACE, and methods that are NO_SIDE_EFFECTS) or write. It falls while latency shows that they are in each other's way.",
		[]string{"service", "kind"}, nil)
	descAtWork = prometheus.NewDesc("http_server_requests_at_work",
		"Requests at work now, by kind: those in flight, but for those that wait for another service.",
		[]string{"service", "kind"}, nil)
)

// limits reads at scrape time what limits there are.
type limits struct {
	mu  sync.Mutex // guards all
	all map[[2]string]func() (limit, atWork int)
}

func (*limits) Describe(out chan<- *prometheus.Desc) {
	out <- descLimit
	out <- descAtWork
}

func (l *limits) Collect(out chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for labels, now := range l.all {
		limit, atWork := now()
		out <- prometheus.MustNewConstMetric(descLimit, prometheus.GaugeValue, float64(limit), labels[:]...)
		out <- prometheus.MustNewConstMetric(descAtWork, prometheus.GaugeValue, float64(atWork), labels[:]...)
	}
}

// Limiter adds the metrics of a limit on the requests at work, for requests of
// a kind, and returns what counts one that was shed. now is asked at each
// scrape, for the limit and for how many are at work. A later call for the same
// kind replaces the earlier one's now.
func (m *Metrics) Limiter(kind string, now func() (limit, atWork int)) (shed func()) {
	l := m.all.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[[2]string]func() (int, int){}
	}
	l.all[[2]string{m.cfg.Service, kind}] = now
	return m.all.shed.WithLabelValues(m.cfg.Service, kind).Inc
}

// Degraded returns what counts an answer that was given without asking another service,
// which could not be reached.
func (m *Metrics) Degraded() (degraded func()) {
	return m.all.degraded.WithLabelValues(m.cfg.Service).Inc
}

// Replays returns what counts a request that was answered as before, since its
// Idempotency-Key was known.
func (m *Metrics) Replays() (replayed func()) {
	return m.all.replayed.WithLabelValues(m.cfg.Service).Inc
}
