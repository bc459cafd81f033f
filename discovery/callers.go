package discovery

import (
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Caller sends to the instances of a service by other means than Mesh.Client, and has a
// balancer of its own, as clients of grpcmesh do.
type Caller interface {
	// Balancer returns the one that it chooses by.
	Balancer() *balancer.Balancer
	// Connections returns how many connections are open to each instance.
	Connections() map[catalog.Key]int
	// RetriesLeft returns how many tries beyond the first of a request its budget would
	// pay for.
	RetriesLeft(now time.Time) int
}

// shown is a Caller that a Status tells of.
type shown struct {
	Caller
	service string
}

// Show has the Status of the mesh tell of a Caller too, until end is called. What it has
// sent is told by the mesh's trace, see httpmesh.Transport.Config.
func (m *Mesh) Show(service string, by Caller) (end func()) {
	one := &shown{by, service}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.callers = append(m.callers, one)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.callers = slices.DeleteFunc(m.callers, func(s *shown) bool { return s == one })
	}
}

// callersOf returns those that were shown for a service.
func (m *Mesh) callersOf(service string) (all []Caller) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.callers {
		if s.service == service {
			all = append(all, s.Caller)
		}
	}
	return all
}
