package watch

import (
	"errors"
	"os"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// diskAfter is how long the first answer may take before the set on disk is
// used. Consul answers in milliseconds; one that is silent never does.
const diskAfter = time.Second

// silent reports whether the first answer is overdue.
func (l *loop) silent(now time.Time) bool {
	return !l.known && !l.read && !now.Before(l.began.Add(diskAfter))
}

// recall puts the set on disk into use if nothing was known so far. It is
// asked once: what Consul says is always better, what is on disk never changes
// for the better.
func (l *loop) recall(now time.Time) {
	if l.read {
		return
	}
	l.read = true
	if l.w.store == nil || l.known {
		return
	}
	r, err := l.w.store.load(l.service, now)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		l.w.cfg.Trace.failed(l.service, err)
		l.w.cfg.Log.Warn("snapshot on disk ignored", "service", l.service, "error", err)
		return
	}
	l.set, l.known, l.disk, l.changed = r.set, true, true, r.since
	l.proven, l.saved = r.proven, r.proven
	l.feed.Confirm(r.proven)
	l.feed.Fail(catalog.ErrFromDisk)
	l.feed.Publish(slices.Clone(r.set), r.since)
	l.w.cfg.Trace.changed(l.feed.Current())
	l.w.cfg.Log.Warn("service begins with the set on disk, for Consul has not answered", "service", l.service,
		"instances", len(r.set), "age", now.Sub(r.proven).Round(time.Second))
}

// answered notes that Consul has said something that is believed: the disk is
// not needed any more.
func (l *loop) answered() { l.read, l.disk = true, false }

// save has the set written to disk, if there is a reason to. A set from disk is
// there already, and one that was never proven is none to begin with.
func (l *loop) save(reason bool) {
	if !reason || l.w.store == nil || l.disk || !l.known || l.proven.IsZero() {
		return
	}
	l.saved = l.proven
	l.w.store.put(&record{service: l.service, set: l.set, since: l.changed, proven: l.proven})
}
