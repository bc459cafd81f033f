package balancer

import (
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// PeakEWMA is the default policy: the power of two choices, as P2C, over latency
// and load. Of two endpoints drawn by weight the one with the smaller product of
// latency and requests in flight (one more included, for its weight) wins.
//
// The latency is that to the response's headers, as a moving average that jumps
// up to a peak and decays with time (Finagle's Peak EWMA, also the balancer of
// linkerd2-proxy). Three things differ from Finagle's, all so that like
// instances share a light load evenly though their latencies never are alike:
//   - the least of an endpoint's latest three latencies counts, so one hiccup
//     is nothing;
//   - latencies count as Floor at least, and are equal within a factor of two;
//   - equals are chosen as P2C does: by requests in flight, then the one
//     that was served least for its weight.
//
// Nothing is known of a newcomer's latency, nor of one that was not asked for
// five times Decay: its load alone counts then, so it is neither flooded nor
// starved. That is also how a slow endpoint is asked now and then, one request
// at a time, and is back in use soon after it is quick again.
//
// Its state is in the Endpoint and survives a change of the set.
type PeakEWMA struct {
	// Floor is the least latency that counts. 0 or less means 1ms. Higher shares
	// more evenly; lower tells quick instances apart.
	Floor time.Duration
	// Decay is the time in which an estimate falls to 1/e when nothing renews
	// it. 0 or less means 1s. Shorter forgets a slow time sooner, and asks a
	// slow instance more often.
	Decay time.Duration
}

const (
	defaultFloor = time.Millisecond
	defaultDecay = time.Second
	// equalWithin is how many times as slow an endpoint may be and still be as
	// good. Latencies of like instances differ by more than a quarter at nearly
	// all times, see TestLikeInstancesShareEvenlyThoughTheirLatenciesAreNoisy.
	equalWithin = 2
)

func (p PeakEWMA) floor() float64 {
	if p.Floor <= 0 {
		return float64(defaultFloor.Microseconds())
	}
	return float64(p.Floor) / float64(time.Microsecond)
}

func (p PeakEWMA) decay() time.Duration {
	if p.Decay <= 0 {
		return defaultDecay
	}
	return p.Decay
}

// Learn takes the latency of an answer. That of a failure says nothing: neither
// quick failures nor slow ones tell how quick an answer would be.
func (p PeakEWMA) Learn(e *Endpoint, r outcome.Result) {
	if r.Code.Proves() == outcome.Good && r.Latency > 0 {
		e.estimate.observe(r.Latency, r.At, p.decay())
	}
}

// Latency returns the estimate as it is now; 0 if nothing is known.
func (p PeakEWMA) Latency(e *Endpoint, now time.Time) time.Duration {
	micros, _ := e.estimate.latency(millis(e.estimate.base, now), p.decay())
	return time.Duration(micros * float64(time.Microsecond))
}

// Pick chooses an endpoint; nil when every one was tried.
func (p PeakEWMA) Pick(t Tier, q Request) *Endpoint {
	a, b := t.two(q)
	if b == nil {
		return a
	}
	return p.better(t, a, b, q.Now)
}

func (p PeakEWMA) better(t Tier, a, b *Endpoint, now time.Time) *Endpoint {
	decay, floor := p.decay(), p.floor()
	at := millis(t.set.base, now)
	ca, oka := a.estimate.latency(at, decay)
	cb, okb := b.estimate.latency(at, decay)
	ca, cb = max(ca, floor), max(cb, floor)
	if !oka || !okb || ca <= equalWithin*cb && cb <= equalWithin*ca {
		return t.lessLoaded(a, b)
	}
	// With like weights this is latency × (in flight + 1). The one more is for
	// the greater weight of the two: so what is idle is compared by latency
	// alone, and little weight is not held against an endpoint twice (it is
	// drawn less often already).
	wa, wb := float64(a.weight.Load()), float64(b.weight.Load())
	one := 1 / max(wa, wb)
	ca *= float64(a.load.inFlight())/wa + one
	cb *= float64(b.load.inFlight())/wb + one
	switch {
	case ca*equalWithin < cb:
		return a
	case cb*equalWithin < ca:
		return b
	}
	return t.nextTurn(a, b)
}
