package balancer

import (
	"sync/atomic"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// P2C is the power of two choices. Two endpoints are drawn
// at random by weight, and the one with fewer requests in flight for its weight
// wins (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
// 2001). So a burst never goes to one endpoint that looked best a moment ago,
// and the cost does not grow with their number.
//
// Equals go to the one that was served least for its weight, so that instances
// under a light load share it evenly, or by weight, instead of by luck. Each
// endpoint has a virtual time, which a pick moves on by 1/weight; the earlier
// one is next, as in stride scheduling (Waldspurger and Weihl, "Stride
// Scheduling: Deterministic Proportional-Share Resource Management", 1995).
// With like weights that is the least recently picked. A newcomer starts at the
// present virtual time, and one that was passed over for long is owed a few
// rounds at most, so neither is flooded.
type P2C struct{}

// Pick chooses an endpoint; nil when every one was tried.
func (P2C) Pick(t Tier, q Request) *Endpoint {
	a, b := t.two(q)
	if b == nil {
		return a
	}
	return t.lessLoaded(a, b)
}

// Learn does nothing: the load is counted by the endpoints.
func (P2C) Learn(*Endpoint, outcome.Result) {}

// two draws two endpoints; the second is nil if there is only one, and the first
// too if there is none.
func (t Tier) two(q Request) (a, b *Endpoint) {
	if a = t.Sample(q, nil); a != nil {
		b = t.Sample(q, a)
	}
	return a, b
}

// lessLoaded returns the one with fewer requests in flight for its weight.
func (t Tier) lessLoaded(a, b *Endpoint) *Endpoint {
	wa, wb := int64(a.weight.Load()), int64(b.weight.Load())
	fa, fb := a.load.inFlight(), b.load.inFlight()
	switch {
	case lighter(fa, wa, fb, wb):
		return a
	case lighter(fb, wb, fa, wa):
		return b
	}
	return t.nextTurn(a, b)
}

// nextTurn returns the one that was served least for its weight.
func (t Tier) nextTurn(a, b *Endpoint) *Endpoint {
	now := t.set.clock.Load()
	if earlier(b.turn(now, t.set.slack), a.turn(now, t.set.slack)) {
		return b
	}
	return a
}

// lighter reports whether f requests on weight w are a lighter load than g on
// v, as things are and with one more on each. Weights that differ can make the
// two disagree (0 on 1 against 2 on 8); those are equals, else the endpoint of
// little weight got more than its share whenever there is little to do.
func lighter(f, w, g, v int64) bool {
	return f*v < g*w && (f+1)*v <= (g+1)*w
}

const (
	// strideOne is the virtual time of one pick at weight 1. At the greatest
	// weight, 65535, a stride is rounded by less than 2 in 100,000.
	strideOne = 1 << 32
	// slackRounds is how many picks an endpoint of the least weight may be
	// behind. Fewer, and the chance of two draws would show in the shares;
	// more, and an endpoint that was busy for long would be flooded when it
	// is free again.
	slackRounds = 4
)

func stride(weight uint32) uint64 { return strideOne / uint64(max(weight, 1)) }

// earlier compares virtual times, which wrap around.
func earlier(a, b uint64) bool { return int64(a-b) < 0 }

// turn returns the virtual time of the endpoint's next turn, at the earliest
// slack before now.
func (e *Endpoint) turn(now, slack uint64) uint64 {
	if pass := e.pass.Load(); earlier(now-slack, pass) {
		return pass
	}
	return now - slack
}

// serve notes that the endpoint was picked. The clock follows the latest turn
// taken, which needs no sum over all endpoints and can't drift from them (as in
// start-time fair queueing: Goyal, Vin and Cheng, 1996).
func (e *Endpoint) serve(clock *atomic.Uint64, slack uint64) {
	now, pass := clock.Load(), e.pass.Load()
	turn, step := e.turn(now, slack), stride(e.weight.Load())
	if !e.pass.CompareAndSwap(pass, turn+step) {
		e.pass.Add(step) // another pick was faster; it did the rest
	}
	if earlier(now, turn) {
		clock.CompareAndSwap(now, turn) // what is faster has a later time, or nearly
	}
}
