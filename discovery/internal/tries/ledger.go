package tries

import (
	"sync"
	"sync/atomic"
	"time"
)

// window of a Ledger, in seconds. Shorter forgets quiet times sooner, so that fewer
// retries are there when an instance dies; longer lets a storm last.
const window = 10

// Ledger keeps a budget of retries for one service: in any ten seconds at most
// Ratio of that time's requests and Floor a second besides. Noting a request takes
// no lock.
type Ledger struct {
	Ratio, Floor float64
	Began        time.Time // seconds are counted from it

	asked [window]atomic.Uint64 // by second modulo window: the second, and the requests in it

	mu    sync.Mutex // guards what follows
	spent [window]uint64
}

// An entry is a second in the upper half and a count in the lower one.
const countBits = 32

func (l *Ledger) second(now time.Time) uint64 {
	return uint64(max(now.Sub(l.Began), 0) / time.Second)
}

// plus adds one to what an entry counts, if it is of that second or, by a
// caller that was late, of a newer one; else it begins a new one.
func plus(entry, second uint64) uint64 {
	if entry>>countBits < second {
		return second<<countBits | 1
	}
	return entry + 1
}

// within returns the count of an entry if its second lies in the window.
func within(entry, second uint64) uint64 {
	if entry>>countBits+window <= second {
		return 0
	}
	return entry & (1<<countBits - 1)
}

// Request notes a request.
func (l *Ledger) Request(now time.Time) {
	second := l.second(now)
	slot := &l.asked[second%window]
	for {
		old := slot.Load()
		if slot.CompareAndSwap(old, plus(old, second)) {
			return
		}
	}
}

// Spend takes one retry out: false if there is none left.
func (l *Ledger) Spend(now time.Time) bool {
	second := l.second(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left(second) < 1 {
		return false
	}
	slot := &l.spent[second%window]
	*slot = plus(*slot, second)
	return true
}

// Left returns how many retries Spend would give now.
func (l *Ledger) Left(now time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.left(l.second(now)), 0)
}

// left is negative after a time with more requests. The mutex is held.
func (l *Ledger) left(second uint64) int {
	var asked, spent uint64
	for n := range window {
		asked += within(l.asked[n].Load(), second)
		spent += within(l.spent[n], second)
	}
	return int(l.Ratio*float64(asked)+l.Floor*window) - int(spent)
}
