package consultest

import (
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/hashicorp/consul/api"
)

// localCheck is a check that was registered with the agent.
type localCheck struct {
	api.HealthCheck
	inSync  bool
	deleted bool
	token   string // of the registering call

	ttl    time.Duration // 0 for a check that is no TTL check
	expiry *time.Timer   // nil for a check that is no TTL check
	last   string        // output of the last beat since the check was registered
	beat   beat          // what a restart of the agent finds on disk

	reapAfter     time.Duration // 0: never
	criticalSince time.Time     // zero unless an update made it critical
	reaper        *time.Timer
	deferred      *time.Timer // pending write of a changed output; nil if none
}

// beat is the last news of a TTL check.
type beat struct {
	status, output string
	until          time.Time // TTL after it came
}

func (c *localCheck) stop() {
	for _, t := range []*time.Timer{c.expiry, c.reaper, c.deferred} {
		if t != nil {
			t.Stop()
		}
	}
}

const (
	// checkUpdateInterval is Consul's check_update_interval: an output that
	// changes without the status reaches the catalog after 0.5 to 1.5 of it.
	checkUpdateInterval = 5 * time.Minute
	// reapInterval is how often Consul looks for services to reap, and
	// reapMin the shortest DeregisterCriticalServiceAfter.
	reapInterval = 30 * time.Second
	reapMin      = time.Minute
)

func newCheck(node string, r *api.AgentServiceRegistration, d *api.AgentServiceCheck, i, of int) (*localCheck, error) {
	c := &localCheck{HealthCheck: api.HealthCheck{
		Node: node, CheckID: d.CheckID, Name: d.Name, Status: api.HealthCritical, Notes: d.Notes,
		ServiceID: r.ID, ServiceName: r.Name, ServiceTags: r.Tags,
	}}
	if c.CheckID == "" {
		c.CheckID = "service:" + r.ID
		if of > 1 {
			c.CheckID = fmt.Sprintf("service:%s:%d", r.ID, i+1)
		}
	}
	if c.Name == "" {
		c.Name = fmt.Sprintf("Service '%s' check", r.Name)
	}
	if c.ServiceTags == nil {
		c.ServiceTags = []string{}
	}
	switch d.Status {
	case "":
	case api.HealthPassing, api.HealthWarning, api.HealthCritical:
		c.Status = d.Status
	default:
		return nil, badRequest("Status for checks must 'passing', 'warning', 'critical'")
	}
	durations := [4]time.Duration{}
	for i, s := range [4]string{d.TTL, d.Interval, d.Timeout, d.DeregisterCriticalServiceAfter} {
		if s == "" {
			continue
		}
		v, err := time.ParseDuration(s)
		if err != nil {
			return nil, badRequest("Request decode failed: %v", err)
		}
		durations[i] = v
	}
	c.ttl = durations[0]
	c.reapAfter = durations[3]
	if c.reapAfter > 0 {
		c.reapAfter = max(c.reapAfter, reapMin)
	}
	probes := 0
	for _, kind := range []struct{ name, set string }{
		{"http", d.HTTP}, {"tcp", d.TCP}, {"udp", d.UDP}, {"grpc", d.GRPC}, {"h2ping", d.H2PING},
	} {
		if kind.set != "" {
			probes++
			c.Type = kind.name
		}
	}
	switch {
	case c.ttl > 0 && (probes > 0 || durations[1] > 0):
		return nil, badRequest("Invalid check: Interval and TTL cannot both be specified")
	case c.ttl > 0:
		c.Type = "ttl"
	case probes == 0:
		return nil, badRequest("Invalid check: TTL must be > 0 for TTL checks")
	case durations[1] <= 0:
		return nil, badRequest("Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks")
	}
	return c, nil
}

// putCheck adds a check, or replaces one: then the status and the output of
// the old one stay, whatever the new one says.
func (a *Agent) putCheck(c *localCheck) {
	if old := a.local.checks[c.CheckID]; old != nil {
		if !old.deleted {
			c.Status, c.Output, c.beat = old.Status, old.Output, old.beat
		}
		c.inSync = reflect.DeepEqual(c.HealthCheck, old.HealthCheck) && old.deferred == nil
		old.stop()
	}
	a.local.checks[c.CheckID] = c
	if c.ttl > 0 {
		a.startTTL(c)
	}
}

