package watch

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// convert returns the entries that can be used, each once, and tells of the
// others.
func (l *loop) convert(a answer) []catalog.Instance {
	set := make([]catalog.Instance, 0, len(a.entries))
	seen := make(map[catalog.Key]bool, len(a.entries))
	var refused map[string]string
	for _, e := range a.entries {
		i, invalid := instanceOf(l.service, e)
		if invalid == nil {
			if !seen[i.Key()] {
				seen[i.Key()] = true
				set = append(set, i)
			}
			continue
		}
		if refused == nil {
			refused = map[string]string{}
		}
		name, problem := i.Node+"/"+i.ID, invalid.Error()
		if refused[name] != problem && l.refused[name] != problem {
			l.w.cfg.Trace.refused(l.service, invalid)
		}
		refused[name] = problem
	}
	l.refused = refused
	return set
}

// publish makes the set, which must be sorted, the one in use, if it differs
// from that, and reports whether it does.
func (l *loop) publish(set []catalog.Instance, now time.Time) (news bool) {
	if l.known && slices.EqualFunc(l.set, set, equal) {
		return false
	}
	last := l.set
	l.set, l.known, l.changed = set, true, now
	l.feed.Publish(slices.Clone(set), now)
	l.w.cfg.Trace.changed(l.feed.Current())
	l.tellMissing(last, now)
	l.save(!l.disk)
	return true
}

// expire drops the missing whose time is over, now that Consul has said that it
// still lacks them.
func (l *loop) expire(now time.Time) {
	if l.known {
		l.publish(unexpired(l.set, now), now)
	}
}

// extend gives the missing who have no more than that left their full time anew:
// while Consul can't be asked nobody is given up, and when it answers again
// those who live have that long to register.
func (l *loop) extend(now time.Time, left time.Duration) {
	set := slices.Clone(l.set)
	for n := range set {
		if set[n].Missing() && set[n].MissingUntil.Sub(now) <= left {
			set[n].MissingUntil = now.Add(l.w.cfg.MissingFor)
		}
	}
	if l.known {
		l.publish(set, now)
	}
}

// prove notes that the set was true when Consul was asked, less the time for
// which the server that answered had not heard from its leader. It reports
// whether the answer proves anything.
func (l *loop) prove(a answer) bool {
	switch {
	case a.meta.QueryBackend == api.QueryBackendStreaming:
		return false // says nothing about its age
	case !a.meta.KnownLeader && a.meta.LastIndex == 0:
		l.fail(errNoIndex) // it can't be read, and consul/api reads no header after it
		return false
	case !a.meta.KnownLeader:
		l.fail(errNoLeader)
		return false
	}
	if at := a.sent.Add(-a.meta.LastContact); at.After(l.proven) {
		l.proven = at
	}
	l.feed.Confirm(l.proven)
	l.save(l.proven.Sub(l.saved) >= saveEvery)
	if l.w.cfg.StaleFor > 0 {
		l.stale = l.stale && !time.Now().Before(l.staleAt())
	}
	return true
}

// found notes that the trouble is over.
func (l *loop) found() {
	if !l.lost.IsZero() {
		l.w.cfg.Log.Info("service found again", "service", l.service, "after", time.Since(l.lost), "instances", len(l.set))
		l.lost = time.Time{}
		l.w.cfg.Trace.recovered(l.service)
	}
}

// fail notes trouble; only its beginning is logged.
func (l *loop) fail(err error) {
	if l.disk {
		err = fmt.Errorf("%w: %w", catalog.ErrFromDisk, err)
	}
	l.feed.Fail(err)
	l.w.cfg.Trace.failed(l.service, err)
	if l.lost.IsZero() {
		l.lost = time.Now()
		if !l.known {
			// Latest tells each reader, with the trouble.
			l.w.cfg.Log.Debug("no answer about the service so far", "service", l.service, "error", err)
			return
		}
		l.w.cfg.Log.Warn("service lost: its last instances stay in use", "service", l.service, "instances", len(l.set), "error", err)
	}
}

// tellStale makes the readers of a set that has just become older than
// StaleFor ask again, and so learn of it.
func (l *loop) tellStale(now time.Time) {
	if l.w.cfg.StaleFor == 0 || !l.known || l.stale || now.Before(l.staleAt()) {
		return
	}
	l.stale = true
	l.feed.Publish(slices.Clone(l.set), l.changed)
	err := fmt.Errorf("%w: StaleFor is %s", ErrStale, l.w.cfg.StaleFor)
	l.w.cfg.Trace.failed(l.service, err)
	l.w.cfg.Log.Warn("service stale: its last instances are withheld", "service", l.service, "instances", len(l.set), "staleFor", l.w.cfg.StaleFor)
}

func (l *loop) staleAt() time.Time {
	since := l.proven
	if since.IsZero() {
		since = l.began
	}
	return since.Add(l.w.cfg.StaleFor)
}
