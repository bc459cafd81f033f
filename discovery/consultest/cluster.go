package consultest

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
)

// cluster is what agents share: the servers.
type cluster struct {
	mu         sync.Mutex    // guards what follows, and the agents' own state
	changed    chan struct{} // closed and replaced at each change of what mu guards
	agents     []*Agent      // the first is on a server's node
	catalog    catalog
	acl        acl
	leader     bool
	leaderLost time.Time
}

// join starts an agent, and enters its node into the catalog.
func (c *cluster) join(name string) *Agent {
	a := &Agent{
		cluster: c,
		started: time.Now(),
		pipe:    newPipeListener(),
		done:    make(chan struct{}),
		name:    name,
		address: nodeAddress,
		local:   local{services: map[string]*localService{}, checks: map[string]*localCheck{}},
		faults:  map[string]Fault{},
		held:    map[*http.Request]struct{}{},
		conns:   map[net.Conn]struct{}{},
		jitter:  rand.New(rand.NewPCG(1, 2)),
	}
	a.mux = a.routes()
	a.server = &http.Server{
		Handler:           http.HandlerFunc(a.serve),
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ConnState:         a.track,
		ConnContext:       a.admit,
	}
	c.mu.Lock()
	a.nodeID = fmt.Sprintf("6f2a9a4e-4d3f-4b0c-9a65-3c0f5f4c7e%02x", len(c.agents)+0x11)
	c.agents = append(c.agents, a)
	if a.serves() {
		c.catalog.wipe()
	}
	a.enter()
	c.notify()
	c.mu.Unlock()
	a.listen(a.pipe)
	return a
}

// serves reports whether the agent is a server itself. The caller holds mu.
func (a *Agent) serves() bool { return a.agents[0] == a }

// enter writes the agent's node into the catalog, as the leader does with each
// member: with its Serf check, and on a server the service consul.
func (a *Agent) enter() {
	r := a.node()
	r.Check = &api.AgentCheck{Node: a.name, CheckID: serfCheckID, Name: "Serf Health Status", Status: api.HealthPassing, Output: "Agent alive and reachable"}
	if a.serves() {
		r.Service = &api.AgentService{ID: "consul", Service: "consul", Port: 8300, Weights: api.AgentWeights{Passing: 1, Warning: 1}}
	}
	a.catalog.register(r)
}

// node is what the agent writes of its node into the catalog.
func (a *Agent) node() *api.CatalogRegistration {
	return &api.CatalogRegistration{
		ID: a.nodeID, Node: a.name, Address: a.address,
		TaggedAddresses: map[string]string{"lan": a.address, "lan_ipv4": a.address, "wan": a.address, "wan_ipv4": a.address},
		NodeMeta:        map[string]string{"consul-network-segment": "", "consul-version": "1.22.3"},
	}
}

// wipe starts the catalog anew; the nodes are in it again at once.
func (c *cluster) wipe() {
	c.catalog.wipe()
	for _, a := range c.agents {
		if !a.closed {
			a.enter()
		}
	}
	c.notify()
}

// SetNodeAddress is an agent that advertises this address: /v1/agent/self and
// the catalog's node show it. It is 127.0.0.1 at first.
func (a *Agent) SetNodeAddress(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.address = address
	a.catalog.register(a.node())
	a.notify()
}

// notify wakes whoever waits for a change. The caller holds mu.
func (c *cluster) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}
