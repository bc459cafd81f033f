package watch

import (
	"context"
	"errors"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// loop follows one service. It belongs to one goroutine, and what it knows is in
// parts: what is asked, what is in use, what is known of its truth, what is on
// disk, when to audit, and where the watch stands in Consul's history.
type loop struct {
	*follower
	w        *Watcher
	queries  queries
	inUse    inUse
	standing standing
	disk     disk
	audits   audits
	history  history
	filtered *answer // waits for an unfiltered one, to be compared with
	hold     hold
	backoff  consul.Backoff
	pace     pace
}

func newLoop(w *Watcher, f *follower) *loop {
	return &loop{
		follower: f, w: w,
		queries:  newQueries(w, f.service),
		inUse:    inUse{service: f.service, feed: f.feed, cfg: &w.cfg},
		standing: standing{follower: f, cfg: &w.cfg},
		disk:     disk{store: w.store},
		audits:   audits{every: w.cfg.AuditEvery},
	}
}

// run follows one service until ctx ends.
func (w *Watcher) run(ctx context.Context, f *follower) {
	l := newLoop(w, f)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		l.queries.running.Wait()
		l.end(context.Cause(ctx))
	}()
	l.audits.plan(time.Now())
	l.queries.begin(ctx, step{kind: fetch}, 0, 0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(l.due()))
		select {
		case <-ctx.Done():
			return
		case a := <-l.queries.answers:
			if ctx.Err() != nil {
				return
			}
			next := l.judge(a)
			l.queries.begin(ctx, next, l.history.index, l.hold.Longest(time.Now()))
		case a := <-l.queries.audits:
			if ctx.Err() != nil {
				return
			}
			l.queries.auditing = false
			if l.audited(a) {
				l.queries.restart()
			}
		case <-timer.C:
			l.tick(ctx, time.Now())
		}
	}
}

// due returns when the loop has something to do next, if no answer comes.
func (l *loop) due() time.Time {
	due := l.audits.due(l.inUse.set)
	for _, at := range []time.Time{l.idleAt(), l.standing.tellAt(l.inUse.known()), l.disk.due(l.began)} {
		if !at.IsZero() && at.Before(due) {
			due = at
		}
	}
	return due
}

// tick does what is due.
func (l *loop) tick(ctx context.Context, now time.Time) {
	if !now.Before(l.audits.due(l.inUse.set)) {
		l.queries.audit(ctx, l.audits.take(now, l.inUse.set))
	}
	if at := l.disk.due(l.began); !at.IsZero() && !now.Before(at) {
		l.recall(now)
	}
	if at := l.standing.tellAt(l.inUse.known()); !at.IsZero() && !now.Before(at) {
		l.inUse.again()
		l.standing.tellStale(len(l.inUse.set))
	}
	if at := l.idleAt(); !at.IsZero() && !now.Before(at) {
		l.w.forget(l.follower)
	}
}

// idleAt returns when the service will have been out of use for too long; zero if
// that doesn't matter.
func (l *loop) idleAt() time.Time {
	if l.pinned.Load() {
		return time.Time{}
	}
	return l.w.idleAt(l.follower)
}

// end closes what readers see.
func (l *loop) end(cause error) {
	l.stop(nil) // releases its context
	l.save(l.standing.proven.After(l.disk.saved))
	if !errors.Is(cause, errForgotten) {
		l.feed.Close(catalog.ErrClosed)
		return
	}
	l.feed.Close(errForgotten)
	l.w.cfg.Trace.forgot(l.service)
}
