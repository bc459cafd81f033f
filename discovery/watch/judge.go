package watch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// The reasons for which an answer is not believed.
var (
	errNoLeader  = errors.New("not believed: Consul has no leader")
	errFiltered  = errors.New("not believed: Consul left out what our token may not read")
	errBlindfold = errors.New("not believed: an empty answer to a call without a token, where Consul's default is deny")
	errNotYet    = errors.New("not believed: an empty answer with index 1 means that Consul does not know yet")
	errBehind    = errors.New("not believed: the answer without the filter is older than the one with it")
	errNoContact = errors.New("not believed: the time since the server heard from its leader can't be read")
	errNoIndex   = errors.New("the answer has no index: Consul is asked again and again instead of waited for")
)

// history is where the watch stands in Consul's history.
type history struct {
	index   uint64    // of the last answer believed, to block on; 0: begin anew
	highest uint64    // of the last answer believed, whatever failed since
	fell    bool      // Consul's index was below that once
	ahead   uint64    // our index when an audit last found Consul's above it
	replay  time.Time // until when Consul may be reading its log, for all we know; zero: it is not
}

// cutJitter spreads the questions after a proxy has cut all its connections.
const cutJitter = 100 * time.Millisecond

// judge decides what an answer means, and what to ask next and when.
func (l *loop) judge(a answer) step {
	now := time.Now()
	h := &l.history
	switch {
	case errors.Is(a.err, errRestart):
		h.index = 0
		return step{kind: confirm}
	case l.hold.cutShort(a, now):
		h.index = 0
		return step{kind: fetch, after: rand.N(cutJitter)}
	case a.err != nil:
		return l.retry(a, a.err)
	case a.kind == block && a.meta.LastIndex < h.index:
		// Backwards, or none at all. The leader is asked, since a follower that
		// lags could take us back in time.
		l.observe(a.meta.LastIndex)
		h.index = 0
		return step{kind: confirm, after: l.pace.take(now, false)}
	}
	if a.kind == whole {
		return l.compare(*l.filtered, a)
	}
	set := l.inUse.convert(a)
	if a.kind != confirm {
		if a.meta.ResultsFilteredByACLs || len(set) == 0 && l.holds() {
			return step{kind: confirm}
		}
	} else if err := disbelieve(a, set); err != nil {
		if a.meta.ResultsFilteredByACLs && len(set) > 0 {
			l.disk.answered()
			l.save(l.inUse.followPart(set, rule{now: now, grace: l.w.cfg.MissingFor, final: true}))
		}
		return l.retry(a, err)
	}

	if l.w.cfg.Filter != "" && !a.compared && l.inUse.loses(set) {
		l.filtered = &a
		return step{kind: whole}
	}

	// Proof comes before the set, so that no reader sees a set without any.
	l.disk.answered()
	if !l.inUse.known() {
		h.replay = now.Add(replay)
	}
	proven := a.kind != block && l.prove(a)
	if l.standing.troubled() {
		l.extend(now, l.w.cfg.MissingFor)
	}
	news := l.inUse.follow(set, rule{now: now, grace: l.grace(now), final: a.kind != block})
	l.w.cfg.Trace.answered(l.service, news)
	l.save(news)
	if a.meta.LastIndex == 0 {
		return l.retry(a, errNoIndex)
	}
	l.observe(a.meta.LastIndex)
	h.index, h.ahead = a.meta.LastIndex, 0
	if proven {
		l.recovered()
	}
	l.backoff.Reset()
	return step{kind: block, after: l.pace.take(now, news)}
}

// compare takes what the filter keeps out, and is there still, out of the set: it
// has not vanished. The rest of the filtered answer is judged as ever.
func (l *loop) compare(filtered, a answer) step {
	switch {
	case !a.meta.KnownLeader:
		return l.retry(a, errNoLeader)
	case a.meta.LastIndex < filtered.meta.LastIndex:
		return l.retry(a, errBehind)
	}
	l.save(l.inUse.deselect(filtered.entries, a.entries, time.Now()))
	filtered.compared = true
	return l.judge(filtered)
}

// replay is how long after the first answer of all an instance that vanishes is not
// taken for missing. A Consul that has just started shows its past while it reads its
// log: entries of instances that left long ago come and go within milliseconds, and
// their addresses may be others' by now. So too until a server with a leader has
// proven the set: what is older than the log is shown until there is one.
const replay = time.Second

// grace returns how long instances that vanish with an answer are kept. An index
// that goes backwards is no log being read: something was lost.
func (l *loop) grace(now time.Time) time.Duration {
	if !l.history.fell && (now.Before(l.history.replay) || l.standing.proven.IsZero()) {
		return -1
	}
	return l.w.cfg.MissingFor
}

// disbelieve says why the leader's answer is no news: nil if it is.
func disbelieve(a answer, set []catalog.Instance) error {
	switch {
	case a.meta.ResultsFilteredByACLs:
		return errFiltered
	case !a.meta.KnownLeader && a.meta.LastIndex == 0:
		return errNoIndex // it can't be read, and consul/api reads no header after it
	case !a.meta.KnownLeader:
		return errNoLeader
	case len(set) > 0:
		return nil
	case a.blindfold:
		return errBlindfold
	case a.meta.LastIndex <= 1:
		return errNotYet
	}
	return nil
}

// holds reports whether an empty answer would be news: nothing is known yet,
// or an instance is in use, which may be missing.
func (l *loop) holds() bool { return !l.inUse.known() || len(l.inUse.set) > 0 }

// retry backs off after an answer that failed, or is not believed.
func (l *loop) retry(a answer, err error) step {
	l.history.index = 0
	l.recall(time.Now())
	l.fail(err)
	return step{kind: fetch, after: l.backoff.Next(err), early: a.early}
}

// observe notes an index of Consul's, and tells when it is below what was
// believed before: also when that was before an error. 0 stands for none.
func (l *loop) observe(index uint64) {
	if index == 0 {
		return
	}
	if index < l.history.highest {
		l.history.fell = true
		l.w.cfg.Trace.regressed(l.service)
	}
	l.history.highest = index
}

// prove notes what an answer proves, if anything.
func (l *loop) prove(a answer) bool {
	ok, err := l.standing.prove(a)
	if err != nil {
		l.fail(err)
	}
	if ok {
		l.save(l.standing.proven.Sub(l.disk.saved) >= saveEvery)
	}
	return ok
}

// recovered notes that Consul proves the set again, which is of interest to every
// watch in trouble.
func (l *loop) recovered() {
	if l.standing.recovered(len(l.inUse.set)) {
		l.w.Retry()
	}
}

func (l *loop) fail(err error) {
	if l.disk.inUse {
		err = fmt.Errorf("%w: %w", catalog.ErrFromDisk, err)
	}
	l.standing.fail(err, l.inUse.known(), len(l.inUse.set))
}

// publish makes the set the one in use, if there is one.
func (l *loop) publish(set []catalog.Instance, now time.Time) {
	if l.inUse.known() {
		l.save(l.inUse.publish(set, now))
	}
}

// extend gives missing instances that have no more than that left their full time
// anew: while Consul can't be asked none is given up, and when it answers again the
// live ones have that long to register.
func (l *loop) extend(now time.Time, left time.Duration) {
	l.publish(l.inUse.extended(now, left), now)
}
