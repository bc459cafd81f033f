package metrics

import (
	"cmp"
	"math"
	"slices"
	"strings"
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
		"Instances in the last answer of Consul, one for each port that is registered, by the service followed, their state there and the protocol that they speak: http or grpc; one that speaks both counts for each.",
		[]string{"service", "peer", "state", "protocol"}, nil)
	descMissing = prometheus.NewDesc("rollcall_instances_missing",
		"Instances that vanished from Consul's answer and are still used for a while, by the service followed.",
		[]string{"service", "peer"}, nil)
	descMissingFor = prometheus.NewDesc("rollcall_instances_missing_seconds",
		"Time until the last of the missing instances is given up, unless it comes back, by the service followed; 0 when none is missing. Who they are is on /debug/discovery and in the log.",
		[]string{"service", "peer"}, nil)
	descEjected = prometheus.NewDesc("rollcall_instances_ejected",
		"Instances out of use for failing, whatever Consul says of them, by the service followed; who they are is on /debug/discovery and in the log.",
		[]string{"service", "peer"}, nil)
	descConnections = prometheus.NewDesc("rollcall_endpoint_connections",
		"Open connections to an instance, idle ones included, by its service and its ID. Of services with 200 instances at most.",
		[]string{"service", "peer", "peer_instance"}, nil)
	descInFlight = prometheus.NewDesc("rollcall_endpoint_in_flight",
		"Requests that are an instance's load now, by its service and its ID. Of services with 200 instances at most.",
		[]string{"service", "peer", "peer_instance"}, nil)
	descOut = prometheus.NewDesc("rollcall_endpoint_out",
		"1 while an instance is out of use for failing, else 0, by its service and its ID. Of services with 200 instances at most.",
		[]string{"service", "peer", "peer_instance"}, nil)
	descRetriesLeft = prometheus.NewDesc("rollcall_retry_budget_left",
		"Tries beyond the first of a request that the budget would pay for now, by the service asked.",
		[]string{"service", "peer"}, nil)
	descFailover = prometheus.NewDesc("rollcall_failover_active",
		"1 while another datacenter's instances are asked for want of ready ones here, else 0, by the service followed.",
		[]string{"service", "peer"}, nil)
	descAge = prometheus.NewDesc("rollcall_snapshot_age_seconds",
		"Time since an answer of Consul proved the set of instances in use, by the service followed; some 10 s in good times.",
		[]string{"service", "peer"}, nil)
	descFailing = prometheus.NewDesc("rollcall_snapshot_failing",
		"1 while Consul gives no believable answer about the service followed and the last good set is used, else 0.",
		[]string{"service", "peer"}, nil)
	descFromDisk = prometheus.NewDesc("rollcall_snapshot_from_disk",
		"1 while the set in use was read from disk because Consul has not answered since the start, else 0, by the service followed.",
		[]string{"service", "peer"}, nil)
	descLoopback = prometheus.NewDesc("rollcall_registration_loopback",
		"This process's own instances that are registered at a loopback address, which no other machine can reach, by their service: set registration.Config.Host.",
		[]string{"service"}, nil)
	descState = prometheus.NewDesc("rollcall_registration_state",
		"This process's own instances, by their service and the state that their entry in Consul is in: starting, registered, recovering, draining, deregistered.",
		[]string{"service", "state"}, nil)
)

// Describe is for the registry.
func (*statuses) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInstances, descMissing, descMissingFor, descEjected, descConnections, descInFlight, descOut, descRetriesLeft, descFailover,
		descAge, descFailing, descFromDisk, descState, descLoopback,
	} {
		out <- d
	}
}

// protocols are those that instances are counted by.
var protocols = [...]string{catalog.HTTP, catalog.GRPC}

// maxEndpoints is how many instances a service may have for each to have series of its
// own.
const maxEndpoints = 200

// tally sums up the sets that share their labels.
type tally struct {
	states      map[kind]int
	endpoints   map[string]endpoint // by ID
	missing     int
	missingFor  time.Duration // of the one that is kept longest
	ejected     int
	retriesLeft int           // the least
	age         time.Duration // of the oldest
	failedOver  bool
	failing     bool
	fromDisk    bool
}

// kind is what instances are counted by.
type kind struct {
	state    catalog.State
	protocol string
}

// endpoint is an instance: all that have its ID.
type endpoint struct {
	connections, inFlight int
	out                   bool
}

