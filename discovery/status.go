package discovery

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// StatusVersion is the Version of the Status that this package makes. A reader of another
// process's bears fields that it does not know and does without those that are not there,
// and reads no later version: there the fields mean something else.
const StatusVersion = 1

// Status is what a mesh knows at one time, for pages and metrics. It is a value
// of its own: nothing in it changes later, and it marshals to JSON as it is.
type Status struct {
	Version       int                  `json:"version"` // StatusVersion
	At            time.Time            `json:"at"`
	Started       time.Time            `json:"started"`       // when the mesh was opened
	Services      []ServiceStatus      `json:"services"`      // by name
	Registrations []RegistrationStatus `json:"registrations"` // in the order of Register
}

// ServiceStatus is a service that is watched and had an answer.
type ServiceStatus struct {
	Service  string    `json:"service"`
	Since    time.Time `json:"since"`           // when the set came to be what it is
	Proven   time.Time `json:"proven,omitzero"` // of the last answer that proves the set; zero: none so far
	Error    string    `json:"error,omitempty"` // the trouble with Consul since then
	FromDisk bool      `json:"from_disk"`       // the set is the one on disk: Consul has not answered so far
	Panic    bool      `json:"panic"`           // critical instances are used, for want of better ones
	Ready    int       `json:"ready"`
	// Deselected by Config.Select, whatever their state, and not among the ready.
	Deselected int `json:"deselected,omitempty"`
	Ejected    int `json:"ejected"` // of those in use
	Missing    int `json:"missing"` // vanished from the catalog, and still in use
	// FailedOverTo is the datacenter whose instances are asked for want of ready ones
	// here; empty: none.
	FailedOverTo string           `json:"failed_over_to,omitempty"`
	Calls        CallStatus       `json:"calls"`
	RetriesLeft  int              `json:"retry_budget_left"` // tries that the budget of retries would pay for now
	Instances    []InstanceStatus `json:"instances"`
}

// CallStatus is what the process has sent to a service in the last whole ten seconds, by
// HTTP and by gRPC, whichever view of the mesh has sent it. Of more than 256 services at
// once not all are counted.
type CallStatus struct {
	WindowSeconds int `json:"window_seconds"`
	Requests      int `json:"requests"`
	Failed        int `json:"failed"`      // the caller got an error, or an answer of 500 and above: see outcome.Code.Failed
	Retries       int `json:"retries"`     // tries beyond the first of a request
	OverBudget    int `json:"over_budget"` // requests that were not tried again for want of budget
	// Percentiles of the time to the header of the answer or the failure, all tries
	// together, rounded up by a quarter at most; 0 without a request.
	P50Seconds float64 `json:"p50_seconds"`
	P99Seconds float64 `json:"p99_seconds"`
}

// InstanceStatus is an instance as the catalog and this mesh's own requests know
// it.
type InstanceStatus struct {
	ID           string        `json:"id"`
	Node         string        `json:"node,omitempty"`
	Addr         string        `json:"addr"`
	Zone         string        `json:"zone,omitempty"`
	Version      string        `json:"version,omitempty"`    // as its Meta says under that key
	Datacenter   string        `json:"datacenter,omitempty"` // empty: the agent's own
	Protocol     string        `json:"protocol"`             // http, grpc, or both as "http,grpc"
	State        catalog.State `json:"state"`
	Reason       string        `json:"reason,omitempty"`
	Weight       int           `json:"weight"`
	Reserve      bool          `json:"reserve,omitempty"`      // of another datacenter, and asked when no other is left
	MissingUntil time.Time     `json:"missing_until,omitzero"` // zero: it is in the catalog
	InFlight     int           `json:"in_flight"`
	Connections  int           `json:"connections"` // open ones of this process, idle ones included
	// LatencySeconds is what the balancer expects of its next answer; 0: it does not know.
	LatencySeconds float64         `json:"latency_seconds"`
	Deselected     bool            `json:"deselected,omitempty"` // Config.Select leaves it out
	Health         string          `json:"health,omitempty"`     // by its answers: healthy, suspect, on trial, ejected; empty: never asked for
	Ejected        *EjectionStatus `json:"ejected,omitempty"`    // nil: it is not
}

// EjectionStatus is why an instance is out of use, and for how long.
type EjectionStatus struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// RegistrationStatus is one of this process's own instances.
type RegistrationStatus struct {
	Service string             `json:"service"`
	ID      string             `json:"id"`
	State   registration.State `json:"state"`
	Why     string             `json:"why"`
	Error   string             `json:"error,omitempty"` // what is in the way
	Since   time.Time          `json:"since"`
	// Loopback: it is registered at an address that no other machine can reach.
	Loopback bool `json:"loopback"`
}

