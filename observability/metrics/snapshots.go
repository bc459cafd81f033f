package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Follower tells the latest snapshot of each service that is followed. A
// *discovery.Mesh is one.
type Follower interface {
	Snapshots() []*catalog.Snapshot
}

// Watch reads the follower's snapshots at each scrape, and its balancers if it
// has them. It is to be called once.
func (m *Metrics) Watch(f Follower) {
	m.registry.MustRegister(&snapshots{follower: f, peer: m.peer})
	if b, ok := f.(interface {
		Balancer(service string) *balancer.Balancer
	}); ok {
		m.registry.MustRegister(&ejected{follower: f, balancer: b.Balancer, peer: m.peer})
	}
}

// snapshots makes its series at scrape time from what is in use then: a second
// copy of the sets could differ from them, and would keep what is gone.
type snapshots struct {
	follower Follower
	peer     func(service string) string
}

var (
	descInstances = prometheus.NewDesc("rollcall_instances",
		"Instances in the last answer of Consul, by the service followed and their state there.",
		[]string{"peer", "state"}, nil)
	descMissing = prometheus.NewDesc("rollcall_instances_missing",
		"Instances that vanished from Consul's answer and are still used for a while, by the service followed.",
		[]string{"peer"}, nil)
	descMissingFor = prometheus.NewDesc("rollcall_instances_missing_seconds",
		"Time until the last of the missing instances is given up, unless it comes back, by the service followed; 0 when none is missing.",
		[]string{"peer"}, nil)
	descAge = prometheus.NewDesc("rollcall_snapshot_age_seconds",
		"Time since an answer of Consul proved the set of instances in use, by the service followed.",
		[]string{"peer"}, nil)
	descFailing = prometheus.NewDesc("rollcall_snapshot_failing",
		"1 while Consul gives no believable answer about the service followed and the last good set is used, else 0.",
		[]string{"peer"}, nil)
	descFromDisk = prometheus.NewDesc("rollcall_snapshot_from_disk",
		"1 while the set in use was read from disk because Consul has not answered since the start, else 0, by the service followed.",
		[]string{"peer"}, nil)
)

func (*snapshots) Describe(out chan<- *prometheus.Desc) {
	out <- descInstances
	out <- descMissing
	out <- descMissingFor
	out <- descAge
	out <- descFailing
	out <- descFromDisk
}

// tally sums up the snapshots that share a label.
type tally struct {
	states     map[catalog.State]int
	missing    int
	missingFor time.Duration // of the one that is kept longest
	age        time.Duration // of the oldest
	failing    bool
	fromDisk   bool
}

func (c *snapshots) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	peers := map[string]*tally{}
	for _, s := range c.follower.Snapshots() {
		t := peers[c.peer(s.Service())]
		if t == nil {
			t = &tally{states: map[catalog.State]int{}}
			peers[c.peer(s.Service())] = t
		}
		for i := range s.All() {
			if i.Missing() {
				t.missing++
				t.missingFor = max(t.missingFor, i.MissingUntil.Sub(now))
			} else {
				t.states[i.State]++
			}
		}
		proven, err := s.Freshness()
		if proven.IsZero() {
			proven = s.At()
		}
		t.age = max(t.age, now.Sub(proven))
		t.failing = t.failing || err != nil
		t.fromDisk = t.fromDisk || errors.Is(err, catalog.ErrFromDisk)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for peer, t := range peers {
		for _, state := range catalog.States {
			gauge(descInstances, float64(t.states[state]), peer, state.String())
		}
		gauge(descMissing, float64(t.missing), peer)
		gauge(descMissingFor, t.missingFor.Seconds(), peer)
		gauge(descAge, t.age.Seconds(), peer)
		gauge(descFailing, flag(t.failing), peer)
		gauge(descFromDisk, flag(t.fromDisk), peer)
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
