package registration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// The keys of an entry's Meta by which a process knows its own: its nonce, and the
// number of the write. Consul's agent has no compare-and-set: between the look and
// the write there is a window of one exchange in which another process may write.
const (
	processKey = "rollcall-process"
	writeKey   = "rollcall-write"
)

// ErrIDTaken is the trouble, wrapped, of an instance whose ID another process has
// registered since. The one that registered last has the ID; the other waits until
// that entry is gone or its heartbeat has run out.
var ErrIDTaken = errors.New("another process has registered our ID: give each instance its own (Config.ID)")

// heartbeatName is the name in the heartbeat check's ID, by which watchers know it.
const heartbeatName = "rollcall"

// checkID is the ID of an entry's check.
func checkID(id, name string) string { return id + ":" + name }

func heartbeatCheck(id string) string { return checkID(id, heartbeatName) }

// found is what the agent holds under our ID.
type found struct {
	entry       *api.AgentService // nil: nothing
	ours, other bool              // of this process, or of another one
	passing     bool
	alive       bool    // its heartbeat has not run out; without one, it passes
	maintenance *string // the reason of an operator's
}

// readOwn reads what the agent holds under our ID.
func (l *life) readOwn(ctx context.Context) (own found, err error) {
	checks, err := l.ownChecks(ctx)
	if err != nil {
		return found{}, err
	}
	own.passing = true
	for _, c := range checks {
		if c.CheckID == api.ServiceMaintPrefix+l.cfg.ID {
			own.maintenance = &c.Notes
		}
		own.passing = own.passing && c.Status == api.HealthPassing
	}
	beat := checks[heartbeatCheck(l.cfg.ID)]
	own.alive = beat != nil && !strings.HasPrefix(beat.Output, "TTL expired") || beat == nil && own.passing
	err = l.call(ctx, opRead, func(q *api.QueryOptions) (err error) {
		own.entry, _, err = consul.Service(l.cfg.Client, l.cfg.ID, q)
		if consul.Unknown(err) {
			own.entry, err = nil, nil
		}
		return err
	})
	if own.entry != nil {
		process := own.entry.Meta[processKey]
		// One without a nonce was written by hand.
		own.ours, own.other = process == l.agent.process, process != l.agent.process && process != ""
	}
	return own, err
}

// ownChecks returns the agent's checks of the entry under our ID.
func (l *life) ownChecks(ctx context.Context) (checks map[string]*api.AgentCheck, err error) {
	err = l.call(ctx, opRead, func(q *api.QueryOptions) (err error) {
		checks, err = consul.Checks(l.cfg.Client, "ServiceID == "+strconv.Quote(l.cfg.ID), q)
		return err
	})
	return checks, err
}

// write writes the entry anew: what is there under our ID is deregistered first, since
// registering the same thing again repairs nothing behind a client agent, and
// replace-existing-checks would end an operator's maintenance mode.
func (l *life) write(reads, writes context.Context) { l.rewrite(reads, writes, false) }

// writeAnew writes the entry for want of proof that what was written has arrived.
func (l *life) writeAnew(reads, writes context.Context) {
	if l.shown && l.heard { // a new token, and all is well
		l.rewrite(reads, writes, true)
		return
	}
	why := "what was written is not in the catalog"
	if l.shown {
		why = "the heartbeat check was told " + strconv.Quote(l.told.status) + ", which is not in the catalog"
	}
	if !l.unproven {
		l.unproven = true
		l.cfg.Log.Warn("Consul took what was written, and the catalog does not show it: writing it anew",
			"service", l.cfg.Service, "id", l.cfg.ID, "why", why, "state", l.Status().Why)
	}
	l.enter(StateRecovering, why, errNotSeen)
	l.rewrite(reads, writes, false)
}

func (l *life) rewrite(reads, writes context.Context, over bool) {
	err := l.tryRewrite(reads, writes, over)
	switch {
	case err == nil:
		l.retry, l.warned = backoff{}, false
	case errors.Is(err, ErrIDTaken): // yield has said so, and when to look again
	default:
		l.failed(err)
	}
}