// Status returns what the mesh knows now. Asking changes nothing: it keeps no
// watch alive and begins none. With Config.Source it has no services. Of a view it
// tells that view's health of the instances, and the registrations of the mesh.
func (m *Mesh) Status() Status {
	s := Status{
		Version: StatusVersion, At: time.Now(), Started: m.root.started,
		Services: []ServiceStatus{}, Registrations: []RegistrationStatus{},
	}
	for _, snapshot := range m.snapshots() {
		s.Services = append(s.Services, m.serviceStatus(snapshot, s.At))
	}
	m.root.mu.Lock()
	registered := slices.Clone(m.root.registered)
	m.root.mu.Unlock()
	for _, r := range registered {
		now := r.Status()
		status := RegistrationStatus{Service: r.Service(), ID: r.ID(), State: now.State, Why: now.Why, Since: now.Since}
		if now.Err != nil {
			status.Error, status.Loopback = now.Err.Error(), errors.Is(now.Err, registration.ErrLoopback)
		}
		s.Registrations = append(s.Registrations, status)
	}
	return s
}

// asked is an instance as one balancer has it.
type asked struct {
	*balancer.Endpoint
	by *balancer.Balancer
}

// serviceStatus describes a set; there is no balancer of a service that nothing was sent
// to, and several of one that is called by http, by https and by gRPC.
func (m *Mesh) serviceStatus(set *catalog.Snapshot, now time.Time) ServiceStatus {
	name := set.Service()
	s := ServiceStatus{
		Service: name, Since: set.At(), Calls: callStatus(m.root.calls.Read(name, now)),
		RetriesLeft: m.transport.RetriesLeft(name, now), Instances: make([]InstanceStatus, 0, set.Len()),
	}
	balancers, open := m.transport.Balancers(name), m.transport.Connections(name)
	for _, c := range m.callersOf(name) {
		balancers = append(balancers, c.Balancer())
		for key, n := range c.Connections() {
			open[key] += n
		}
		s.RetriesLeft = min(s.RetriesLeft, c.RetriesLeft(now))
	}
	var trouble error
	if s.Proven, trouble = set.Freshness(); trouble != nil {
		s.Error, s.FromDisk = trouble.Error(), errors.Is(trouble, catalog.ErrFromDisk)
	}
	endpoints := map[catalog.Key][]asked{}
	for _, b := range balancers {
		counts := b.Counts(now)
		s.Panic, s.Ejected = s.Panic || counts.Panic, s.Ejected+counts.Ejected
		for _, e := range b.Endpoints() {
			key := e.Instance().Key()
			endpoints[key] = append(endpoints[key], asked{e, b})
		}
	}
	selection := m.selection(name)
	for i := range set.All() {
		status := instanceStatus(i, endpoints[i.Key()], now)
		status.Connections = open[i.Key()]
		status.Datacenter = cmp.Or(i.Datacenter, m.root.center)
		switch status.Deselected = !selection.Selects(i); {
		case status.Deselected:
			s.Deselected++
		case i.State.Ready():
			s.Ready++
		}
		if i.Missing() {
			s.Missing++
		}
		if !i.Reserve && i.Datacenter != "" {
			s.FailedOverTo = i.Datacenter
		}
		s.Instances = append(s.Instances, status)
	}
	return s
}

// maxVersion bounds what is told of a version, in bytes: it comes from an entry's Meta.
const maxVersion = 64

func instanceStatus(i catalog.Instance, by []asked, now time.Time) InstanceStatus {
	s := InstanceStatus{
		ID: i.ID, Node: i.Node, Addr: i.Addr(), Zone: i.Zone, Version: clip.To(maxVersion, i.Meta["version"]), Protocol: i.Protocol(),
		State: i.State, Reason: i.Reason, Weight: i.Weight, Reserve: i.Reserve, MissingUntil: i.MissingUntil,
	}
	worst := outlier.Healthy
	for _, e := range by {
		s.InFlight += e.InFlight()
		s.LatencySeconds = max(s.LatencySeconds, e.by.Latency(e.Endpoint, now).Seconds())
		worst = max(worst, e.State(now))
		s.Health = worst.String()
		if x := e.Ejection(); !x.Over(now) {
			s.Ejected = ejectionStatus(x)
		}
	}
	return s
}

func ejectionStatus(x outlier.Ejection) *EjectionStatus {
	return &EjectionStatus{Since: x.At, Until: x.Until, Reason: x.Reason.String()}
}
