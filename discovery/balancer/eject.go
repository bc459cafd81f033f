package balancer

import (
	"container/heap"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// Note lets policy and health learn what was seen of an endpoint. Leases call it
// for what they were told; it is called besides for what no lease tells, such as
// the end of a dial whose request has gone elsewhere.
func (b *Balancer) Note(e *Endpoint, r outcome.Result) {
	b.policy.Learn(e, r)
	proof := r.Code.Row().Proves
	b.remember(e, r, proof)
	if proof == outcome.Silence && b.asSilent(e, r) {
		return
	}
	if d := e.health.Note(r); d > 0 {
		b.eject(e, r, d)
	}
	if proof == outcome.Absent && e.instance.Load().Missing() {
		b.drop(e, r.At)
	}
}

// remember keeps how long the endpoint's latest answer to the group took.
func (b *Balancer) remember(e *Endpoint, r outcome.Result, proof outcome.Proof) {
	took := r.Latency
	switch {
	case proof == outcome.Silence:
		took = never
	case took <= 0 || proof != outcome.Good && proof != outcome.Bad:
		return
	}
	e.groups[r.Group].took.Store(int64(took))
	e.groups[r.Group].at.Store(int64(r.At.Sub(b.set.Load().base)))
}

// never is how long an answer takes that does not come.
const never = time.Duration(1<<63 - 1)

// asSilent reports whether the others are as silent: none has answered a request
// of the group since this one began, in less time than its silence lasted; and
// one at least was silent itself, or as slow, or has a request waiting since. While
// nothing is known of any, they are not.
func (b *Balancer) asSilent(e *Endpoint, r outcome.Result) bool {
	s, known := b.set.Load(), false
	began := int64(r.Began.Sub(s.base))
	for _, other := range s.all[:s.use] {
		if other == e {
			continue
		}
		g := &other.groups[r.Group]
		took := time.Duration(g.took.Load())
		switch news := took != 0 && g.at.Load() >= began; {
		case news && took < r.Latency:
			return false
		case took >= r.Latency, !news && g.waiting.Load() > 0:
			known = true
		}
	}
	return known
}

// eject takes an endpoint out of use, if another one may be.
func (b *Balancer) eject(e *Endpoint, r outcome.Result, d time.Duration) {
	if s := b.set.Load(); b.Counts(r.At).Ejected >= b.rules.Most(s.use) {
		return // without the lock: when all fail, every failure comes here
	}
	x, done := b.takeOut(e, r, d)
	if done && b.ejected != nil {
		b.ejected(b.service, e.Instance(), x)
	}
}

// takeOut is eject with the lock held; false if that may not be, or has just
// been done.
func (b *Balancer) takeOut(e *Endpoint, r outcome.Result, d time.Duration) (x outlier.Ejection, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.set.Load()
	b.release(s, r.At)
	if e.snapshot != s.snapshot || !e.inUse || len(b.outs) >= b.rules.Most(s.use) {
		return x, false
	}
	if x, done = e.health.Eject(r, d); !done {
		return x, false
	}
	e.excused.Store(false)
	heap.Push(&b.outs, out{e, x.Until})
	b.count(s)
	return x, true
}

// release forgets the ejections that are over. Call it with the mutex held.
func (b *Balancer) release(s *set, now time.Time) {
	before := len(b.outs)
	for len(b.outs) > 0 && !now.Before(b.outs[0].until) {
		heap.Pop(&b.outs)
	}
	if len(b.outs) != before {
		b.count(s)
	}
}

// count tells those without the lock how many are out, and until when that holds.
func (b *Balancer) count(s *set) {
	s.ejected.Store(int64(len(b.outs)))
	back := int64(0)
	if len(b.outs) > 0 {
		back = int64(b.outs[0].until.Sub(b.base))
	}
	s.back.Store(back)
}

// cap lets back into use, on trial, those of the ejected that are more than may
// be out of a set that has shrunk since: those whose time is over first. Call it
// with the mutex held.
func (b *Balancer) cap(s *set, now time.Time) {
	b.outs = nil
	for _, e := range s.all[:s.use] {
		e.excused.Store(false)
		if x := e.health.Ejection(); e.health.State(now) == outlier.Ejected {
			b.outs = append(b.outs, out{e, x.Until})
		}
	}
	if len(b.outs) == 0 {
		return
	}
	slices.SortStableFunc(b.outs, func(a, b out) int { return a.until.Compare(b.until) })
	excused := max(0, len(b.outs)-b.rules.Most(s.use))
	for _, o := range b.outs[:excused] {
		o.endpoint.excused.Store(true)
	}
	b.outs = b.outs[excused:] // in order, so a heap
	b.count(s)
}

// out is an ejected endpoint.
type out struct {
	endpoint *Endpoint
	until    time.Time
}

// outs is a heap of them (container/heap), by when they are back.
type outs []out

func (o outs) Len() int           { return len(o) }
func (o outs) Less(i, j int) bool { return o[i].until.Before(o[j].until) }
func (o outs) Swap(i, j int)      { o[i], o[j] = o[j], o[i] }
func (o *outs) Push(x any)        { *o = append(*o, x.(out)) }
func (o *outs) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}
