package registration

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// What the heartbeat check says. The outputs are constant: a heartbeat that
// changes nothing wakes no watcher. Watchers know a draining instance by the word
// in front.
const (
	servingOutput  = "serving"
	drainingOutput = "draining: the instance is leaving and takes no new requests"
	notReadyPrefix = "not ready: "

	// maxReasonBytes of Ready's error are told to Consul.
	maxReasonBytes = 512
)

// word is what the heartbeat check says, or is to say.
type word struct{ status, output string }

// word asks Ready what the check should say now.
func (l *life) word(ctx context.Context) word {
	if l.draining {
		return word{api.HealthCritical, drainingOutput}
	}
	not, err := l.ready.ask(ctx.Done(), callbackLimit)
	if err == nil {
		err = not
	}
	if err == nil {
		return word{api.HealthPassing, servingOutput}
	}
	return word{api.HealthCritical, notReadyPrefix + clip.To(maxReasonBytes-len("…"), strings.ToValidUTF8(err.Error(), "?"))}
}

// beat tells the heartbeat check's word.
func (l *life) beat(reads, writes context.Context) {
	if l.cfg.moved(l.written.entry.Address) {
		l.vanished("the address " + l.written.entry.Address + " is not the machine's any more")
		return
	}
	say := l.word(reads)
	if !l.draining && reads.Err() != nil {
		return // Drain or Close: think again
	}
	if say.status != l.told.status {
		// Not a mere repetition: is the entry still ours?
		if own, err := l.readOwn(writes); err == nil && own.other {
			_ = l.yield(own)
			return
		}
	}
	err := l.update(writes, say)
	l.beaten(err)
	if err == nil && len(l.nodes) > 1 {
		l.tidy(reads)
	}
}

// tidy looks for the agents of other nodes that the entry was written to, over a new
// connection, and deregisters it there.
func (l *life) tidy(ctx context.Context) {
	l.agent.cfg.CloseIdle()
	node, _, err := l.agent.identify(ctx)
	if err != nil || !l.nodes[node] || node == l.agent.homeNode() {
		return
	}
	if _, err := l.leaveAgent(ctx); err == nil {
		delete(l.nodes, node)
	}
}

// briefly is how long a heartbeat may take that nothing must wait for.
const briefly = 500 * time.Millisecond

// beatBriefly is beat within the settle time, which Consul must not hold up, and while
// Consul has no leader: it may hold a heartbeat for seconds after the election.
func (l *life) beatBriefly(reads, writes context.Context) {
	by := time.Now().Add(briefly)
	if l.settling() {
		by = earlier(by, l.settleAt)
	}
	ctx, cancel := context.WithDeadline(writes, by)
	defer cancel()
	l.beat(reads, ctx)
}

// beaten judges a heartbeat. One whose check is unknown to the agent is repeated
// when it is known which agent answers: there may be several.
func (l *life) beaten(err error) {
	switch {
	case err == nil:
		l.retry, l.doubted = backoff{}, time.Time{}
		l.agent.homeAnswered()
	case unknownCheck(err) && l.agent.isSeveral():
		// Another agent's answer; what ours lost shows in the catalog.
		l.agent.cfg.CloseIdle()
		l.retry.failed(ErrSeveralAgents)
	case unknownCheck(err):
		l.retry = backoff{}
		if !l.doubted.IsZero() && l.agent.sight().met.After(l.doubted) {
			l.vanished("its heartbeat check is unknown to the agent")
			return
		}
		l.doubted = time.Now()
		l.beatAt = l.doubted.Add(time.Second)
		l.agent.Look()
	default:
		l.failed(err)
	}
}

// unknownCheck reports whether the agent says that it has no such TTL check.
func unknownCheck(err error) bool {
	if consul.Unknown(err) {
		return true
	}
	status, ok := errors.AsType[api.StatusError](err)
	return ok && status.Code != http.StatusForbidden && strings.Contains(status.Body, "does not have associated TTL")
}

// update writes the heartbeat check's word, and notes the token that went with it.
func (l *life) update(ctx context.Context, say word) error {
	if l.cfg.NoHeartbeat && !l.draining {
		say = word{api.HealthPassing, servingOutput} // which nobody is told
	}
	var token string
	err := l.call(withToken(ctx, &token), opHeartbeat, func(q *api.QueryOptions) error { return l.tell(say, q) })
	if err != nil {
		return err
	}
	now := time.Now()
	if say.status != l.told.status {
		l.heard = false // it is to arrive
	}
	if !l.heard {
		l.toldAt = now
		l.agent.hurry()
	}
	l.told = say
	l.beatAt = now.Add(l.cfg.HeartbeatInterval)
	l.token = token
	return nil
}

// tell tells the agent the word. Where there is no heartbeat, it asks whether the
// agent has the entry; a drain adds the check that says it.
func (l *life) tell(say word, q *api.QueryOptions) error {
	if l.cfg.NoHeartbeat && !l.draining {
		_, _, err := consul.Service(l.cfg.Client, l.cfg.ID, q)
		return err
	}
	agent := l.cfg.Client.Agent()
	update := func() error { return agent.UpdateTTLOpts(heartbeatCheck(l.cfg.ID), say.output, say.status, q) }
	err := update()
	if !l.cfg.NoHeartbeat || !consul.Unknown(err) {
		return err
	}
	beat := l.cfg.heartbeat(api.HealthWarning) // a change of status arrives at once: see entry
	id, name := beat.CheckID, beat.Name
	beat.CheckID, beat.Name = "", ""
	err = agent.CheckRegisterOpts(&api.AgentCheckRegistration{
		ID: id, Name: name, Notes: l.agent.notes(), ServiceID: l.cfg.ID, AgentServiceCheck: *beat,
	}, q)
	if err != nil {
		return err
	}
	return update()
}
