package balancer

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// Ready is the immutable set a Policy picks from: the ready endpoints, or in
// panic mode the critical ones.
type Ready struct {
	endpoints []*Endpoint
	// sums[i] is the weight of the endpoints up to i, i included; nil when all
	// weights are equal.
	sums  []uint64
	clock *atomic.Uint64 // the balancer's virtual time
	slack uint64         // how far behind the clock an endpoint may be
}

// newReady makes the set and tells each endpoint its slot.
func newReady(endpoints []*Endpoint, clock *atomic.Uint64) Ready {
	r := Ready{endpoints: endpoints, clock: clock}
	equal, least := true, uint32(0)
	for i, e := range endpoints {
		e.slot.Store(int32(i))
		w := e.weight.Load()
		equal = equal && w == endpoints[0].weight.Load()
		if i == 0 || w < least {
			least = w
		}
	}
	if len(endpoints) > 0 {
		r.slack = slackRounds * stride(least)
	}
	if !equal {
		r.sums = make([]uint64, len(endpoints))
		sum := uint64(0)
		for i, e := range endpoints {
			sum += uint64(e.weight.Load())
			r.sums[i] = sum
		}
	}
	return r
}

// Len returns the number of endpoints.
func (r Ready) Len() int { return len(r.endpoints) }

// At returns the endpoint at index i, 0 to Len-1.
func (r Ready) At(i int) *Endpoint { return r.endpoints[i] }

// Sample draws an endpoint at random by weight, none of those in q.Tried nor
// not (which may be nil); nil when none is left. It takes one random number and
// a binary search, or no search when all weights are equal.
func (r Ready) Sample(q Request, not *Endpoint) *Endpoint {
	// The slots that are out, in order. The weights between them are drawn
	// from as if they lay side by side.
	var room [8]int
	out := room[:0]
	if not != nil {
		out = r.exclude(out, not)
	}
	for _, e := range q.Tried {
		out = r.exclude(out, e)
	}
	total := r.upTo(len(r.endpoints))
	for _, i := range out {
		total -= r.upTo(i+1) - r.upTo(i)
	}
	if total == 0 {
		return nil
	}
	x := rand.Uint64N(total)
	for _, i := range out {
		if from := r.upTo(i); x >= from {
			x += r.upTo(i+1) - from
		}
	}
	if r.sums == nil {
		return r.endpoints[x]
	}
	i, found := slices.BinarySearch(r.sums, x)
	if found { // x is the first of the weight after it
		i++
	}
	return r.endpoints[i]
}

// upTo returns the weight of the endpoints before index i.
func (r Ready) upTo(i int) uint64 {
	if r.sums == nil {
		return uint64(i)
	}
	if i == 0 {
		return 0
	}
	return r.sums[i-1]
}

// exclude adds e's slot to the sorted slots, once, if it is in the set at all.
func (r Ready) exclude(slots []int, e *Endpoint) []int {
	slot := r.index(e)
	if slot < 0 {
		return slots
	}
	at, found := slices.BinarySearch(slots, slot)
	if found {
		return slots
	}
	return slices.Insert(slots, at, slot)
}

// index returns the place in the set of e, or of one with its key: e may have
// left and come back. It returns -1 if there is none. Only an endpoint that has
// left, or a set that is no longer the newest, costs a search.
func (r Ready) index(e *Endpoint) int {
	if i := int(e.slot.Load()); i < len(r.endpoints) && r.endpoints[i] == e {
		return i
	}
	return slices.IndexFunc(r.endpoints, e.same)
}

// another reports whether an endpoint is left besides e and the tried ones.
func (r Ready) another(e *Endpoint, tried []*Endpoint) bool {
	if len(r.endpoints) > len(tried)+1 {
		return true
	}
	for _, other := range r.endpoints {
		if !e.same(other) && !slices.ContainsFunc(tried, other.same) {
			return true
		}
	}
	return false
}

// The ranks of endpoints, from the best. A better rank goes before any latency
// and any load.
const (
	rankGood    = iota
	rankPenalty // its latest outcome was bad
	rankHeld    // on probation or held, with the one request that it may have
)

func (e *Endpoint) rank(now time.Time) int {
	switch {
	case (e.probation.Load() || e.held.Load() > 0) && e.inFlight.Load() > 0:
		return rankHeld
	case e.estimate.inPenalty(now):
		return rankPenalty
	}
	return rankGood
}

// refugeRange is how many endpoints are looked at for a better one than two that
// were drawn. It covers small sets, where two bad ones are drawn often.
const refugeRange = 8

// refuge returns e if its rank is good, else one of a better rank if there is
// one nearby.
func (r Ready) refuge(e *Endpoint, rank int, q Request) *Endpoint {
	if rank == rankGood {
		return e
	}
	n := len(r.endpoints)
	from := rand.IntN(n)
	for k := range min(n, refugeRange) {
		other := r.endpoints[(from+k)%n]
		if better := other.rank(q.Now); better < rank && !slices.ContainsFunc(q.Tried, other.same) {
			if e, rank = other, better; rank == rankGood {
				return e
			}
		}
	}
	return e
}
