package httpmesh

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Budget bounds the retries that cost an instance work, so that a service whose
// every instance fails is asked little more than its callers ask: in any
// budgetWindow seconds, at most Ratio of that time's requests and Floor a second
// besides. Tries that never connected, or of which nothing was written, and those
// of a 421 are free, as gRFC A6's transparent retries; MaxRetries holds for all.
//
// It is Finagle's RetryBudget (com.twitter.finagle.service.RetryBudget: a share
// of recent requests, a floor a second, over 10 s), which linkerd took over, kept
// for each service and Transport.
type Budget struct {
	// Ratio of retries to requests. 0 means 0.1, negative means none. More lets
	// more requests outlive a failing instance, and adds as much to the load of
	// a service that is failing for its load.
	Ratio float64
	// Floor is a number of retries a second that are always allowed, for
	// services that are seldom asked. 0 means 3, negative means none.
	Floor float64
}

const (
	defaultRatio = 0.1
	defaultFloor = 3
	maxFloor     = 1000
	// budgetWindow is in seconds. Shorter forgets quiet times sooner, so that
	// fewer retries are there when an instance dies; longer lets a storm last.
	budgetWindow = 10
)

// filled returns the settings with their defaults, or what is wrong with them.
func (b Budget) filled() (Budget, error) {
	var wrong []error
	if !(b.Ratio <= maxMaxRetries) { // NaN too
		wrong = append(wrong, fmt.Errorf("httpmesh: Budget.Ratio is %v; want at most %d, or negative for none", b.Ratio, maxMaxRetries))
	}
	if !(b.Floor <= maxFloor) {
		wrong = append(wrong, fmt.Errorf("httpmesh: Budget.Floor is %v; want at most %d a second, or negative for none", b.Floor, maxFloor))
	}
	if b.Ratio == 0 {
		b.Ratio = defaultRatio
	}
	if b.Floor == 0 {
		b.Floor = defaultFloor
	}
	return Budget{max(b.Ratio, 0), max(b.Floor, 0)}, errors.Join(wrong...)
}

// ledger keeps a Budget for one service. Noting a request takes no lock.
type ledger struct {
	budget Budget
	began  time.Time
	asked  [budgetWindow]atomic.Uint64 // by second modulo window: the second, and the requests in it

	mu    sync.Mutex // guards what follows
	spent [budgetWindow]uint64
}

// An entry is a second in the upper half and a count in the lower one.
const countBits = 32

func (l *ledger) second(now time.Time) uint64 {
	return uint64(max(now.Sub(l.began), 0) / time.Second)
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
	if entry>>countBits+budgetWindow <= second {
		return 0
	}
	return entry & (1<<countBits - 1)
}

// request notes a request.
func (l *ledger) request(now time.Time) {
	second := l.second(now)
	slot := &l.asked[second%budgetWindow]
	for {
		old := slot.Load()
		if slot.CompareAndSwap(old, plus(old, second)) {
			return
		}
	}
}

// spend takes one retry out: false if there is none left.
func (l *ledger) spend(now time.Time) bool {
	second := l.second(now)
	l.mu.Lock()
	defer l.mu.Unlock()
	var asked, spent uint64
	for n := range budgetWindow {
		asked += within(l.asked[n].Load(), second)
		spent += within(l.spent[n], second)
	}
	if float64(spent+1) > l.budget.Ratio*float64(asked)+l.budget.Floor*budgetWindow {
		return false
	}
	slot := &l.spent[second%budgetWindow]
	*slot = plus(*slot, second)
	return true
}
