package watch

import (
	"errors"
	"maps"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// The reasons for which an answer is not believed.
var (
	errNoLeader  = errors.New("not believed: Consul has no leader")
	errFiltered  = errors.New("not believed: Consul left out what our token may not read")
	errBlindfold = errors.New("not believed: an empty answer to a call without a token, where Consul's default is deny")
	errNotYet    = errors.New("not believed: an empty answer with index 1 means that Consul does not know yet")
	errNoIndex   = errors.New("the answer has no index: Consul is asked again and again instead of waited for")
)

// judge decides what an answer means, and what to ask next and when.
func (l *loop) judge(a answer) (next kind, delay time.Duration) {
	now := time.Now()
	switch {
	case errors.Is(a.err, errRestart):
		l.index = 0
		return confirm, 0
	case a.err != nil:
		return l.retry(a.err)
	case a.kind == block && a.meta.LastIndex < l.index:
		// Backwards, or none at all. The leader is asked, since a follower that
		// lags could take us back in time.
		l.observe(a.meta.LastIndex)
		l.index = 0
		return confirm, l.pace.take(now, false)
	}
	set := l.convert(a)
	if a.kind != confirm {
		if a.meta.ResultsFilteredByACLs || len(set) == 0 && l.holds() {
			return confirm, 0
		}
	} else if err := disbelieve(a, set); err != nil {
		if a.meta.ResultsFilteredByACLs && len(set) > 0 {
			l.usePart(set, now)
		}
		return l.retry(err)
	}

	// Proof comes before the set, so that no reader sees a set without any.
	l.answered()
	if !l.known {
		l.fresh = now.Add(replay)
	}
	proven := a.kind != block && l.prove(a)
	if !l.lost.IsZero() {
		l.extend(now, l.w.cfg.MissingFor)
	}
	after, vanished := succeed(l.set, set, rule{now: now, grace: l.missingFor(now), final: a.kind != block})
	news := l.publish(after, now)
	l.shown = nil
	for _, i := range vanished {
		l.w.cfg.Trace.missing(l.service, i)
	}
	if a.meta.LastIndex == 0 {
		return l.retry(errNoIndex)
	}
	l.observe(a.meta.LastIndex)
	l.index, l.ahead = a.meta.LastIndex, 0
	if proven {
		l.found()
	}
	l.backoff.Reset()
	return block, l.pace.take(now, news)
}

// usePart makes what a filtered answer shows the set in use, beside what it may
// hide.
func (l *loop) usePart(part []catalog.Instance, now time.Time) {
	l.answered()
	after, vanished := succeedPart(l.set, part, l.shown, rule{now: now, grace: l.w.cfg.MissingFor, final: true})
	if l.shown == nil {
		l.shown = map[catalog.Key]bool{}
	}
	for key := range keys(part) {
		l.shown[key] = true
	}
	kept := keys(after)
	maps.DeleteFunc(l.shown, func(key catalog.Key, _ bool) bool { return !kept[key] })
	l.publish(after, now)
	for _, i := range vanished {
		l.w.cfg.Trace.missing(l.service, i)
	}
}

// replay is how long after the first answer of all those who vanish are not taken
// for missing. A Consul that has just started shows its past while it reads its
// log: entries of those who left long ago come and go within milliseconds, and
// their addresses may be others' by now. So too until a server with a leader has
// proven the set: what is older than the log is shown until there is one.
const replay = time.Second

// missingFor returns how long those who vanish with an answer are kept. An index
// that goes backwards is no log being read: something was lost.
func (l *loop) missingFor(now time.Time) time.Duration {
	if !l.regressed && (now.Before(l.fresh) || l.proven.IsZero()) {
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
// or somebody is in use, who may be missing.
func (l *loop) holds() bool { return !l.known || len(l.set) > 0 }

func (l *loop) retry(err error) (kind, time.Duration) {
	l.index = 0
	l.recall(time.Now())
	l.fail(err)
	return fetch, l.backoff.Next(err)
}

// observe notes an index of Consul's, and tells when it is below what was
// believed before: also when that was before an error. 0 stands for none.
func (l *loop) observe(index uint64) {
	if index == 0 {
		return
	}
	if index < l.highest {
		l.regressed = true
		l.w.cfg.Trace.regressed(l.service)
	}
	l.highest = index
}

// audited notes what an audit says, and reports whether to begin anew.
func (l *loop) audited(a answer) bool {
	switch {
	case a.err != nil:
		l.fail(a.err)
		l.extend(time.Now(), 0)
		return false
	case a.meta.ResultsFilteredByACLs:
		return true
	case l.index == 0:
		return false // no answer to compare with; its query has its own fate
	case a.meta.LastIndex < l.index:
		// Wiped, or restored: our query waits for what won't come.
		l.observe(a.meta.LastIndex)
		return true
	case a.meta.LastIndex > l.index:
		// News is on its way; if it is not here by the next audit, our query is
		// deaf. (Where a service has no instance, Consul counts differently in
		// streamed and other answers: then this finds nothing new.)
		deaf := l.ahead == l.index
		l.ahead = l.index
		return deaf
	}
	l.ahead = 0
	if l.prove(a) {
		now := time.Now()
		if !l.lost.IsZero() {
			l.extend(now, l.w.cfg.MissingFor)
		}
		if a.kind == scan {
			l.expire(now)
		}
		l.found()
	}
	return false
}
