package rates

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Seconds is how long a Window looks back: so many whole seconds before the present
// one, which has only begun.
const Seconds = 10

// Call is a request that has ended, as its caller has it.
type Call struct {
	Took       time.Duration
	Failed     bool
	Retries    int  // tries beyond the first
	OverBudget bool // another try would have been made had the budget allowed it
}

// Totals is what a Window has counted.
type Totals struct {
	Requests, Failed, Retries, OverBudget int
	// P50 and P99 are percentiles of the time that requests took, rounded up by a
	// quarter at most; what took more than 33 s counts as that. 0 without a request.
	P50, P99 time.Duration
}

// Window counts the calls of one service. Make it with its Began set; nothing else is
// to be set.
type Window struct {
	Began time.Time // seconds are counted from it, by the monotonic clock

	took                        [buckets]counter
	failed, retries, overBudget counter
}

// Note counts a call that has ended now. It takes no lock and allocates nothing.
func (w *Window) Note(c Call, now time.Time) {
	second := w.second(now)
	w.took[bucketOf(c.Took)].add(second, 1)
	if c.Failed {
		w.failed.add(second, 1)
	}
	if c.Retries > 0 {
		w.retries.add(second, uint64(c.Retries))
	}
	if c.OverBudget {
		w.overBudget.add(second, 1)
	}
}

// Read returns what the last whole Seconds have brought.
func (w *Window) Read(now time.Time) Totals {
	second := w.second(now)
	var took [buckets]int
	t := Totals{Failed: w.failed.before(second), Retries: w.retries.before(second), OverBudget: w.overBudget.before(second)}
	for n := range w.took {
		took[n] = w.took[n].before(second)
		t.Requests += took[n]
	}
	t.P50, t.P99 = percentile(&took, t.Requests, 50), percentile(&took, t.Requests, 99)
	return t
}

// silent reports whether nothing was counted for so long that nothing is left to read.
func (w *Window) silent(now time.Time) bool {
	second := w.second(now) + 1 // the present one too
	for n := range w.took {
		if w.took[n].before(second) > 0 {
			return false
		}
	}
	return true
}

func (w *Window) second(now time.Time) uint64 {
	return uint64(max(now.Sub(w.Began), 0) / time.Second)
}

// counter counts by seconds. Each of its words has the second in the upper half and the
// count in the lower one, so that a new second needs no clearing of an old one.
type counter [Seconds + 1]atomic.Uint64 // and the present second

const countBits = 32

func (c *counter) add(second, n uint64) {
	word := &c[second%uint64(len(c))]
	for {
		old := word.Load()
		next := old + n // also of a caller that was late, where a newer second has begun
		if old>>countBits < second {
			next = second<<countBits | n
		}
		if word.CompareAndSwap(old, next) {
			return
		}
	}
}

// before returns the sum of the Seconds before this one.
func (c *counter) before(second uint64) (sum int) {
	for n := range c {
		word := c[n].Load()
		if at := word >> countBits; at < second && at+Seconds >= second {
			sum += int(word & (1<<countBits - 1))
		}
	}
	return sum
}

// The histogram has a bucket for what is quicker than 128 µs, four for each doubling
// from there on, and one for what takes longer than 33 s.
const (
	leastBits = 7  // of microseconds: 128 µs
	mostBits  = 25 // 33.5 s
	subBits   = 2  // four to a doubling
	buckets   = (mostBits-leastBits)<<subBits + 2
)

func bucketOf(took time.Duration) int {
	micros := uint64(max(took.Microseconds(), 0))
	octave := bits.Len64(micros) - 1
	switch {
	case octave < leastBits:
		return 0
	case octave >= mostBits:
		return buckets - 1
	}
	sub := micros >> (octave - subBits) & (1<<subBits - 1)
	return 1 + (octave-leastBits)<<subBits + int(sub)
}

// upTo returns the end of a bucket; of the last one, its beginning.
func upTo(bucket int) time.Duration {
	switch bucket {
	case 0:
		return 1 << leastBits * time.Microsecond
	case buckets - 1:
		return 1 << mostBits * time.Microsecond
	}
	octave, sub := leastBits+(bucket-1)>>subBits, (bucket-1)&(1<<subBits-1)
	return time.Duration(1<<subBits+sub+1) << (octave - subBits) * time.Microsecond
}

// percentile returns the end of the bucket that the request of that rank is in.
func percentile(took *[buckets]int, requests, percent int) time.Duration {
	rank := (requests*percent + 99) / 100 // rounded up, from 1
	for n, count := range took {
		if rank -= count; count > 0 && rank <= 0 {
			return upTo(n)
		}
	}
	return 0
}
