package registration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/pause"
)

// absentWithin bounds the wait for the catalog to lack what has left.
const absentWithin = time.Second

// beginDrain makes draining the word from now on, to be told at once, whatever
// went on before.
func (l *life) beginDrain() {
	l.draining, l.stepAt = true, time.Now()
	l.enter(StateDraining, "asked to", nil)
	l.retry, l.beatAt, l.writeAt = backoff{}, time.Time{}, time.Time{}
	if !l.mayExist {
		l.endDrain() // no other can know the instance
	}
}

// beginSettle starts the wait for others to see what we have seen: that we are
// draining. Only the first time counts, and not when the drain was given up.
func (l *life) beginSettle() {
	if !l.drainBy.Stop() {
		return
	}
	l.enter(StateDraining, "seen in the catalog", nil)
	now := time.Now()
	l.left(stepSeen, l.stepAt)
	l.stepAt = now
	l.arrived = l.countArrivals()
	l.settleAt, l.settleEnd = now.Add(l.cfg.Settle), now.Add(l.cfg.SettleMax)
}

// settling reports whether that wait is on. Meanwhile nothing is written but
// heartbeats.
func (l *life) settling() bool { return !l.settleAt.IsZero() }

// settle ends the drain when no request has arrived for a settle time.
func (l *life) settle(context.Context, context.Context) {
	now := time.Now()
	if n := l.countArrivals(); n != l.arrived && now.Before(l.settleEnd) {
		l.arrived = n
		l.settleAt = earlier(now.Add(l.cfg.Settle), l.settleEnd)
		return
	}
	l.settleAt = time.Time{}
	l.left(stepSettled, l.stepAt)
	l.endDrain()
}

// countArrivals is what Arrivals says; where it says nothing, as many as before.
func (l *life) countArrivals() uint64 {
	if l.cfg.Arrivals == nil {
		return l.arrived
	}
	n, err := l.arrivals.ask(nil, min(l.cfg.Settle, callbackLimit))
	if err != nil {
		return l.arrived
	}
	return n
}

// leave deregisters what may be there, and tries again until ctx ends. No other
// call of this registration can be in flight, so nothing brings the entry back.
func (l *life) leave(ctx context.Context) {
	switch {
	case l.taken:
		l.enter(StateDeregistered, "its ID is another process's", nil)
		return
	case !l.mayExist:
		l.enter(StateDeregistered, "was never registered", nil)
		return
	}
	var wait backoff
	began := time.Now()
	for {
		err := l.leaveOnce(ctx)
		if err == nil {
			l.awaitAbsence(ctx)
			l.left(stepGone, began)
			l.enter(StateDeregistered, "deregistered", nil)
			return
		}
		wait.failed(err)
		if ctx.Err() != nil || pause.For(ctx, time.Until(wait.until), nil) != nil {
			l.closed = fmt.Errorf("deregister %s: %w", l.cfg.ID, err)
			l.enter(StateDeregistered, "left without deregistering: "+err.Error(), err)
			return
		}
	}
}

// awaitAbsence waits until the catalog lacks the entry, for as long as absentWithin.
// The agent answers a deregistration before it has told the servers: a Consul that is
// stopped in between comes back with an instance that is gone.
func (l *life) awaitAbsence(ctx context.Context) {
	l.agent.hurry()
	bound := time.NewTimer(absentWithin)
	defer bound.Stop()
	for {
		if s := l.agent.sight(); s.err != nil || s.entries[l.cfg.ID] == nil {
			return
		}
		select {
		case <-l.news:
		case <-bound.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// leaveOnce deregisters at the agent that answers, and returns an error while an
// entry may be at another.
func (l *life) leaveOnce(ctx context.Context) error {
	delete(l.nodes, "") // was written before the node was known, which is all that can be known
	left, err := l.leaveAgent(ctx)
	if err != nil {
		return err
	}
	if left && len(l.nodes) <= 1 {
		return nil // it was there, and nowhere else
	}
	node, _, err := l.agent.identify(ctx)
	if err != nil {
		return err
	}
	if node == "" {
		return nil // agents can't be told apart
	}
	if delete(l.nodes, node); len(l.nodes) == 0 {
		return nil
	}
	l.agent.cfg.CloseIdle()
	return fmt.Errorf("%w; the entry may still be at node %s", ErrSeveralAgents, strings.Join(slices.Sorted(maps.Keys(l.nodes)), ", "))
}

// leaveAgent deregisters the entry at the agent that answers, if it is there and ours.
func (l *life) leaveAgent(ctx context.Context) (left bool, err error) {
	own, err := l.readOwn(ctx)
	if err != nil || !own.ours {
		return false, err
	}
	return true, l.deregister(ctx)
}
