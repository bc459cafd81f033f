package watch

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// errRestart is the cause with which a blocking query is cancelled that waits
// for what won't come.
var errRestart = errors.New("begin anew")

// loop is what the goroutine that follows a service knows. Nobody else touches
// it.
type loop struct {
	*follower
	w *Watcher

	index   uint64             // of the last answer believed; 0: begin anew
	set     []catalog.Instance // as published, sorted
	known   bool               // a set was published
	changed time.Time          // when it came to be
	refused map[string]string  // what is wrong with the entries that can't be used, by node and ID
	proven  time.Time
	stale   bool      // the set is older than StaleFor, and readers were told
	lost    time.Time // when the trouble began; zero: none
	ahead   uint64    // our index when an audit last found Consul's above it
	backoff consul.Backoff
	pace    pace
}

// run follows one service until ctx ends or nobody asks for it any more. One
// query is in flight or waits for its time, always, and beside it at most one
// audit.
func (w *Watcher) run(ctx context.Context, f *follower) {
	l := &loop{follower: f, w: w}
	var queries sync.WaitGroup
	answers, audits := make(chan answer, 1), make(chan answer, 1)
	ctx, cancel := context.WithCancel(ctx)

	begin := func(k kind, delay time.Duration) (restart context.CancelCauseFunc) {
		index := l.index
		ctx, restart := context.WithCancelCause(ctx)
		queries.Go(func() {
			a := answer{kind: k, err: pause(ctx, delay)}
			if a.err == nil {
				a = w.ask(ctx, f.service, k, index)
			}
			if a.err != nil && errors.Is(context.Cause(ctx), errRestart) {
				a.err = errRestart
			}
			restart(nil)
			answers <- a
		})
		return restart
	}

	reason := catalog.ErrClosed
	defer func() {
		cancel()
		queries.Wait()
		f.feed.Close(reason)
	}()

	current := fetch
	restart := begin(current, 0)
	auditing, auditAt := false, time.Now().Add(w.auditAfter())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(l.due(auditAt)))
		select {
		case <-ctx.Done():
			return
		case a := <-answers:
			if ctx.Err() != nil {
				return
			}
			var delay time.Duration
			current, delay = l.judge(a)
			restart = begin(current, delay)
		case a := <-audits:
			if ctx.Err() != nil {
				return
			}
			auditing = false
			if l.audited(a) && current == block {
				restart(errRestart)
			}
		case <-timer.C:
			now := time.Now()
			if !now.Before(auditAt) {
				auditAt = now.Add(w.auditAfter())
				if !auditing {
					auditing = true
					queries.Go(func() { audits <- w.ask(ctx, f.service, audit, 0) })
				}
			}
			l.expire(now)
			l.tellStale(now)
			if !now.Before(w.idleAt(f)) && w.forget(f) {
				reason = errForgotten
				w.cfg.Trace.forgot(f.service)
				return
			}
		}
	}
}

// pause waits, or returns why it can't.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *Watcher) auditAfter() time.Duration {
	return w.cfg.AuditEvery*3/4 + rand.N(w.cfg.AuditEvery/2+1)
}

// due returns when the loop has something to do next, if no answer comes.
func (l *loop) due(auditAt time.Time) time.Time {
	due := auditAt
	earlier := func(t time.Time) {
		if t.Before(due) {
			due = t
		}
	}
	if !l.pinned.Load() {
		earlier(l.w.idleAt(l.follower))
	}
	for _, i := range l.set {
		if i.Missing() {
			earlier(i.MissingUntil)
		}
	}
	if l.w.cfg.StaleFor > 0 && l.known && !l.stale {
		earlier(l.staleAt())
	}
	return due
}
