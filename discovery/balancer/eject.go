package balancer

import (
	"container/heap"
	"math"
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
	proof := r.Code.Proves()
	e.remember(r, proof)
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
func (e *Endpoint) remember(r outcome.Result, proof outcome.Proof) {
	took := uint32(never)
	switch {
	case proof == outcome.Silence:
	case r.Latency > 0 && (proof == outcome.Good || proof == outcome.Bad):
		took = micros(r.Latency)
	default:
		return
	}
	e.answers[r.Group].Store(uint64(took)<<32 | uint64(millis(e.estimate.base, r.At)))
}

// never is how many microseconds an answer takes that does not come.
const never = math.MaxUint32

// micros returns a latency in microseconds, 1 at least, and an hour or so at most.
func micros(d time.Duration) uint32 {
	return uint32(min(max(d.Microseconds(), 1), never-1))
}

// asSilent reports whether the others are as silent: none has answered a request
// of the group since this one began, in less time than its silence lasted; and
// one at least was silent itself, or as slow, or has a request waiting since. While
// nothing is known of any, they are not.
func (b *Balancer) asSilent(e *Endpoint, r outcome.Result) bool {
	s, known := b.set.Load(), false
	began, lasted := millis(s.base, r.Began), micros(r.Latency)
	for _, other := range s.all[:s.use] {
		if other == e {
			continue
		}
		answer := other.answers[r.Group].Load()
		took := uint32(answer >> 32)
		switch news := took != 0 && int32(uint32(answer)-began) >= 0; {
		case news && took < lasted:
			return false
		case took >= lasted, !news && other.load.waits(r.Group):
			known = true
		}
	}
	return known
}

// eject takes an endpoint out of use, if another one may be.
func (b *Balancer) eject(e *Endpoint, r outcome.Result, d time.Duration) {
	if s := b.set.Load(); b.Counts(r.At).Ejected >= b.rules.Most(s.use) {
		if b.capped != nil { // without the lock: when all fail, every failure comes here
			b.capped(b.service, e.Instance())
		}
		return
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