func (l *life) tryRewrite(reads, writes context.Context, over bool) error {
	s := l.agent.sight()
	host, err := l.cfg.findHost(reads, s)
	if err != nil {
		return err
	}
	own, err := l.readOwn(reads)
	if err != nil {
		return err
	}
	if err := l.claim(own, host); err != nil {
		return err
	}
	if !l.mayExist {
		l.lookForDoubles(reads, host)
	}
	say := l.word(reads)
	if own.entry != nil {
		// What ended while it was there has ended; what we take away is put back.
		l.maintenance = own.maintenance
		if over {
			l.maintenance = nil // stays by itself
		} else if err := l.deregister(writes); err != nil {
			return err
		}
	}
	if err := reads.Err(); err != nil {
		return err // Drain or Close: think again
	}
	if err := l.register(writes, host, say); err != nil {
		return err
	}
	if err := l.update(writes, say); err != nil {
		return err
	}
	return l.land(writes)
}

// land notes the node that the entry was written to. Where that is another than the
// process writes to, the entry is taken back.
func (l *life) land(ctx context.Context) error {
	checks, err := l.ownChecks(ctx)
	if err != nil {
		return nil // it is written, and the node is not news as a rule
	}
	for _, c := range checks {
		l.nodes[c.Node] = true
		if _, err := l.agent.atHome(c.Node); err != nil {
			l.written = nil
			_ = l.deregister(ctx) // tidy sees whether that reached it
			l.agent.cfg.CloseIdle()
			return err
		}
		poke(l.agent.learned)
	}
	return nil
}

// claim decides about an entry under our ID that is not ours. At the start it was
// most likely left by an earlier life, and is taken over. Later it is another
// process's, which has the ID for as long as it lives.
func (l *life) claim(own found, host string) error {
	if own.entry == nil || own.ours {
		l.taken = false
		return nil
	}
	if l.mayExist || l.taken {
		if own.other && own.alive {
			return l.yield(own)
		}
		l.taken = false
		return nil
	}
	if own.passing && (own.entry.Address != host || own.entry.DefaultPort() != l.cfg.Port) {
		l.cfg.Log.Warn("taking over an entry that passes at another address: is the ID unique?",
			"service", l.cfg.Service, "id", l.cfg.ID,
			"theirs", own.entry.Address, "their_port", own.entry.DefaultPort(), "ours", host, "our_port", l.cfg.Port)
	}
	return nil
}

// yield leaves the ID to another process that has registered it. The error is the
// trouble that this is.
func (l *life) yield(own found) error {
	if !l.taken {
		l.cfg.Log.Error("another process has registered our ID, and has it for as long as it lives: give each instance its own",
			"service", l.cfg.Service, "id", l.cfg.ID, "theirs", own.entry.Address, "their_port", own.entry.DefaultPort())
	}
	l.vanished("the ID is another process's")
	l.taken, l.mayExist = true, false
	l.writeAt = time.Now().Add(takenPause)
	clear(l.nodes)
	err := fmt.Errorf("%w; its entry is at %s port %d", ErrIDTaken, own.entry.Address, own.entry.DefaultPort())
	l.trouble(err)
	if l.draining {
		l.endDrain()
	}
	return err
}

func (l *life) register(ctx context.Context, host string, say word) error {
	entry := l.cfg.entry(host, say, l.maintenance != nil)
	entry.Meta[processKey], entry.Meta[writeKey] = l.agent.process, strconv.FormatInt(l.agent.writes.Add(1), 10)
	for _, c := range entry.Checks {
		c.Notes = l.agent.notes()
	}
	if l.tags != nil {
		entry.Tags = l.tags
	}
	w := &written{entry: entry}
	l.written, l.shown, l.heard = nil, false, false
	l.mayExist, l.told = true, word{}
	l.nodes[l.agent.sight().node] = true
	w.at = time.Now()
	l.writeAt = w.at.Add(mendPause)
	err := l.call(withToken(ctx, &w.token), opRegister, func(q *api.QueryOptions) error { //nolint:contextcheck // q carries the context
		return l.cfg.Client.Agent().ServiceRegisterOpts(entry, api.ServiceRegisterOpts{}.WithContext(q.Context()))
	})
	if err != nil {
		return err
	}
	if l.maintenance != nil {
		err = l.call(ctx, opRegister, func(q *api.QueryOptions) error {
			return l.cfg.Client.Agent().EnableServiceMaintenanceOpts(l.cfg.ID, *l.maintenance, q)
		})
		if err != nil {
			return err
		}
		l.maintenance = nil
	}
	l.written = w
	unreachable := l.cfg.reach(host, l.agent.sight())
	if unreachable != nil {
		l.cfg.Log.Warn("a loopback address is registered, which only this machine can reach: set registration.Config.Host",
			"service", l.cfg.Service, "id", l.cfg.ID, "err", unreachable)
	}
	return nil
}

