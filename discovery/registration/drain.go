package registration

import (
	"context"
	"fmt"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// beginDrain makes draining the word from now on, to be told at once, whatever
// went on before.
func (l *life) beginDrain() {
	l.draining = true
	l.enter(StateDraining, "asked to")
	l.agent, l.lookup = backoff{}, backoff{}
	l.beatAt, l.lookAt, l.looks = time.Now(), time.Now(), 0
}

// beginSettle starts the wait for others to see what we have seen: that we are
// draining. Only the first time counts, and not when the drain was given up.
func (l *life) beginSettle() {
	if !l.drainBy.Stop() {
		return
	}
	l.enter(StateDraining, "seen in the catalog")
	now := time.Now()
	l.arrivals = l.arrived()
	l.settleAt, l.settleEnd = now.Add(l.cfg.Settle), now.Add(l.cfg.SettleMax)
}

// settling reports whether that wait is on. Meanwhile nothing is read or mended,
// and a beat gets no longer than the wait: Consul must not hold it up.
func (l *life) settling() bool { return !l.settleAt.IsZero() }

// settle ends the drain when no request has arrived for a settle time.
func (l *life) settle(now time.Time) {
	if now.Before(l.settleAt) {
		return
	}
	if arrived := l.arrived(); arrived != l.arrivals && now.Before(l.settleEnd) {
		l.arrivals = arrived
		l.settleAt = earlier(now.Add(l.cfg.Settle), l.settleEnd)
		return
	}
	l.settleAt = time.Time{}
	l.endDrain()
}

func (l *life) arrived() uint64 {
	if l.cfg.Arrivals == nil {
		return 0
	}
	return l.cfg.Arrivals()
}

// leave deregisters what may be there, and tries again until ctx ends. No other
// call can be in flight, so nothing brings the entry back.
func (l *life) leave(ctx context.Context) {
	if !l.mayExist {
		l.enter(StateGone, "was never registered")
		return
	}
	if err := l.deregisterUntil(ctx); err != nil {
		l.closed = fmt.Errorf("deregister %s: %w", l.cfg.ID, err)
		l.enter(StateGone, "left without deregistering: "+err.Error())
		return
	}
	l.enter(StateGone, "deregistered")
}

func (l *life) deregisterUntil(ctx context.Context) error {
	var wait consul.Backoff
	for {
		err := l.deregister(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(wait.Next(err))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
