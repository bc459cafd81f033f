package registration

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// errNoLeader means that nothing can be written to the catalog or read from it.
var errNoLeader = errors.New("the cluster has no leader")

// askForLeader comes before registering and looking when Consul may just have
// started. Without a leader such calls wait inside of Consul, which tries again at
// growing intervals: seconds may pass after the election until it does, while
// this question is answered at once.
func (l *life) askForLeader(ctx context.Context) {
	if err := l.leader(ctx); err != nil {
		l.agentFailed(err)
		return
	}
	l.unsure = false // the back-off stays: what comes next may fail still
}

// leader is nil if the cluster has a leader.
func (l *life) leader(ctx context.Context) error {
	return l.call(ctx, opLook, func(q *api.QueryOptions) error {
		leader, err := l.cfg.Client.Status().LeaderWithQueryOptions(q)
		if err == nil && leader == "" {
			err = errNoLeader
		}
		return err
	})
}

// doubt has the entry looked up in the catalog as soon as there is a leader.
func (l *life) doubt() {
	l.unsure = true
	l.lookAt, l.lookup.until = later(time.Now(), l.lookedAt.Add(lookSpacing)), time.Time{}
}

// agentAnswered ends an outage of the agent: what it holds may be old or gone,
// so the entry is looked at at once.
func (l *life) agentAnswered() {
	if l.agent.failures == 0 {
		return
	}
	l.agent = backoff{}
	l.lookAt, l.lookup.until = time.Now(), time.Time{}
}

// agentFailed notes that the agent did not do what it was asked.
func (l *life) agentFailed(err error) {
	if errors.Is(err, context.Canceled) {
		return // Drain or Close cut it short
	}
	l.unsure = true
	l.agent.failed(err)
	l.trouble(err, l.agent.failures)
}

// trouble makes an outage known: once, and not for a single lost call.
func (l *life) trouble(err error, failures int) {
	why := "Consul refuses: "
	switch {
	case errors.Is(err, errNoLeader):
		why = "Consul is not ready: "
	case consul.Unreachable(err):
		why = "Consul does not answer: "
	}
	if failures < 2 && l.Status().State == StateRegistered {
		return
	}
	l.enter(StateAdrift, why+err.Error())
	if failures < 2 || l.warned {
		return
	}
	l.warned = true
	if consul.Denied(err) { // somebody has to do something
		l.cfg.Log.Error("Consul refuses our token, trying on; want one with service:write for the service and node:read",
			"service", l.cfg.Service, "id", l.cfg.ID, "err", err)
		return
	}
	l.cfg.Log.Warn("trouble with Consul, trying on", "service", l.cfg.Service, "id", l.cfg.ID, "err", err)
}

// backoff says when to try again after failures. The two kinds are counted apart:
// a Consul that was away for long and then refuses is asked again soon. One that
// is away is asked twice as often as consul.Backoff has it, within half a second
// at most, for everybody is to be back within a second of its return.
type backoff struct {
	away, refusing consul.Backoff
	failures       int // in a row
	until          time.Time
}

func (b *backoff) failed(err error) {
	b.failures++
	switch {
	case errors.Is(err, errNoLeader):
		b.hold(b.away.Next(context.DeadlineExceeded) / 2) // is over as suddenly as no connection
	case consul.Unreachable(err):
		b.hold(b.away.Next(err) / 2)
	default:
		b.hold(b.refusing.Next(err))
	}
}

func (b *backoff) hold(d time.Duration) { b.until = time.Now().Add(d) }
