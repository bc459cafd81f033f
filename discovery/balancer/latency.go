package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// estimate is what PeakEWMA knows of an endpoint. It is changed without a lock:
// of two outcomes at the same instant one may count for less.
type estimate struct {
	cost atomic.Uint64 // packed: when, and the latency then; 0: nothing known
	seen atomic.Uint64 // the two latencies before, 32 bits of microseconds each
	base time.Time     // times are counted from it, by the monotonic clock
}

// observe takes the latency of an answer.
//
// The least of the latest three counts: an instance is slow when it is slow
// three times in a row. One hiccup (a pause of the garbage collector, a cold
// cache, a stalled disk) is in every service's latencies, and if each of them
// counted, like instances would take turns at being starved. Before the third
// answer nothing is known: the first ones pay for connections and cold caches.
func (s *estimate) observe(latency time.Duration, at time.Time, decay time.Duration) {
	took := uint64(micros(latency))
	seen := s.seen.Load()
	s.seen.Store(seen<<32 | took)
	if one, two := seen&math.MaxUint32, seen>>32; two != 0 {
		s.add(float64(min(took, one, two)), at, decay)
	}
}

// add moves the estimate: up at once, down by the time since it last moved
// (Finagle's Peak EWMA: com.twitter.finagle.loadbalancer.PeakEwma, Metric.observe).
func (s *estimate) add(micros float64, at time.Time, decay time.Duration) {
	now := millis(s.base, at)
	for {
		old := s.cost.Load()
		cost, age := unpack(old, now)
		if old != 0 && micros < cost {
			w := math.Exp(-float64(age) / float64(decay))
			micros = cost*w + micros*(1-w)
		}
		if s.cost.CompareAndSwap(old, pack(micros, now)) {
			return
		}
	}
}

// forgotten is after how many times the decay an estimate says nothing any more.
const forgotten = 5

// latency returns the estimate in microseconds as it has decayed since it last
// moved: so a slow endpoint is asked again in time, without a probe.
// It is false if nothing is known.
func (s *estimate) latency(now uint32, decay time.Duration) (micros float64, known bool) {
	state := s.cost.Load()
	if state == 0 {
		return 0, false
	}
	micros, age := unpack(state, now)
	if age > forgotten*decay {
		return 0, false
	}
	if age > 0 {
		micros *= math.Exp(-float64(age) / float64(decay))
	}
	return micros, true
}

// pack puts an estimate and its time into one word, so that both change at
// once. The time is in milliseconds, of which 32 bits wrap around in 49 days.
func pack(micros float64, millis uint32) uint64 {
	return uint64(math.Float32bits(float32(micros)))<<32 | uint64(millis)
}

// millis is a time as an estimate packs it.
func millis(base, at time.Time) uint32 { return uint32(at.Sub(base).Milliseconds()) }

// unpack returns the estimate and its age. One from the future is new, as
// outcomes may come in any order; or it is so old that the time has wrapped.
func unpack(state uint64, millis uint32) (micros float64, age time.Duration) {
	const disorder = time.Hour
	age = time.Duration(int32(millis-uint32(state))) * time.Millisecond
	switch {
	case age < -disorder:
		age = math.MaxInt64
	case age < 0:
		age = 0
	}
	return float64(math.Float32frombits(uint32(state >> 32))), age
}
