package watch

import (
	"math/rand/v2"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// scanEvery is the least time between two scans: what goes missing meanwhile is
// given up together.
const scanEvery = 5 * time.Second

// audits say when Consul is to be asked whether what is known still holds: from
// time to time, and when the time of a missing instance is over.
type audits struct {
	every   time.Duration // Config.AuditEvery
	next    time.Time     // when the next one begins, if nothing calls for a scan before
	scanned time.Time     // when the last scan began
}

// plan sets the time of the next audit: a little more than every in the mean, and
// a quarter more at most. So an idle watch, its blocking queries included, asks
// less than eight times a minute.
func (a *audits) plan(now time.Time) {
	a.next = now.Add(a.every*7/8 + rand.N(a.every*3/8+1))
}

// due returns when the next audit begins.
func (a *audits) due(set []catalog.Instance) time.Time {
	due, scan := a.next, a.scanned.Add(min(scanEvery, a.every/2))
	for n := range set {
		until := set[n].MissingUntil
		if !until.After(a.scanned) {
			continue // not missing, or scanned for already: the next audit does it again
		}
		if until.Before(scan) {
			until = scan
		}
		if until.Before(due) {
			due = until
		}
	}
	return due
}

// take returns the kind of the audit that begins now, and plans the next one. It
// is a scan if a missing instance may be given up.
func (a *audits) take(now time.Time, set []catalog.Instance) kind {
	a.plan(now)
	for n := range set {
		if set[n].Missing() && !now.Before(set[n].MissingUntil) {
			a.scanned = now
			return scan
		}
	}
	return audit
}

// audited notes what an audit says, and reports whether to begin anew.
func (l *loop) audited(a answer) bool {
	h := &l.history
	switch {
	case a.err != nil:
		l.fail(a.err)
		l.extend(time.Now(), 0)
		return false
	case a.meta.ResultsFilteredByACLs:
		return true
	case h.index == 0:
		return false // no answer to compare with; its query has its own fate
	case a.meta.LastIndex < h.index:
		// Wiped, or restored: our query waits for what won't come.
		l.observe(a.meta.LastIndex)
		return true
	case a.meta.LastIndex > h.index:
		// News is on its way; if it is not here by the next audit, our query is
		// deaf. (Where a service has no instance, Consul counts differently in
		// streamed and other answers: then this finds nothing new.)
		deaf := h.ahead == h.index
		h.ahead = h.index
		return deaf
	}
	h.ahead = 0
	if l.prove(a) {
		now := time.Now()
		if l.standing.troubled() {
			l.extend(now, l.w.cfg.MissingFor)
		}
		if a.kind == scan && l.inUse.known() {
			l.publish(unexpired(l.inUse.set, now), now)
		}
		l.recovered()
	}
	return false
}
