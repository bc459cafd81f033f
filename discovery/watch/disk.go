package watch

import (
	"errors"
	"os"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// diskAfter is how long the first answer may take before the set on disk is
// used. Consul answers in milliseconds; one that is silent never does.
const diskAfter = time.Second

// disk is what a watch knows of its file.
type disk struct {
	store *store    // nil: nothing is kept
	done  bool      // it was read, or need not be
	inUse bool      // its set is in use, and Consul has not answered so far
	saved time.Time // the proof of what was last put there
}

// due returns when the file is read if Consul is silent until then; zero if it is
// not to be read any more.
func (d *disk) due(began time.Time) time.Time {
	if d.store == nil || d.done {
		return time.Time{}
	}
	return began.Add(diskAfter)
}

// answered notes that Consul has said something that is believed: the disk is
// not needed any more.
func (d *disk) answered() { d.done, d.inUse = true, false }

// recall puts the set on disk into use if nothing was known so far. It is
// asked once: what Consul says is always better, what is on disk never changes
// for the better.
func (l *loop) recall(now time.Time) {
	if l.disk.done {
		return
	}
	l.disk.done = true
	if l.disk.store == nil || l.inUse.known() {
		return
	}
	r, err := l.disk.store.load(l.service, now)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		l.w.cfg.Trace.failed(l.service, err)
		l.w.cfg.Log.Warn("snapshot on disk ignored", "service", l.service, "error", err)
		return
	}
	l.disk.inUse, l.disk.saved, l.standing.proven = true, r.proven, r.proven
	l.feed.Confirm(r.proven)
	l.feed.Fail(catalog.ErrFromDisk)
	l.inUse.begin(r.set, r.since)
	l.w.cfg.Log.Warn("service begins with the set on disk, for Consul has not answered", "service", l.service,
		"instances", len(r.set), "age", now.Sub(r.proven).Round(time.Second))
}

// save has the set written to disk, if there is a reason to. A set from disk is
// there already, and one that was never proven is none to begin with.
func (l *loop) save(reason bool) {
	if !reason || l.disk.store == nil || l.disk.inUse || !l.inUse.known() || l.standing.proven.IsZero() {
		return
	}
	l.disk.saved = l.standing.proven
	l.disk.store.put(&record{service: l.service, set: l.inUse.set, since: l.feed.Current().At(), proven: l.standing.proven})
}
