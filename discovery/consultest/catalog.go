package consultest

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

const (
	// NodeName is the name of the node of the first agent, the one of New.
	NodeName = "consul"
	// Datacenter is the name of the agent's datacenter.
	Datacenter = "dc1"

	nodeAddress = "127.0.0.1"
	serfCheckID = "serfHealth"
)

// catalog is what the servers know. Its entries are never changed once they
// are in, only replaced, so that an answer may hold on to them.
type catalog struct {
	index     uint64            // of the last write
	services  uint64            // of the last write to any service
	checks    uint64            // of the last write to any service or check
	allChecks uint64            // of the last write to any check
	extinct   uint64            // of the last time a service lost its last instance
	nodeGone  uint64            // of the last time a node went; 0 if none has
	modified  map[string]uint64 // of the last write that concerns a service, by its name
	nodes     map[string]*node  // by name
	keys      map[string]*api.KVPair
	kv        uint64 // of the last write to any key
	wipes     int    // tells this catalog from those before
}

type node struct {
	api.Node
	services map[string]*api.AgentService // by ID
	checks   map[string]*api.HealthCheck  // by ID

	touched       uint64 // index of the last write to the node or a service of it
	checksTouched uint64 // index of the last write to a check of it
}

// wipe is the start of a catalog: index 1 is Raft's own.
func (c *catalog) wipe() {
	*c = catalog{index: 1, wipes: c.wipes + 1, modified: map[string]uint64{}, nodes: map[string]*node{}, keys: map[string]*api.KVPair{}}
}

// register writes a node, and a service and checks of it. What is the same
// already keeps its index, and wakes nobody.
func (c *catalog) register(r *api.CatalogRegistration) {
	c.index++
	n := c.nodes[r.Node]
	if n == nil {
		n = &node{services: map[string]*api.AgentService{}, checks: map[string]*api.HealthCheck{}, touched: c.index}
		n.CreateIndex, n.ModifyIndex = c.index, c.index
		c.nodes[r.Node] = n
	}
	next := n.Node
	next.ID, next.Node, next.Address, next.Datacenter = r.ID, r.Node, r.Address, Datacenter
	next.TaggedAddresses, next.Meta = r.TaggedAddresses, r.NodeMeta
	if !r.SkipNodeUpdate && !reflect.DeepEqual(next, n.Node) {
		next.ModifyIndex = c.index
		n.Node = next
		n.touched = c.index
		c.touchAll(n)
	}
	if r.Service != nil {
		c.putService(n, *r.Service)
	}
	if r.Check != nil {
		k := r.Check
		c.putCheck(n, api.HealthCheck{
			CheckID: k.CheckID, Name: k.Name, Status: k.Status, Notes: k.Notes, Output: k.Output,
			ServiceID: k.ServiceID, Type: k.Type, Definition: k.Definition,
		})
	}
	for _, k := range r.Checks {
		c.putCheck(n, *k)
	}
}

func (c *catalog) putService(n *node, s api.AgentService) {
	if s.ID == "" {
		s.ID = s.Service
	}
	s.Datacenter, s.ContentHash = "", ""
	if s.Weights == (api.AgentWeights{}) {
		s.Weights = api.AgentWeights{Passing: 1, Warning: 1}
	}
	s.CreateIndex, s.ModifyIndex = c.index, c.index
	if old := n.services[s.ID]; old != nil {
		s.CreateIndex = old.CreateIndex
		s.ModifyIndex = old.ModifyIndex
		if reflect.DeepEqual(*old, s) {
			return
		}
		s.ModifyIndex = c.index
		if old.Service != s.Service {
			c.dropService(n, old)
		}
	}
	n.services[s.ID] = &s
	n.touched = c.index
	c.touch(s.Service)
	c.services = c.index
}

func (c *catalog) putCheck(n *node, k api.HealthCheck) {
	k.Node = n.Node.Node
	if k.Status == "" {
		k.Status = api.HealthCritical
	}
	k.ServiceName, k.ServiceTags = "", []string{}
	if k.ServiceID != "" {
		s := n.services[k.ServiceID]
		if s == nil {
			return // Consul refuses a check of a service that it does not have.
		}
		k.ServiceName = s.Service
		if s.Tags != nil {
			k.ServiceTags = s.Tags
		}
	}
	k.CreateIndex, k.ModifyIndex = c.index, c.index
	if old := n.checks[k.CheckID]; old != nil {
		k.CreateIndex, k.ModifyIndex = old.CreateIndex, old.ModifyIndex
		if reflect.DeepEqual(*old, k) {
			return
		}
		k.ModifyIndex = c.index
	}
	n.checks[k.CheckID] = &k
	c.touchCheck(n, &k)
}

