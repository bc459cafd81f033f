package routing

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Status is what a page shows.
type Status struct {
	Pinned  []Route `json:"pinned"`
	Learned *Table  `json:"learned"`
}

// Status returns the routes as they are now.
func (l *Learner) Status() Status {
	return Status{Pinned: NewTable(l.cfg.Pinned...).Routes, Learned: l.Table()}
}

var gauges = []struct {
	desc  *prometheus.Desc
	value func(t *Table) int
}{
	{desc("rollcall_gateway_routes", "Learned routes that count."), func(t *Table) int { return len(t.Routes) }},
	{desc("rollcall_gateway_route_conflicts", "Learned routes that more than one service claims."), func(t *Table) int { return len(t.Conflicts) }},
	{desc("rollcall_gateway_routes_refused", "Claims of routes that do not count."), func(t *Table) int { return t.Refusals }},
	{desc("rollcall_gateway_route_troubles", "Things that keep learned routes from being up to date, or their owners from being recorded."), func(t *Table) int { return len(t.Trouble) }},
}

func desc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, nil, nil)
}

// Describe and Collect make a Learner a prometheus.Collector.
func (l *Learner) Describe(to chan<- *prometheus.Desc) {
	for _, g := range gauges {
		to <- g.desc
	}
}

// Collect tells the numbers of the table.
func (l *Learner) Collect(to chan<- prometheus.Metric) {
	table := l.Table()
	for _, g := range gauges {
		to <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, float64(g.value(table)))
	}
}