func (a *Agent) startTTL(c *localCheck) {
	c.expiry = time.AfterFunc(c.ttl, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		// A beat may have come while this waited for the lock; it has set the
		// timer anew, and replaced nothing else.
		if a.closed || a.local.checks[c.CheckID] != c || c.deleted || time.Since(c.beat.until) < 0 {
			return
		}
		output := "TTL expired"
		if c.last != "" {
			output += " (last output before timeout follows): " + c.last
		}
		a.update(c, api.HealthCritical, output)
	})
}

// check returns the check that was registered with the agent.
func (a *Agent) check(id string) (*localCheck, error) {
	if c := a.local.checks[id]; c != nil && !c.deleted {
		return c, nil
	}
	return nil, &httpError{http.StatusNotFound, fmt.Sprintf("Unknown check ID %q. Ensure that the check ID is passed, not the check name.", id)}
}

// ttlBeat is PUT /v1/agent/check/update. The caller holds mu.
func (a *Agent) ttlBeat(c *localCheck, status, output string) error {
	if c.ttl == 0 {
		return &httpError{http.StatusInternalServerError, fmt.Sprintf("CheckID %q does not have associated TTL", c.CheckID)}
	}
	c.expiry.Reset(c.ttl)
	c.last = output
	c.beat = beat{status, output, time.Now().Add(c.ttl)}
	a.update(c, status, output)
	return nil
}

// update takes over a check's new result. A changed status goes to the catalog
// at once, a changed output alone some minutes later.
func (a *Agent) update(c *localCheck, status, output string) {
	switch {
	case status != api.HealthCritical:
		c.criticalSince = time.Time{}
	case c.criticalSince.IsZero():
		c.criticalSince = time.Now()
		a.watchCritical(c)
	}
	if c.Status == status && c.Output == output {
		return
	}
	c.Output = output
	if c.Status == status {
		if c.deferred == nil {
			wait := checkUpdateInterval/2 + time.Duration(a.jitter.Int64N(int64(checkUpdateInterval)))
			c.deferred = time.AfterFunc(wait, func() {
				a.mu.Lock()
				defer a.mu.Unlock()
				c.deferred = nil
				if a.closed || a.local.checks[c.CheckID] != c || c.deleted {
					return
				}
				c.inSync = false
				a.sync()
			})
		}
		return
	}
	c.Status = status
	c.inSync = false
	a.sync()
}

// watchCritical looks at the check whenever Consul does, until its service is
// reaped or the check recovers.
func (a *Agent) watchCritical(c *localCheck) {
	if c.reapAfter == 0 {
		return
	}
	next := reapInterval - time.Since(a.started)%reapInterval
	if c.reaper != nil {
		c.reaper.Stop()
	}
	c.reaper = time.AfterFunc(next, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.closed || a.local.checks[c.CheckID] != c || c.deleted || c.criticalSince.IsZero() {
			return
		}
		if time.Since(c.criticalSince) > c.reapAfter {
			a.remove(c.ServiceID)
			return
		}
		a.watchCritical(c)
	})
}

const (
	nodeMaintenance    = "_node_maintenance"
	serviceMaintenance = "_service_maintenance:"
)

// maintain puts the service, or the node if s is nil, into maintenance or ends
// it.
func (a *Agent) maintain(s *localService, enable bool, reason, token string) {
	c := &localCheck{token: token, HealthCheck: api.HealthCheck{
		Node: a.name, CheckID: nodeMaintenance, Name: "Node Maintenance Mode", Status: api.HealthCritical,
		Notes: reason, Type: "maintenance", ServiceTags: []string{},
	}}
	kind := "node"
	if s != nil {
		kind = "service"
		c.CheckID = serviceMaintenance + s.ID
		c.Name = "Service Maintenance Mode"
		c.ServiceID, c.ServiceName, c.ServiceTags = s.ID, s.Service, s.Tags
	}
	if reason == "" {
		c.Notes = "Maintenance mode is enabled for this " + kind + ", but no reason was provided. This is a default message."
	}
	old := a.local.checks[c.CheckID]
	there := old != nil && !old.deleted
	switch {
	case enable && !there:
		a.putCheck(c)
	case !enable && there:
		a.dropCheck(old)
	}
	a.sync()
}
