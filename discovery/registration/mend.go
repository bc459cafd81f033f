package registration

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// failuresBeforeCritical is how many runs of the HTTP check in a row must fail.
const failuresBeforeCritical = 2

// The IDs of the two checks.
func rollcallCheck(id string) string { return id + ":rollcall" }
func probeCheck(id string) string    { return id + ":probe" }

// mend writes the entry: what is there under our ID is deregistered first, since
// registering the same thing again repairs nothing behind a client agent, and
// replace-existing-checks would end an operator's maintenance mode.
func (l *life) mend(reads, writes context.Context, want word) {
	switch err := l.rewrite(reads, writes, want); {
	case errors.Is(err, errRival):
		l.enter(StateAdrift, err.Error())
		return
	case err != nil:
		l.agentFailed(err)
		return
	}
	l.agentAnswered()
	l.written, l.inView = true, false
	l.lookAt, l.looks = time.Now().Add(lookSoonest), 0
}

func (l *life) rewrite(reads, writes context.Context, want word) error {
	host, err := l.cfg.findHost(reads)
	if err != nil {
		return err
	}
	there, err := l.readOwn(reads, host)
	if err != nil {
		return err
	}
	if !l.mayExist {
		l.lookForDoubles(reads, host)
	}
	if there {
		if err := l.deregister(writes); err != nil {
			return err
		}
	}
	if err := reads.Err(); err != nil {
		return err // Drain or Close: think again
	}
	l.mayExist, l.host, l.node, l.told = true, host, "", word{}
	l.writtenAt = time.Now()
	entry := l.cfg.entry(host, want, l.maintenance != nil)
	err = l.call(writes, opRegister, func(q *api.QueryOptions) error { //nolint:contextcheck // q carries the context
		return l.cfg.Client.Agent().ServiceRegisterOpts(entry, api.ServiceRegisterOpts{}.WithContext(q.Context()))
	})
	if err != nil {
		return err
	}
	if l.maintenance != nil {
		err = l.call(writes, opRegister, func(q *api.QueryOptions) error {
			return l.cfg.Client.Agent().EnableServiceMaintenanceOpts(l.cfg.ID, *l.maintenance, q)
		})
		if err != nil {
			return err
		}
		l.maintenance = nil
	}
	if err := l.update(writes, want); err != nil {
		return err
	}
	if checks, err := l.ownChecks(reads); err == nil { // else any node will do
		for _, c := range checks {
			l.node = c.Node
		}
	}
	return nil
}

// readOwn reads what the agent holds under our ID, and reports whether there is
// an entry. A maintenance mode of it is to be put back (that of the node is the
// node's own check, and stays by itself). It is kept until then: when the next
// step fails, the agent knows of it no more.
func (l *life) readOwn(ctx context.Context, host string) (there bool, err error) {
	checks, err := l.ownChecks(ctx)
	if err != nil {
		return false, err
	}
	passing := true
	for _, c := range checks {
		if c.CheckID == api.ServiceMaintPrefix+l.cfg.ID {
			l.maintenance = &c.Notes
		}
		passing = passing && c.Status == api.HealthPassing
	}
	var entry *api.AgentService
	err = l.call(ctx, opLook, func(q *api.QueryOptions) (err error) {
		entry, _, err = l.cfg.Client.Agent().Service(l.cfg.ID, q)
		return orUnknown(err)
	})
	if err != nil || entry == nil {
		return false, err
	}
	if entry.Port != l.cfg.Port || entry.Address != host && entry.Address != l.host {
		if err := l.takeOver(entry, host, passing); err != nil {
			return true, err
		}
	}
	return true, nil
}

// ownChecks returns the agent's own checks of our entry.
func (l *life) ownChecks(ctx context.Context) (checks map[string]*api.AgentCheck, err error) {
	err = l.call(ctx, opLook, func(q *api.QueryOptions) (err error) {
		checks, err = l.cfg.Client.Agent().ChecksWithFilterOpts("ServiceID == "+strconv.Quote(l.cfg.ID), q)
		return err
	})
	return checks, err
}

// lookForDoubles is for a warning only, before the first registration.
func (l *life) lookForDoubles(ctx context.Context, host string) {
	var all map[string]*api.AgentService
	err := l.call(ctx, opLook, func(q *api.QueryOptions) (err error) {
		all, err = l.cfg.Client.Agent().ServicesWithFilterOpts("Address == "+strconv.Quote(host), q)
		return err
	})
	if err == nil {
		l.warnOfDoubles(all, host)
	}
}

// deregister removes the entry. That it is not there is as good.
func (l *life) deregister(ctx context.Context) error {
	return l.call(ctx, opDeregister, func(q *api.QueryOptions) error {
		return orUnknown(l.cfg.Client.Agent().ServiceDeregisterOpts(l.cfg.ID, q))
	})
}

// orUnknown is nil if the agent says that it does not know the ID.
func orUnknown(err error) error {
	if consul.StatusCode(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// entry is the registration. Until its first run an HTTP check leaves an instance
// critical, so both checks begin as what we know of ourselves; in maintenance both
// begin as critical, so that nobody finds the instance before the maintenance is
// put back.
//
// Consul passes a changed status on at once, a changed output alone only minutes
// later (its check_update_interval). So where the HTTP check keeps the entry
// critical, the TTL check begins as warning: then the word that follows, with the
// reason, arrives at once.
func (c Config) entry(host string, say word, maintenance bool) *api.AgentServiceRegistration {
	beat, probe := say.status, say.status
	if maintenance {
		beat, probe = api.HealthCritical, api.HealthCritical
	}
	if say.status == api.HealthCritical && c.Probe != "" {
		beat = api.HealthWarning
	}
	checks := api.AgentServiceChecks{{
		CheckID:                        rollcallCheck(c.ID),
		Name:                           "rollcall heartbeat",
		TTL:                            c.TTL.String(),
		Status:                         beat,
		DeregisterCriticalServiceAfter: c.DeregisterAfter.String(),
	}}
	if c.Probe != "" {
		checks = append(checks, &api.AgentServiceCheck{
			CheckID:                        probeCheck(c.ID),
			Name:                           "readiness " + c.Probe,
			HTTP:                           "http://" + net.JoinHostPort(host, strconv.Itoa(c.ProbePort)) + c.Probe,
			Interval:                       c.ProbeEvery.String(),
			Timeout:                        c.ProbeTimeout.String(),
			FailuresBeforeCritical:         failuresBeforeCritical,
			Status:                         probe,
			DeregisterCriticalServiceAfter: c.DeregisterAfter.String(),
		})
	}
	weights := c.weights()
	entry := &api.AgentServiceRegistration{
		ID:      c.ID,
		Name:    c.Service,
		Address: host,
		Port:    c.Port,
		Tags:    c.Tags,
		Meta:    c.Meta,
		Weights: &weights,
		Checks:  checks,
	}
	if c.Region != "" {
		entry.Locality = &api.Locality{Region: c.Region, Zone: c.Zone}
	}
	return entry
}