// deregister removes a check, a service with its checks, or a whole node.
func (c *catalog) deregister(r api.CatalogDeregistration) {
	c.index++
	n := c.nodes[r.Node]
	switch {
	case n == nil:
	case r.ServiceID != "":
		c.removeService(n, r.ServiceID)
	case r.CheckID != "":
		if k := n.checks[r.CheckID]; k != nil {
			delete(n.checks, r.CheckID)
			c.touchCheck(n, k)
		}
	default:
		for id := range n.services {
			c.removeService(n, id)
		}
		if len(n.checks) > 0 {
			c.allChecks = c.index
		}
		delete(c.nodes, r.Node)
		c.checks, c.nodeGone = c.index, c.index
	}
}

func (c *catalog) removeService(n *node, id string) {
	s := n.services[id]
	if s == nil {
		return
	}
	before := len(n.checks)
	maps.DeleteFunc(n.checks, func(_ string, k *api.HealthCheck) bool { return k.ServiceID == id })
	if len(n.checks) < before {
		n.checksTouched, c.allChecks = c.index, c.index
	}
	c.dropService(n, s)
}

func (c *catalog) dropService(n *node, s *api.AgentService) {
	delete(n.services, s.ID)
	n.touched, c.services = c.index, c.index
	c.touch(s.Service)
	if !c.offered(s.Service) {
		c.extinct = c.index
	}
}

// touch notes a write that concerns a service.
func (c *catalog) touch(service string) {
	c.modified[service] = c.index
	c.checks = c.index
}

func (c *catalog) touchCheck(n *node, k *api.HealthCheck) {
	n.checksTouched, c.allChecks, c.checks = c.index, c.index, c.index
	if k.ServiceName != "" {
		c.touch(k.ServiceName)
		return
	}
	c.touchAll(n)
}

// touchAll notes a write that concerns every service of a node.
func (c *catalog) touchAll(n *node) {
	for _, s := range n.services {
		c.touch(s.Service)
	}
}

func (c *catalog) offered(service string) bool {
	for _, n := range c.nodes {
		for _, s := range n.services {
			if strings.EqualFold(s.Service, service) {
				return true
			}
		}
	}
	return false
}

// lookup returns the index of a query about a service that does not block. For
// a service that nobody offers it is that of the last one to vanish, else of
// the last write: Consul keeps no index of what it does not know.
func (c *catalog) lookup(service string) uint64 {
	if c.offered(service) {
		return c.modified[service]
	}
	if c.extinct > 0 {
		return c.extinct
	}
	return c.checks
}

// setIndex makes every index the given one.
func (c *catalog) setIndex(n uint64) {
	c.index, c.services, c.checks, c.allChecks = n, n, n, n
	if c.extinct > 0 {
		c.extinct = n
	}
	if c.nodeGone > 0 {
		c.nodeGone = n
	}
	for _, node := range c.nodes {
		node.touched, node.checksTouched = n, n
	}
	for name := range c.modified {
		c.modified[name] = n
	}
}

// entries returns the instances of a service with their checks and those of
// their nodes, in the order of node and ID.
func (c *catalog) entries(service string) []*api.ServiceEntry {
	out := []*api.ServiceEntry{}
	for _, n := range c.nodes {
		for _, s := range n.services {
			if strings.EqualFold(s.Service, service) {
				node, service := n.Node, *s
				service.Port = service.DefaultPort()
				service.Proxy, service.Connect = &api.AgentServiceConnectProxyConfig{}, &api.AgentServiceConnect{}
				out = append(out, &api.ServiceEntry{Node: &node, Service: &service, Checks: n.checksOf(s.ID)})
			}
		}
	}
	slices.SortFunc(out, func(a, b *api.ServiceEntry) int {
		return cmp.Or(strings.Compare(a.Node.Node, b.Node.Node), strings.Compare(a.Service.ID, b.Service.ID))
	})
	return out
}

// checksOf returns the checks of the node, then those of the service.
func (n *node) checksOf(service string) api.HealthChecks {
	out := api.HealthChecks{}
	for _, k := range n.checks {
		if k.ServiceID == "" || k.ServiceID == service {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *api.HealthCheck) int {
		return cmp.Or(strings.Compare(a.ServiceID, b.ServiceID), strings.Compare(a.CheckID, b.CheckID))
	})
	return out
}

// name returns a service's name in the case in which it was registered.
func (c *catalog) name(service string) string {
	for known := range c.modified {
		if strings.EqualFold(known, service) {
			return known
		}
	}
	return service
}
