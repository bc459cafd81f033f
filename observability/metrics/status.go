package metrics

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

// Mesh tells what it knows. A *discovery.Mesh is one.
type Mesh interface {
	Status() discovery.Status
}

// Watch has the status of the mesh read at each scrape, for what is known of
// other services and of the process's own entries, until the function that it
// returns is called. Reading changes nothing in the mesh.
func (m *Metrics) Watch(mesh Mesh) (end func()) {
	one := &watched{mesh: mesh, service: m.cfg.Service, peer: m.peer}
	s := m.all.statuses
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, one)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = slices.DeleteFunc(s.all, func(w *watched) bool { return w == one })
	}
}

// statuses makes its series at scrape time from what is in use then: a second
// copy of the sets could differ from them, and would keep what is gone.
type statuses struct {
	mu  sync.Mutex // guards all
	all []*watched
}

// watched is one mesh and whose it is.
type watched struct {
	mesh    Mesh
	service string
	peer    func(service string) string
}

var (
	descInstances = prometheus.NewDesc("rollcall_instances",
		"Instances in the last answer of Consul, by the service followed and their state there.",
		[]string{"service", "peer", "state"}, nil)
	descMissing = prometheus.NewDesc("rollcall_instances_missing",
		"Instances that vanished from Consul's answer and are still used for a while, by the service followed.",
		[]string{"service", "peer"}, nil)
	descMissingFor = prometheus.NewDesc("rollcall_instances_missing_seconds",
		"Time until the last of the missing instances is given up, unless it comes back, by the service followed; 0 when none is missing.",
		[]string{"service", "peer"}, nil)
	descEjected = prometheus.NewDesc("rollcall_instances_ejected",
		"Instances out of use for failing, whatever Consul says of them, by the service followed.",
		[]string{"service", "peer"}, nil)
	descAge = prometheus.NewDesc("rollcall_snapshot_age_seconds",
		"Time since an answer of Consul proved the set of instances in use, by the service followed.",
		[]string{"service", "peer"}, nil)
	descFailing = prometheus.NewDesc("rollcall_snapshot_failing",
		"1 while Consul gives no believable answer about the service followed and the last good set is used, else 0.",
		[]string{"service", "peer"}, nil)
	descFromDisk = prometheus.NewDesc("rollcall_snapshot_from_disk",
		"1 while the set in use was read from disk because Consul has not answered since the start, else 0, by the service followed.",
		[]string{"service", "peer"}, nil)
	descLoopback = prometheus.NewDesc("rollcall_registration_loopback",
		"This process's own instances that are registered at a loopback address, which no other machine can reach, by their service.",
		[]string{"service"}, nil)
	descState = prometheus.NewDesc("rollcall_registration_state",
		"This process's own instances, by their service and the state that their entry in Consul is in.",
		[]string{"service", "state"}, nil)
)

// Describe is for the registry.
func (*statuses) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInstances, descMissing, descMissingFor, descEjected, descAge, descFailing, descFromDisk, descState, descLoopback} {
		out <- d
	}
}

// tally sums up the sets that share their labels.
type tally struct {
	states     map[catalog.State]int
	missing    int
	missingFor time.Duration // of the one that is kept longest
	ejected    int
	age        time.Duration // of the oldest
	failing    bool
	fromDisk   bool
}

func (t *tally) add(s discovery.ServiceStatus, now time.Time) {
	for n := range s.Instances {
		i := &s.Instances[n]
		if i.MissingUntil.IsZero() {
			t.states[i.State]++
		} else {
			t.missingFor = max(t.missingFor, i.MissingUntil.Sub(now))
		}
	}
	t.missing += s.Missing
	t.ejected += s.Ejected
	proven := s.Proven
	if proven.IsZero() {
		proven = s.Since
	}
	t.age = max(t.age, now.Sub(proven))
	t.failing = t.failing || s.Error != ""
	t.fromDisk = t.fromDisk || s.FromDisk
}

// Collect is for the registry.
func (c *statuses) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	all := slices.Clone(c.all)
	c.mu.Unlock()

	peers := map[[2]string]*tally{} // by service and peer
	own := map[string]map[registration.State]int{}
	loopback := map[string]int{}
	for _, w := range all {
		status := w.mesh.Status()
		for _, s := range status.Services {
			labels := [2]string{w.service, w.peer(s.Service)}
			t := peers[labels]
			if t == nil {
				t = &tally{states: map[catalog.State]int{}}
				peers[labels] = t
			}
			t.add(s, status.At)
		}
		for _, r := range status.Registrations {
			if own[r.Service] == nil {
				own[r.Service] = map[registration.State]int{}
			}
			own[r.Service][r.State]++
			if r.Loopback {
				loopback[r.Service]++
			}
		}
	}
	for labels, t := range peers {
		t.collect(out, labels[0], labels[1])
	}
	for service, counts := range own {
		for _, state := range registration.States {
			out <- prometheus.MustNewConstMetric(descState, prometheus.GaugeValue, float64(counts[state]), service, state.String())
		}
		out <- prometheus.MustNewConstMetric(descLoopback, prometheus.GaugeValue, float64(loopback[service]), service)
	}
}

func (t *tally) collect(out chan<- prometheus.Metric, service, peer string) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{service, peer}, labels...)...)
	}
	for _, state := range catalog.States {
		gauge(descInstances, float64(t.states[state]), state.String())
	}
	gauge(descMissing, float64(t.missing))
	gauge(descMissingFor, t.missingFor.Seconds())
	gauge(descEjected, float64(t.ejected))
	gauge(descAge, t.age.Seconds())
	gauge(descFailing, flag(t.failing))
	gauge(descFromDisk, flag(t.fromDisk))
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
