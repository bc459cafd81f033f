package discovery

import (
	"errors"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

// Status is what a mesh knows at one time, for pages and metrics. It is a value
// of its own: nothing in it changes later, and it marshals to JSON as it is.
type Status struct {
	At            time.Time            `json:"at"`
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
	Deselected int              `json:"deselected,omitempty"`
	Ejected    int              `json:"ejected"` // of those in use
	Missing    int              `json:"missing"` // vanished from the catalog, and still in use
	Instances  []InstanceStatus `json:"instances"`
}

// InstanceStatus is an instance as the catalog and this mesh's own requests know
// it.
type InstanceStatus struct {
	ID           string          `json:"id"`
	Node         string          `json:"node,omitempty"`
	Addr         string          `json:"addr"`
	State        catalog.State   `json:"state"`
	Reason       string          `json:"reason,omitempty"`
	Weight       int             `json:"weight"`
	Reserve      bool            `json:"reserve,omitempty"`      // of another datacenter, and asked when no other is left
	MissingUntil time.Time       `json:"missing_until,omitzero"` // zero: it is in the catalog
	InFlight     int             `json:"in_flight"`
	Deselected   bool            `json:"deselected,omitempty"` // Config.Select leaves it out
	Health       string          `json:"health,omitempty"`     // by its answers: healthy, suspect, on trial, ejected; empty: never asked for
	Ejected      *EjectionStatus `json:"ejected,omitempty"`    // nil: it is not
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
	s := Status{At: time.Now(), Services: []ServiceStatus{}, Registrations: []RegistrationStatus{}}
	for _, snapshot := range m.snapshots() {
		name := snapshot.Service()
		s.Services = append(s.Services, statusOf(snapshot, m.selection(name), m.transport.Balancers(name), s.At))
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

// statusOf describes a set; there is no balancer of a service that nothing was sent
// to, and two of one that is called by http and by https.
func statusOf(set *catalog.Snapshot, selection catalog.Selection, balancers []*balancer.Balancer, now time.Time) ServiceStatus {
	s := ServiceStatus{Service: set.Service(), Since: set.At(), Instances: make([]InstanceStatus, 0, set.Len())}
	var trouble error
	if s.Proven, trouble = set.Freshness(); trouble != nil {
		s.Error, s.FromDisk = trouble.Error(), errors.Is(trouble, catalog.ErrFromDisk)
	}
	endpoints := map[catalog.Key]*balancer.Endpoint{}
	for _, b := range balancers {
		counts := b.Counts(now)
		s.Panic, s.Ejected = s.Panic || counts.Panic, s.Ejected+counts.Ejected
		for _, e := range b.Endpoints() {
			i := e.Instance()
			endpoints[i.Key()] = e
		}
	}
	for i := range set.All() {
		status := instanceStatus(i, endpoints[i.Key()], now)
		switch status.Deselected = !selection.Selects(i); {
		case status.Deselected:
			s.Deselected++
		case i.State.Ready():
			s.Ready++
		}
		if i.Missing() {
			s.Missing++
		}
		s.Instances = append(s.Instances, status)
	}
	return s
}

func instanceStatus(i catalog.Instance, e *balancer.Endpoint, now time.Time) InstanceStatus {
	s := InstanceStatus{
		ID: i.ID, Node: i.Node, Addr: i.Addr(), State: i.State, Reason: i.Reason, Weight: i.Weight,
		Reserve: i.Reserve, MissingUntil: i.MissingUntil,
	}
	if e == nil {
		return s
	}
	s.InFlight, s.Health = e.InFlight(), e.State(now).String()
	if x := e.Ejection(); !x.Over(now) {
		s.Ejected = ejectionStatus(x)
	}
	return s
}

func ejectionStatus(x outlier.Ejection) *EjectionStatus {
	return &EjectionStatus{Since: x.At, Until: x.Until, Reason: x.Reason.String()}
}
