package split

import (
	"github.com/prometheus/client_golang/prometheus"
)

var descSteered = prometheus.NewDesc("rollcall_gateway_split_requests_total",
	"Requests for a service that has splits, by the rule that they fell under: what its to says, or rest for none.",
	[]string{"peer", "rule"}, nil)

// Describe and Collect make a Follower a prometheus.Collector. It has series of the rules
// that there are.
func (f *Follower) Describe(to chan<- *prometheus.Desc) { to <- descSteered }

// Collect tells how many requests fell under each rule.
func (f *Follower) Collect(to chan<- prometheus.Metric) {
	now := f.now.Load()
	if now == nil {
		return
	}
	for under, n := range now.steered {
		to <- prometheus.MustNewConstMetric(descSteered, prometheus.CounterValue, float64(n.Load()), under.service, under.rule)
	}
}