// lookForDoubles warns of other entries at our address and port, before the first
// registration. We hold the port, so they were left by an earlier life with another
// ID, or this process registers twice. Their heartbeats end, and Consul removes
// them.
func (l *life) lookForDoubles(ctx context.Context, host string) {
	var all map[string]*api.AgentService
	err := l.call(ctx, opRead, func(q *api.QueryOptions) (err error) {
		all, err = consul.Services(l.cfg.Client, "Address == "+strconv.Quote(host), q)
		return err
	})
	if err != nil {
		return // it is for a warning only
	}
	for id, e := range all {
		if id != l.cfg.ID && e.Address == host && e.DefaultPort() == l.cfg.Port {
			l.cfg.Log.Warn("the agent has another entry at our address and port: one left by an earlier life goes by itself when its heartbeat has run out; else give each instance its own port",
				"service", l.cfg.Service, "id", l.cfg.ID, "their_service", e.Service, "their_id", id, "host", host, "port", l.cfg.Port)
		}
	}
}

// deregister removes the entry. That it is not there is as good.
func (l *life) deregister(ctx context.Context) error {
	return l.call(ctx, opDeregister, func(q *api.QueryOptions) error {
		err := l.cfg.Client.Agent().ServiceDeregisterOpts(l.cfg.ID, q)
		if consul.Unknown(err) {
			return nil
		}
		return err
	})
}

// entry is the registration. Until its first run a check of Consul's leaves an
// instance critical, so all checks begin as what we know of ourselves; in maintenance
// all begin as critical, so that the instance is not found before the maintenance is
// put back.
//
// Consul passes a changed status on at once, a changed output alone only minutes
// later (its check_update_interval). So where another check keeps the entry
// critical, the heartbeat check begins as warning: then the word that follows, with
// the reason, arrives at once.
func (c Config) entry(host string, say word, maintenance bool) *api.AgentServiceRegistration {
	status := say.status
	if maintenance {
		status = api.HealthCritical
	}
	var checks api.AgentServiceChecks
	if !c.NoHeartbeat || say.output == drainingOutput {
		beat := c.heartbeat(status)
		if say.status == api.HealthCritical && len(c.Checks) > 0 {
			beat.Status = api.HealthWarning
		}
		checks = append(checks, beat)
	}
	for _, k := range c.Checks {
		d := k.definition(host)
		d.CheckID, d.Status, d.DeregisterCriticalServiceAfter = checkID(c.ID, k.Name), status, c.deregisterAfter()
		checks = append(checks, d)
	}
	meta := map[string]string{}
	maps.Copy(meta, c.Meta)
	entry := &api.AgentServiceRegistration{
		ID:                c.ID,
		Name:              c.Service,
		Address:           host,
		Port:              c.Port,
		TaggedAddresses:   c.TaggedAddresses,
		Tags:              c.Tags,
		EnableTagOverride: c.EnableTagOverride,
		Meta:              meta,
		Weights:           &api.AgentWeights{Passing: c.Weight, Warning: c.WarningWeight},
		Checks:            checks,
	}
	if len(c.Ports) > 0 { // which Consul takes in place of Port
		entry.Port, entry.Ports = 0, api.ServicePorts{{Name: c.portName(), Port: c.Port, Default: true}}
		for _, name := range slices.Sorted(maps.Keys(c.Ports)) {
			entry.Ports = append(entry.Ports, api.ServicePort{Name: name, Port: c.Ports[name]})
		}
	}
	if c.Region != "" {
		entry.Locality = &api.Locality{Region: c.Region, Zone: c.Zone}
	}
	return entry
}

// heartbeat is our own check.
func (c Config) heartbeat(status string) *api.AgentServiceCheck {
	return &api.AgentServiceCheck{
		CheckID:                        heartbeatCheck(c.ID),
		Name:                           "rollcall heartbeat",
		TTL:                            c.TTL.String(),
		Status:                         status,
		DeregisterCriticalServiceAfter: c.deregisterAfter(),
	}
}

// deregisterAfter is how Consul wants DeregisterAfter; empty: never.
func (c Config) deregisterAfter() string {
	if c.DeregisterAfter < 0 {
		return ""
	}
	return c.DeregisterAfter.String()
}
