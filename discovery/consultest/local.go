package consultest

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"reflect"
	"slices"

	"github.com/hashicorp/consul/api"
)

// local is the agent's own view: what was registered with it, and whether it
// believes that the servers know.
type local struct {
	services map[string]*localService
	checks   map[string]*localCheck
}

type localService struct {
	api.AgentService
	inSync  bool
	deleted bool   // to be removed from the catalog, then from here
	token   string // of the registering call
}

func (l *local) stopTimers() {
	for _, c := range l.checks {
		c.stop()
	}
}

type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// register is PUT /v1/agent/service/register. The caller holds mu.
func (a *Agent) register(r *api.AgentServiceRegistration, replace bool, token string) error {
	if r.Name == "" {
		return badRequest("Missing service name")
	}
	if r.Address == "0.0.0.0" || r.Address == "::" || r.Address == "[::]" {
		return badRequest("Invalid service address")
	}
	if err := validPorts(r); err != "" {
		return badRequest("Validation failed: 1 error occurred:\n\t* %s\n\n", err)
	}
	if r.ID == "" {
		r.ID = r.Name
	}
	defs := slices.Clone(r.Checks)
	if r.Check != nil {
		defs = append(api.AgentServiceChecks{r.Check}, defs...)
	}
	checks := make([]*localCheck, 0, len(defs))
	for i, d := range defs {
		c, err := newCheck(a.name, r, d, i, len(defs))
		if err != nil {
			return err
		}
		c.token = token
		checks = append(checks, c)
	}

	s := &localService{AgentService: agentService(r), token: token}
	if old := a.local.services[s.ID]; old != nil {
		s.inSync = reflect.DeepEqual(s.AgentService, old.AgentService)
	}
	a.local.services[s.ID] = s
	keep := map[string]bool{}
	for _, c := range checks {
		keep[c.CheckID] = true
		a.putCheck(c)
	}
	if replace {
		for id, c := range a.local.checks {
			if c.ServiceID == s.ID && !keep[id] {
				a.dropCheck(c)
			}
		}
	}
	a.sync()
	return nil
}

// validPorts says in Consul's words what is wrong with the named ports, if anything.
func validPorts(r *api.AgentServiceRegistration) string {
	if r.Port != 0 && len(r.Ports) > 0 {
		return "Cannot set both Port and Ports"
	}
	if len(r.Ports) > 0 && !r.Ports.HasDefault() {
		return "One of the Ports must be marked as Default"
	}
	return ""
}

// agentService fills in what Consul adds to a registration.
func agentService(r *api.AgentServiceRegistration) api.AgentService {
	s := api.AgentService{
		Kind: r.Kind, ID: r.ID, Service: r.Name, Tags: r.Tags, Meta: r.Meta, Port: r.Port, Ports: r.Ports,
		Address: r.Address, SocketPath: r.SocketPath, EnableTagOverride: r.EnableTagOverride, Locality: r.Locality,
		Weights: api.AgentWeights{Passing: 1, Warning: 1}, TaggedAddresses: maps.Clone(r.TaggedAddresses),
	}
	if r.Weights != nil {
		s.Weights = *r.Weights
	}
	if s.Tags == nil {
		s.Tags = []string{}
	}
	if s.Meta == nil {
		s.Meta = map[string]string{}
	}
	if ip := net.ParseIP(r.Address); ip != nil {
		family := "ipv6"
		if ip.To4() != nil {
			family = "ipv4"
		}
		if s.TaggedAddresses == nil {
			s.TaggedAddresses = map[string]api.ServiceAddress{}
		}
		for _, key := range []string{"lan_" + family, "wan_" + family} {
			if _, ok := s.TaggedAddresses[key]; !ok {
				s.TaggedAddresses[key] = api.ServiceAddress{Address: r.Address, Port: s.DefaultPort()}
			}
		}
	}
	return s
}

// remove takes a service and all of its checks, maintenance included, out.
func (a *Agent) remove(id string) {
	a.local.services[id].deleted = true
	for _, c := range a.local.checks {
		if c.ServiceID == id {
			a.dropCheck(c)
		}
	}
	a.sync()
}

func (a *Agent) dropCheck(c *localCheck) {
	c.stop()
	c.deleted = true
}

func (a *Agent) service(id string) (*localService, error) {
	if s := a.local.services[id]; s != nil && !s.deleted {
		return s, nil
	}
	return nil, &httpError{http.StatusNotFound, fmt.Sprintf("Unknown service ID %q. Ensure that the service ID is passed, not the service name.", id)}
}

// sync writes to the catalog what the agent believes the servers don't know,
// and nothing else. Without a leader it does nothing.
func (a *Agent) sync() {
	defer a.notify()
	if !a.leader || a.closed {
		return
	}
	for id, s := range a.local.services {
		if s.deleted {
			a.catalog.deregister(api.CatalogDeregistration{Node: a.name, ServiceID: id})
			delete(a.local.services, id)
			maps.DeleteFunc(a.local.checks, func(_ string, c *localCheck) bool { return c.ServiceID == id && c.deleted })
		}
	}
	for id, s := range a.local.services {
		if !s.inSync {
			// Only the checks that are out of sync go along, and only with
			// the same token.
			var checks api.HealthChecks
			for _, c := range a.local.checks {
				if c.ServiceID == id && !c.inSync && !c.deleted && c.token == s.token {
					checks = append(checks, a.written(c))
				}
			}
			a.write(s.token, s, checks...)
			s.inSync = true
		}
	}
	for id, c := range a.local.checks {
		switch {
		case c.deleted:
			a.catalog.deregister(api.CatalogDeregistration{Node: a.name, CheckID: id})
			delete(a.local.checks, id)
		case !c.inSync:
			a.write(c.token, a.local.services[c.ServiceID], a.written(c))
		}
	}
}

// written marks the check as known to the servers and returns what to write.
func (a *Agent) written(c *localCheck) *api.HealthCheck {
	c.inSync = true
	if c.deferred != nil {
		c.deferred.Stop()
		c.deferred = nil
	}
	check := c.HealthCheck
	return &check
}

// write writes to the catalog what the token may, and gives up the rest: as in
// Consul, it counts as known to the servers either way.
func (a *Agent) write(token string, s *localService, checks ...*api.HealthCheck) {
	if !a.acl.may(token, "service:write") {
		return
	}
	r := &api.CatalogRegistration{
		ID: a.nodeID, Node: a.name, Address: a.address, SkipNodeUpdate: true, Checks: checks,
	}
	if s != nil {
		service := s.AgentService
		r.Service = &service
	}
	a.catalog.register(r)
}
