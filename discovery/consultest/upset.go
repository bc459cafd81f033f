package consultest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/hashicorp/consul/api"
)

// SetIndex makes n the index of the catalog and of everything in it, as after
// a snapshot was restored. Backwards it leaves those blind who wait for a
// higher one, until their wait is over.
func (a *Agent) SetIndex(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.catalog.setIndex(n)
	a.notify()
}

// Index returns the index of the last write to the catalog.
func (a *Agent) Index() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.catalog.index
}

// Wipe is a Consul that was started anew on an empty disk: connections are
// cut, nothing is registered any more, and the index starts again. Of an agent
// that AddAgent made, only its own services and checks are lost.
func (a *Agent) Wipe() {
	a.mu.Lock()
	a.local.stopTimers()
	clear(a.local.services)
	clear(a.local.checks)
	if a.serves() {
		a.wipe()
	}
	a.syncFull()
	a.mu.Unlock()
	a.cut()
}

// WipeServers loses the catalog of the servers, while the agent goes on and
// believes that they know everything. What is registered again unchanged, or
// beats its TTL with the same status, is not written then; a changed
// registration comes back without its checks. Deregister and register repairs
// it, or Sync.
func (a *Agent) WipeServers() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wipe()
}

// Sync compares the agent's own view with the catalog and repairs what
// differs: Consul's anti-entropy, which takes a minute or more there and never
// comes by itself here.
func (a *Agent) Sync() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.syncFull()
}

func (a *Agent) syncFull() {
	n := a.catalog.nodes[a.name]
	if n == nil {
		n = &node{}
	}
	for id, s := range a.local.services {
		there := n.services[id]
		s.inSync = there != nil && same(*there, s.AgentService)
	}
	for id, c := range a.local.checks {
		there := n.checks[id]
		c.inSync = there != nil && sameCheck(*there, c.HealthCheck)
	}
	if a.leader {
		for id := range n.services {
			if a.local.services[id] == nil && id != "consul" {
				a.catalog.deregister(api.CatalogDeregistration{Node: a.name, ServiceID: id})
			}
		}
		for id := range n.checks {
			if a.local.checks[id] == nil && id != serfCheckID {
				a.catalog.deregister(api.CatalogDeregistration{Node: a.name, CheckID: id})
			}
		}
	}
	a.sync()
}

func same(a, b api.AgentService) bool {
	a.CreateIndex, a.ModifyIndex = 0, 0
	return reflect.DeepEqual(a, b)
}

func sameCheck(a, b api.HealthCheck) bool {
	a.CreateIndex, a.ModifyIndex = 0, 0
	return reflect.DeepEqual(a, b)
}

// Restart is a Consul that was stopped and started again with its data:
// connections are cut, the catalog is kept, and every check is critical until
// its next result, except for TTL checks whose last beat is recent enough.
func (a *Agent) Restart() {
	a.mu.Lock()
	for _, c := range a.local.checks {
		c.stop()
		c.expiry, c.reaper, c.deferred, c.criticalSince = nil, nil, nil, time.Time{}
		c.Status, c.Output, c.last = api.HealthCritical, "", ""
		if c.ttl > 0 {
			if time.Until(c.beat.until) > 0 {
				c.Status, c.Output = c.beat.status, c.beat.output
			}
			a.startTTL(c)
		}
	}
	a.syncFull()
	a.mu.Unlock()
	a.cut()
}

// LoseLeader takes the servers' leader away until ElectLeader. Queries fail
// with 500 after 7 s, those that allow stale data are answered with a
// growing LastContact and no known leader, and what is registered, beaten or
// deregistered is accepted after 7 s with 200 but does not reach the catalog.
func (a *Agent) LoseLeader() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leader {
		a.leader, a.leaderLost = false, time.Now()
		a.notify()
	}
}

// ElectLeader gives the servers a leader again; what the agent could not write
// meanwhile is written.
func (a *Agent) ElectLeader() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.leader = true
	for _, each := range a.agents {
		each.sync()
	}
}

// SetCheck gives the check that was registered with the agent a new result,
// as if Consul had run it, or a TTL check had been beaten: status is passing,
// warning or critical. The default ID of the first check of a service is
// service:<id>.
func (a *Agent) SetCheck(id, status, output string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.local.checks[id]
	if c == nil || c.deleted {
		return fmt.Errorf("consultest: set check %q to %s: the agent has no such check (%d known)", id, status, len(a.local.checks))
	}
	if c.ttl > 0 {
		return a.ttlBeat(c, status, output)
	}
	a.update(c, status, output)
	return nil
}
