package grpcmesh

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// restAfter is how long a stream moves no message before it is no load any more.
const restAfter = time.Second

// flow is the load of a stream.
type flow struct {
	attempt  *attempt
	once     sync.Once   // its end
	messages atomic.Bool // one was received

	mu      sync.Mutex // guards what follows
	timer   *time.Timer
	moved   time.Time
	load    balancer.Body
	waiting bool // it has its lease; else its load
	resting bool
	over    bool
	unwatch func() bool
}

func newFlow(a *attempt) *flow {
	f := &flow{attempt: a, waiting: true, moved: time.Now()}
	f.timer = time.AfterFunc(restAfter, f.tick)
	return f
}

// watch ends the stream with the caller's context: a caller may leave it by that, and
// not look at it again.
func (f *flow) watch() {
	a := f.attempt
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unwatch = context.AfterFunc(a.call.Ctx, func() { a.over(a.call.Ctx.Err()) })
}

func (f *flow) result(code outcome.Code) outcome.Result {
	a := f.attempt
	return outcome.Result{Code: code, Group: a.call.Group, Began: a.Start, At: time.Now()}
}

// tick is called when the stream may have rested for restAfter.
func (f *flow) tick() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over || f.resting {
		return
	}
	if left := restAfter - time.Since(f.moved); left > 0 {
		f.timer.Reset(left)
		return
	}
	if f.waiting { // for an answer that may be long in coming, and proves nothing so far
		f.waiting, f.load = false, f.attempt.Lease.Answered(f.result(outcome.None))
	}
	f.resting = true
	f.load.Rest()
}

// move notes that a message was sent or received.
func (f *flow) move() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved = time.Now()
	f.resume()
}

func (f *flow) resume() {
	if f.resting && !f.over {
		f.resting = false
		f.load.Resume()
		f.timer.Reset(restAfter)
	}
}

// received notes a message of the server's; it reports whether it is the first, which
// proves that it serves.
func (f *flow) received() (first bool) {
	f.move()
	if f.messages.Load() || f.messages.Swap(true) {
		return false
	}
	r := f.result(outcome.OK)
	r.Latency = r.At.Sub(r.Began)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting {
		f.waiting, f.load = false, f.attempt.Lease.Answered(r)
		return true
	}
	f.attempt.Balancer.Note(f.attempt.Lease.Endpoint(), r)
	return true
}

// end gives back the lease or the load.
func (f *flow) end(r outcome.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.unwatch != nil {
		f.unwatch()
	}
	f.resume()
	f.over = true
	f.timer.Stop()
	switch {
	case f.waiting:
		f.attempt.Lease.Done(r)
	case f.messages.Load():
		if r.Code != outcome.OK && r.Code != outcome.BodyBroken {
			r.Code = outcome.None
		}
		f.load.Done(r)
	default: // the first that is known of it
		f.load.Done(f.result(outcome.None))
		f.attempt.Balancer.Note(f.attempt.Lease.Endpoint(), r)
	}
}
