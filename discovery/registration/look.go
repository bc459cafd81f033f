package registration

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// Answers without our entry that are no proof that it is gone.
var (
	errFiltered = errors.New("the token may not read the service, so Consul left it out of its answer")
	errUnknown  = errors.New("the service's instances are not known to Consul yet")
)

// believable is nil if an answer without any entry means what it says. The true
// index of a catalog is above 1, since the servers are in it themselves.
func believable(meta *api.QueryMeta) error {
	switch {
	case meta.ResultsFilteredByACLs:
		return errFiltered
	case meta.LastIndex <= 1:
		return errUnknown
	}
	return nil
}

// look reads the entry where others do: in the catalog, from the leader, not
// cached. It comes when there is reason to (something was written, Consul answers
// again, Look was called), and every Config.Look besides. The filter keeps the answer's size constant, whatever the service's.
func (l *life) look(ctx context.Context) {
	if l.cfg.moved(l.host) {
		l.vanished("the address " + l.host + " is not the machine's any more")
		return
	}
	var (
		entries []*api.ServiceEntry
		meta    *api.QueryMeta
	)
	err := l.call(ctx, opLook, func(q *api.QueryOptions) (err error) {
		q.Filter = "Service.ID == " + strconv.Quote(l.cfg.ID)
		entries, meta, err = consul.Instances(l.cfg.Client, l.cfg.Service, q)
		return err
	})
	if err == nil && len(entries) == 0 {
		err = believable(meta)
	}
	if err != nil {
		l.lookFailed(err)
		return
	}
	l.agent, l.lookup = backoff{}, backoff{}
	l.lookedAt = time.Now()
	check, wrong := l.find(entries)
	if wrong != "" {
		l.notInView(wrong)
		return
	}
	if !l.inView {
		l.inView = true
		l.pulseAt = time.Now().Add(jitter(l.cfg.Pulse))
	}
	l.warned = false
	l.enter(StateRegistered, "seen in the catalog")
	select {
	case <-l.seen:
	default:
		close(l.seen)
	}
	arrived := check.Status == l.told.status
	switch {
	case l.draining && check.Status == api.HealthCritical:
		l.beginSettle()
	case !arrived && l.looks > 0:
		// It had time to arrive: the TTL ran out, or the word got lost.
		l.beatAt = time.Now()
	}
	if arrived {
		l.looks = 0
		l.lookAt = time.Now().Add(jitter(l.cfg.Look))
		return
	}
	l.lookAt = time.Now().Add(l.lookSoon())
}

// find returns the TTL check of our entry among those with its ID, or what is
// wrong. Another node may hold an old entry with the same ID.
func (l *life) find(entries []*api.ServiceEntry) (rollcall *api.HealthCheck, wrong string) {
	wrong = "the entry is not in the catalog"
	for _, e := range entries {
		if e.Service == nil || l.node != "" && e.Node != nil && e.Node.Node != l.node {
			continue
		}
		if other := l.differs(e.Service); other != "" {
			wrong = "the catalog has " + other
			continue
		}
		var probe *api.HealthCheck
		for _, c := range e.Checks {
			switch c.CheckID {
			case rollcallCheck(l.cfg.ID):
				rollcall = c
			case probeCheck(l.cfg.ID):
				probe = c
			}
		}
		if rollcall == nil {
			wrong = "the catalog has the entry without its TTL check"
			continue
		}
		if probe == nil && l.cfg.Probe != "" {
			wrong = "the catalog has the entry without its HTTP check"
			continue
		}
		l.warnOfNode(e.Node)
		return rollcall, ""
	}
	return nil, wrong
}

// notInView judges a look in vain: what was seen before has vanished; what was
// just written gets time to arrive.
func (l *life) notInView(wrong string) {
	if l.inView || time.Since(l.writtenAt) > unseenAfter {
		l.vanished(wrong)
		return
	}
	l.enter(StateAdrift, wrong)
	l.lookAt = time.Now().Add(l.lookSoon())
}

// lookSoon returns how long to wait before the next look at what was written.
func (l *life) lookSoon() time.Duration {
	wait := min(lookSlowest, lookSoonest<<min(l.looks, 10))
	l.looks++
	return wait
}

// lookFailed tells two troubles apart: an agent that does not answer, which a
// beat finds out best, and an agent that can't read the catalog now.
func (l *life) lookFailed(err error) {
	if errors.Is(err, context.Canceled) {
		return // Drain or Close cut it short
	}
	if consul.Unreachable(err) {
		l.beatAt = time.Now()
		l.agentFailed(err)
	}
	l.unsure = true
	l.lookup.failed(err)
	l.trouble(err, l.lookup.failures)
}