func newTally() *tally {
	return &tally{states: map[kind]int{}, endpoints: map[string]endpoint{}, retriesLeft: math.MaxInt}
}

func (t *tally) add(s discovery.ServiceStatus, now time.Time) {
	for n := range s.Instances {
		i := &s.Instances[n]
		if !i.MissingUntil.IsZero() {
			t.missingFor = max(t.missingFor, i.MissingUntil.Sub(now))
			continue
		}
		for protocol := range strings.SplitSeq(cmp.Or(i.Protocol, catalog.HTTP), ",") {
			t.states[kind{i.State, protocol}]++
		}
	}
	t.missing += s.Missing
	t.ejected += s.Ejected
	t.retriesLeft = min(t.retriesLeft, s.RetriesLeft)
	proven := s.Proven
	if proven.IsZero() {
		proven = s.Since
	}
	t.age = max(t.age, now.Sub(proven))
	t.failedOver = t.failedOver || s.FailedOverTo != ""
	t.failing = t.failing || s.Error != ""
	t.fromDisk = t.fromDisk || s.FromDisk
}

// addEndpoints adds each instance, unless there are too many.
func (t *tally) addEndpoints(s discovery.ServiceStatus) {
	if len(s.Instances) > maxEndpoints {
		return
	}
	for n := range s.Instances {
		i := &s.Instances[n]
		id := strings.ToValidUTF8(i.ID, "\uFFFD") // else the registry would refuse all there is
		e := t.endpoints[id]
		e.connections, e.inFlight, e.out = e.connections+i.Connections, e.inFlight+i.InFlight, e.out || i.Ejected != nil
		t.endpoints[id] = e
	}
}

// Collect is for the registry.
func (c *statuses) Collect(out chan<- prometheus.Metric) {
	c.mu.Lock()
	all := slices.Clone(c.all)
	c.mu.Unlock()

	peers := map[[2]string]*tally{} // by service and peer
	own := entries{}
	for _, w := range all {
		status := w.mesh.Status()
		for _, s := range status.Services {
			labels := [2]string{w.service, w.peer(s.Service)}
			t := peers[labels]
			if t == nil {
				t = newTally()
				peers[labels] = t
			}
			t.add(s, status.At)
			if labels[1] != Other { // of which there may be any number
				t.addEndpoints(s)
			}
		}
		for _, r := range status.Registrations {
			own.add(r)
		}
	}
	for labels, t := range peers {
		t.collect(out, labels[0], labels[1])
	}
	own.collect(out)
}

func (t *tally) collect(out chan<- prometheus.Metric, service, peer string) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{service, peer}, labels...)...)
	}
	for _, state := range catalog.States {
		for _, protocol := range protocols {
			gauge(descInstances, float64(t.states[kind{state, protocol}]), state.String(), protocol)
		}
	}
	gauge(descMissing, float64(t.missing))
	gauge(descMissingFor, t.missingFor.Seconds())
	gauge(descEjected, float64(t.ejected))
	gauge(descRetriesLeft, float64(t.retriesLeft))
	gauge(descFailover, flag(t.failedOver))
	gauge(descAge, t.age.Seconds())
	gauge(descFailing, flag(t.failing))
	gauge(descFromDisk, flag(t.fromDisk))
	for id, e := range t.endpoints {
		gauge(descConnections, float64(e.connections), id)
		gauge(descInFlight, float64(e.inFlight), id)
		gauge(descOut, flag(e.out), id)
	}
}

// entries are the process's own, by service.
type entries map[string]*entry

// entry sums up those of a service.
type entry struct {
	states   map[registration.State]int
	loopback int
}

func (all entries) add(r discovery.RegistrationStatus) {
	e := all[r.Service]
	if e == nil {
		e = &entry{states: map[registration.State]int{}}
		all[r.Service] = e
	}
	e.states[r.State]++
	if r.Loopback {
		e.loopback++
	}
}

func (all entries) collect(out chan<- prometheus.Metric) {
	for service, e := range all {
		for _, state := range registration.States {
			out <- prometheus.MustNewConstMetric(descState, prometheus.GaugeValue, float64(e.states[state]), service, state.String())
		}
		out <- prometheus.MustNewConstMetric(descLoopback, prometheus.GaugeValue, float64(e.loopback), service)
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}
