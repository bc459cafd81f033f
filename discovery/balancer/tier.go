package balancer

import (
	"iter"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// rank is how good it is to send to an endpoint now. A better rank goes before
// any latency and any load.
type rank uint8

const (
	rankHealthy rank = iota
	rankDialled      // a dial will tell whether it is there; no other request of it is under way
	rankSuspect      // it has just failed or shed, or a dial to it hangs
	rankBusy         // it is on trial, and has the one request that is for it
	rankReserve      // of another datacenter, while one here is ready
	rankOut          // ejected, or critical while others are ready
	ranks
)

// rank returns the endpoint's at a time.
func (e *Endpoint) rank(now time.Time) rank {
	if e.spare.Load() {
		return rankOut
	}
	state := e.health.State(now)
	if state == outlier.Ejected && !e.excused.Load() {
		return rankOut
	}
	if e.reserve.Load() {
		return rankReserve
	}
	if state == outlier.Suspect || e.stalled.Load() > 0 {
		return rankSuspect
	}
	if state == outlier.Healthy && e.dialing.Load() == 0 {
		return rankHealthy
	}
	switch waiting := e.load.waiting(); {
	case waiting == 0:
		return rankHealthy
	case state != outlier.Healthy:
		return rankBusy
	case waiting <= int64(e.dialing.Load()):
		return rankDialled
	}
	return rankHealthy
}

// Tier is the endpoints that a [Policy] picks from: those of the best rank at
// which one is left that the request was not tried at. Which they are is decided
// when they are looked at, so an ejection costs nothing that grows with the set.
type Tier struct {
	set  *set
	rank rank
}

// members returns those among which the tier's are.
func (t Tier) members() []*Endpoint {
	if t.rank >= rankReserve {
		return t.set.all
	}
	return t.set.all[:t.set.use]
}

// All ranges over the endpoints of the tier that the request was not tried at.
func (t Tier) All(q Request) iter.Seq[*Endpoint] {
	return func(yield func(*Endpoint) bool) {
		for _, e := range t.members() {
			if e.rank(q.Now) == t.rank && !slices.ContainsFunc(q.Tried, e.same) && !yield(e) {
				return
			}
		}
	}
}

const (
	// maxExcluded is how many endpoints a draw goes around exactly: what was
	// tried before, and what was drawn and is of another rank.
	maxExcluded = 8
	// maxScanned is how many endpoints are looked at one after the other when
	// that many draws met none of the tier. In a larger set, all but a few of
	// whose endpoints are in trouble, one of a worse rank may be picked then.
	maxScanned = 1024
)

// Sample draws an endpoint of the tier at random by weight, none of those in
// q.Tried nor not (which may be nil); nil when none is left. It takes one random
// number and a binary search, or no search when all weights are equal, for each
// endpoint that it meets of another rank.
func (t Tier) Sample(q Request, not *Endpoint) *Endpoint {
	// The slots that are out, in order. The weights between them are drawn
	// from as if they lay side by side.
	var room [maxExcluded]int
	out := room[:0]
	if not != nil {
		out = t.set.exclude(out, not)
	}
	for _, e := range q.Tried {
		out = t.set.exclude(out, e)
	}
	n := len(t.members())
	for {
		slot := t.set.draw(n, out)
		if slot < 0 {
			return nil
		}
		if e := t.set.all[slot]; e.rank(q.Now) == t.rank {
			return e
		}
		if len(out) >= maxExcluded {
			return t.scan(q, not)
		}
		out = insert(out, slot)
	}
}

// scan looks from a random place on.
func (t Tier) scan(q Request, not *Endpoint) *Endpoint {
	all := t.members()
	from := rand.IntN(len(all))
	for k := range min(len(all), maxScanned) {
		e := all[(from+k)%len(all)]
		if e.rank(q.Now) == t.rank && (not == nil || !e.same(not)) && !slices.ContainsFunc(q.Tried, e.same) {
			return e
		}
	}
	return nil
}

// draw returns a slot below n by weight, none of those that are out; -1 if none
// is left.
func (s *set) draw(n int, out []int) int {
	total := s.upTo(n)
	for _, i := range out {
		if i < n {
			total -= s.upTo(i+1) - s.upTo(i)
		}
	}
	if total == 0 {
		return -1
	}
	x := rand.Uint64N(total)
	for _, i := range out {
		if from := s.upTo(i); i < n && x >= from {
			x += s.upTo(i+1) - from
		}
	}
	if s.sums == nil {
		return int(x)
	}
	i, found := slices.BinarySearch(s.sums, x)
	if found { // x is the first of the weight after it
		i++
	}
	return i
}

// upTo returns the weight of the endpoints before index i.
func (s *set) upTo(i int) uint64 {
	if s.sums == nil {
		return uint64(i)
	}
	if i == 0 {
		return 0
	}
	return s.sums[i-1]
}

// weigh notes the weights.
func (s *set) weigh() {
	equal, least := true, uint32(0)
	for i, e := range s.all {
		w := e.weight.Load()
		equal = equal && w == s.all[0].weight.Load()
		if i == 0 || w < least {
			least = w
		}
	}
	if len(s.all) > 0 {
		s.slack = slackRounds * stride(least)
	}
	if equal {
		return
	}
	s.sums = make([]uint64, len(s.all))
	sum := uint64(0)
	for i, e := range s.all {
		sum += uint64(e.weight.Load())
		s.sums[i] = sum
	}
}

// exclude adds e's slot to the sorted slots, once, if it is in the set at all.
func (s *set) exclude(slots []int, e *Endpoint) []int {
	if slot := s.index(e); slot >= 0 {
		return insert(slots, slot)
	}
	return slots
}

func insert(slots []int, slot int) []int {
	at, found := slices.BinarySearch(slots, slot)
	if found {
		return slots
	}
	return slices.Insert(slots, at, slot)
}

// index returns the place in the set of e, or of one with its key: e may have
// left and come back. It returns -1 if there is none. Only an endpoint that has
// left, or a set that is no longer the newest, costs a search.
func (s *set) index(e *Endpoint) int {
	if i := int(e.slot.Load()); i < len(s.all) && s.all[i] == e {
		return i
	}
	return slices.IndexFunc(s.all, e.same)
}

// left returns the best rank at which an endpoint is left that was not tried.
func (s *set) left(q Request) (rank, bool) {
	best, found := ranks, false
	for _, e := range s.all {
		if r := e.rank(q.Now); r < best && !slices.ContainsFunc(q.Tried, e.same) {
			if best, found = r, true; best == rankHealthy {
				break
			}
		}
	}
	return best, found
}
