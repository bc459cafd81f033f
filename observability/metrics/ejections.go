package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

func newEjections(r prometheus.Registerer) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "rollcall_ejections_total",
		Help: "Instances taken out of use for a while for failing, by the service asked and the outcome of the last failure: unreachable, misdirected, silent, broken, body_broken, gateway, gateway_timeout, error.",
	}, []string{"peer", "reason"})
	r.MustRegister(c)
	return c
}

func (c *client) ejected(service string, _ catalog.Instance, x outlier.Ejection) {
	c.ejections.WithLabelValues(c.peer(service), x.Reason.String()).Inc()
}

// ejected reads at scrape time how many instances are out of use.
type ejected struct {
	follower Follower
	balancer func(service string) *balancer.Balancer
	peer     func(service string) string
}

var descEjected = prometheus.NewDesc("rollcall_instances_ejected",
	"Instances out of use for failing, whatever Consul says of them, by the service followed.",
	[]string{"peer"}, nil)

func (*ejected) Describe(out chan<- *prometheus.Desc) { out <- descEjected }

func (c *ejected) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	peers := map[string]int{}
	for _, s := range c.follower.Snapshots() {
		n := 0
		if b := c.balancer(s.Service()); b != nil {
			n = b.Counts(now).Ejected
		}
		peers[c.peer(s.Service())] += n
	}
	for peer, n := range peers {
		out <- prometheus.MustNewConstMetric(descEjected, prometheus.GaugeValue, float64(n), peer)
	}
}
