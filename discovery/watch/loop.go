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

	index     uint64               // of the last answer believed; 0: begin anew
	set       []catalog.Instance   // as published, sorted
	known     bool                 // a set was published
	changed   time.Time            // when it came to be
	shown     map[catalog.Key]bool // which of the set filtered answers have shown; nil: the last answer was whole
	refused   map[string]string    // what is wrong with the entries that can't be used, by node and ID
	proven    time.Time
	stale     bool      // the set is older than StaleFor, and readers were told
	lost      time.Time // when the trouble began; zero: none
	ahead     uint64    // our index when an audit last found Consul's above it
	highest   uint64    // index of the last answer believed, whatever failed since
	regressed bool      // Consul's index was below that once
	fresh     time.Time // until when Consul may still be reading its log, for all we know; zero: not at all
	disk      bool      // the set is from disk, and Consul has not answered so far
	read      bool      // the disk was asked, or need not be
	saved     time.Time // the proof that the store was given last
	scanned   time.Time // when the last scan began
	auditAt   time.Time // when the next audit is to begin, if nothing calls for a scan before
	backoff   consul.Backoff
	pace      pace
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

	defer func() {
		reason := catalog.ErrClosed
		if errors.Is(context.Cause(ctx), errForgotten) {
			reason = errForgotten
		}
		cancel()
		queries.Wait()
		f.stop(nil)
		l.save(l.proven.After(l.saved))
		f.feed.Close(reason)
		if reason == errForgotten {
			w.cfg.Trace.forgot(f.service)
		}
	}()

	current := fetch
	restart := begin(current, 0)
	auditing := false
	l.auditAt = time.Now().Add(w.auditAfter())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(l.due()))
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
			if !now.Before(l.nextAudit()) {
				k := l.auditKind(now)
				if l.auditAt = now.Add(w.auditAfter()); k == scan {
					l.scanned = now
				}
				if !auditing {
					auditing = true
					queries.Go(func() { audits <- w.ask(ctx, f.service, k, 0) })
				}
			}
			if l.silent(now) {
				l.recall(now)
			}
			l.tellStale(now)
			if !now.Before(w.idleAt(f)) && w.forget(f) {
				f.stop(errForgotten)
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

// auditAfter is a little more than Config.AuditEvery in the mean, and a quarter
// more at most: together with its blocking queries an idle watch asks less than
// eight times a minute.
func (w *Watcher) auditAfter() time.Duration {
	return w.cfg.AuditEvery*7/8 + rand.N(w.cfg.AuditEvery*3/8+1)
}

// scanEvery is the least time between two scans: what goes missing meanwhile is
// given up together.
const scanEvery = 5 * time.Second

// nextAudit returns when Consul is to be asked whether what is known still
// holds: from time to time, and when the time of a missing instance is over.
func (l *loop) nextAudit() time.Time {
	next := l.auditAt
	again := l.scanned.Add(min(scanEvery, l.w.cfg.AuditEvery/2))
	for _, i := range l.set {
		if !i.MissingUntil.After(l.scanned) {
			continue
		}
		due := i.MissingUntil
		if due.Before(again) {
			due = again
		}
		if due.Before(next) {
			next = due
		}
	}
	return next
}

// auditKind is scan if a missing instance may be given up: its time is over.
func (l *loop) auditKind(now time.Time) kind {
	for _, i := range l.set {
		if i.Missing() && !now.Before(i.MissingUntil) {
			return scan
		}
	}
	return audit
}

// due returns when the loop has something to do next, if no answer comes.
func (l *loop) due() time.Time {
	due := l.nextAudit()
	earlier := func(t time.Time) {
		if t.Before(due) {
			due = t
		}
	}
	if !l.pinned.Load() {
		earlier(l.w.idleAt(l.follower))
	}
	if l.w.cfg.StaleFor > 0 && l.known && !l.stale {
		earlier(l.staleAt())
	}
	if l.w.store != nil && !l.read {
		earlier(l.began.Add(diskAfter))
	}
	return due
}
