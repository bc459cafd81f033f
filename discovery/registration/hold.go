package registration

import (
	"context"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

const (
	// holdWait is how long the agent may hold our question without news.
	holdWait = 30 * time.Second
	// holdLimit adds the sixteenth that Consul may add, and slack
	// (https://developer.hashicorp.com/consul/api-docs/features/blocking).
	holdLimit = holdWait + holdWait/16 + 5*time.Second
	// holdSpacing is the least time between two answers that say the same: what
	// stands between us and Consul may answer at once, for ever.
	holdSpacing = time.Second
)

// question is the one about our own entry that is kept open at the agent.
type question struct {
	open    bool
	end     context.CancelFunc
	answers chan heldAnswer // holds one
	hash    string          // of the entry as we know it; empty: not known
	wait    backoff         // until when no other is asked
}

// heldAnswer is what came of it.
type heldAnswer struct {
	entry *api.AgentService
	hash  string
	asked time.Time
	err   error
}

// hold keeps a question about our own entry open at the agent, which answers it
// when the entry changes or goes: so an operator's deregister is seen at once, and
// an agent that goes away too, by the connection that breaks. The agent answers
// from its own memory, by a hash of the entry; what the servers lost it does not
// see. The question is open only while the entry is in view.
func (l *life) hold(ctx context.Context) {
	if !l.watching() {
		l.letGo()
		return
	}
	if l.own.open || time.Now().Before(l.own.wait.until) {
		return
	}
	l.own.open = true
	ctx, l.own.end = context.WithTimeout(ctx, holdLimit)
	hash := l.own.hash // without one the answer comes at once
	go func() {
		a := heldAnswer{asked: time.Now()}
		q := (&api.QueryOptions{WaitHash: hash, WaitTime: holdWait}).WithContext(ctx)
		entry, meta, err := l.cfg.Client.Agent().Service(l.cfg.ID, q)
		if a.entry, a.err = entry, consul.Clip(err); err == nil {
			a.hash = meta.LastContentHash
		}
		l.own.answers <- a
	}()
}

// letGo ends the question and waits for its goroutine. What it may have heard
// counts for nothing.
func (l *life) letGo() {
	if l.own.open {
		l.own.end()
		<-l.own.answers
	}
	l.own = question{answers: l.own.answers, wait: l.own.wait}
}

// heard judges the answer of the question. One that failed says nothing about the
// entry, but that we had better look.
func (l *life) heard(a heldAnswer) {
	l.own.end()
	l.own.open = false
	gone := consul.StatusCode(a.err) == http.StatusNotFound
	if f := l.cfg.Trace.Attempted; f != nil {
		f(l.cfg.Service, l.cfg.ID, opHold, orUnknown(a.err))
	}
	switch {
	case !l.watching():
	case gone:
		l.vanished("the agent does not know the entry any more")
	case a.err != nil:
		l.own.hash = ""
		l.own.wait.failed(a.err)
		l.doubt()
	default:
		l.own.wait = backoff{}
		if wrong := l.differs(a.entry); wrong != "" {
			l.vanished("the agent has " + wrong)
			return
		}
		if now := time.Now(); a.hash == l.own.hash && now.Sub(a.asked) < holdSpacing {
			l.own.wait.until = now.Add(holdSpacing)
		}
		l.own.hash = a.hash
	}
}
