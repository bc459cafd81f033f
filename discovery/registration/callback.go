package registration

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// callbackLimit is how long Ready and Arrivals may take.
	callbackLimit = time.Second
	// callbackQueue is how many calls of Trace may wait; more are left out.
	callbackQueue = 256
	// callbackFlush is how long Close waits for them.
	callbackFlush = 100 * time.Millisecond
)

// callbacks calls the functions of a Trace, one after the other, beside the
// instance's life: one that hangs or panics holds up nothing but the others.
type callbacks struct {
	done chan struct{}

	mu    sync.Mutex // guards queue
	queue chan func()
}

func (c *callbacks) begin() {
	queue := make(chan func(), callbackQueue)
	c.queue, c.done = queue, make(chan struct{})
	go func() {
		defer close(c.done)
		for f := range queue {
			calmly(f)
		}
	}()
}

// do has f called. What does not fit into the queue, or comes after the end, is left
// out.
func (c *callbacks) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case c.queue <- f:
	default:
	}
}

// end waits for what is queued, but not for what hangs.
func (c *callbacks) end() {
	c.mu.Lock()
	close(c.queue)
	c.queue = nil // into which nothing fits
	c.mu.Unlock()
	timer := time.NewTimer(callbackFlush)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	}
}

func calmly(f func()) {
	defer func() { _ = recover() }() // a callback's panic is not ours to die of
	f()
}

// asked is a function of the user's that is to answer: Ready, Arrivals. A call that
// hangs is not made again until it has returned.
type asked[T any] struct {
	name string
	f    func() T
	busy atomic.Bool
}

// errCutShort means that what asked has no more use for the answer.
var errCutShort = errors.New("not waited for")

// ask returns the function's answer, or an error that it has panicked, does not
// answer within the limit, or that done was closed.
func (a *asked[T]) ask(done <-chan struct{}, limit time.Duration) (T, error) {
	var zero T
	if !a.busy.CompareAndSwap(false, true) {
		return zero, fmt.Errorf("%s has not returned since it was last called", a.name)
	}
	type result struct {
		value T
		err   error
	}
	got := make(chan result, 1)
	go func() {
		r := result{err: fmt.Errorf("%s panicked", a.name)}
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%s panicked: %v", a.name, p)
			}
			a.busy.Store(false)
			got <- r
		}()
		r = result{value: a.f()}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-got:
		return r.value, r.err
	case <-done:
		return zero, errCutShort
	case <-timer.C:
		return zero, fmt.Errorf("%s has not answered for %v", a.name, limit)
	}
}
