package balancer

import (
	"slices"
	"time"
)

// note lets the policy and the judge learn from an outcome.
func (b *Balancer) note(e *Endpoint, o Outcome) {
	if b.learner != nil {
		b.learner.learn(e, o)
	}
	if e.record == nil {
		return
	}
	v := e.record.Note(o)
	if v.Trusted {
		b.trust(e, o.At)
	}
	if v.Eject > 0 {
		b.eject(e, v, o.At)
	}
}

// trust ends a probation, unless another outcome has ejected the endpoint since
// the judge said so.
func (b *Balancer) trust(e *Endpoint, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !e.ejectedAt(now) {
		e.probation.Store(false)
	}
}

// eject takes an endpoint out of use, if another one may be.
func (b *Balancer) eject(e *Endpoint, v Verdict, now time.Time) {
	if !b.room(b.current(now)) {
		return // without the lock: when all fail, every failure comes here
	}
	x := Ejection{At: now, Until: now.Add(v.Eject), Reason: v.Reason}
	if !b.takeOut(e, &x) {
		return
	}
	e.record.Ejected(x)
	if b.ejected != nil {
		b.ejected(b.service, e.Instance(), x)
	}
}

// takeOut makes the set without the endpoint; false if that may not be, or if
// somebody else has just done so.
func (b *Balancer) takeOut(e *Endpoint, x *Ejection) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.set.Load()
	if e.snapshot != s.snapshot || !e.inUse || e.ejectedAt(x.At) || !b.room(s) {
		return false
	}
	e.probation.Store(true)
	e.ejection.Store(x)
	b.set.Store(b.build(s.snapshot, s.known, x.At))
	return true
}

// room reports whether one more of a set may be out.
func (b *Balancer) room(s *set) bool {
	return s.counts.Ejected < b.most(s.ready.Len()+s.counts.Ejected)
}

// most is how many of n may be out: never all.
func (b *Balancer) most(n int) int {
	if b.judge == nil || n == 0 {
		return 0
	}
	return min(max(b.judge.Most(n), 0), n-1)
}

// sift takes the ejected ones out of those in use, and says when the first of
// them is back: zero if none is out. More may have been ejected than are allowed
// to be out of a set that has shrunk since; then those who are back first are
// used already. Call it with the mutex held.
func (b *Balancer) sift(use []*Endpoint, now time.Time) (left []*Endpoint, back time.Time) {
	var out []*Endpoint
	for _, e := range use {
		if e.ejectedAt(now) {
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		return use, time.Time{}
	}
	until := func(e *Endpoint) time.Time { return e.ejection.Load().Until }
	slices.SortStableFunc(out, func(a, b *Endpoint) int { return until(a).Compare(until(b)) })
	out = out[max(0, len(out)-b.most(len(use))):]
	if len(out) == 0 {
		return use, time.Time{}
	}
	isOut := make(map[*Endpoint]bool, len(out))
	for _, e := range out {
		isOut[e] = true
	}
	left = make([]*Endpoint, 0, len(use)-len(out))
	for _, e := range use {
		if !isOut[e] {
			left = append(left, e)
		}
	}
	return left, until(out[0])
}

// ejectedAt reports whether the endpoint's ejection is not over.
func (e *Endpoint) ejectedAt(now time.Time) bool {
	x := e.ejection.Load()
	return x != nil && !x.Over(now)
}

// Ejection returns the endpoint's latest ejection, the zero value if it never
// was. If the set has shrunk the endpoint may be in use before it is over, see
// Judge.Most.
func (e *Endpoint) Ejection() Ejection {
	if x := e.ejection.Load(); x != nil {
		return *x
	}
	return Ejection{}
}

// OnProbation reports whether the endpoint was ejected and has not regained its
// Judge's trust.
func (e *Endpoint) OnProbation() bool { return e.probation.Load() }
