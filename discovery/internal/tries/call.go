// Package tries makes one request of several tries: whether it is tried again, where,
// after how long, and beside which other try. It is what the transports share; what
// a try is, each of them says.
//
// A transport's request embeds a [Call], and each of its tries a [Try]. Tries are
// made one after the other by the caller's goroutine. When one has had the patience
// of [Rules] without an answer, another may run beside it, in a lane of its own; the
// mutex is for that time.
package tries

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// Attempt is one try as a transport makes it. It embeds a Try.
type Attempt interface {
	comparable
	// Base is the Try.
	Base() *Try
	// Send makes the try, and notes in its Code how it ended.
	Send()
	// Answered reports whether it has an answer that the caller may get.
	Answered() bool
	// ComeAgain is how long its answer wants the sender to wait; 0: it does not say,
	// or says never.
	ComeAgain(now time.Time) time.Duration
	// Discard ends a try whose answer, if it has one, is not used.
	Discard()
}

// Sender is a request as a transport makes it: it embeds a Call.
type Sender[A Attempt] interface {
	// Begin prepares the next try by Pick and Began. An error says that there is none.
	Begin(beside bool) (A, outcome.Code, error)
	// Left reports whether the request could be sent once more, as far as can be
	// seen; Again takes it from the try before, and reports whether that could be
	// done. They are called with the lock held.
	Left() bool
	Again() bool
}

// Rules are what a transport's Calls have in common.
type Rules struct {
	MaxRetries int             // the number of tries after the first that count
	Patience   time.Duration   // how long a silence is that counts
	Closed     <-chan struct{} // closed with the transport
}

// Call is one request over all of its tries.
type Call[A Attempt] struct {
	Sender     Sender[A]
	Rules      *Rules
	Ctx        context.Context //nolint:containedctx // the request's, as http.Request has it
	Group      outcome.Group
	Prefer     *balancer.Preference // nil: any instance
	Repeatable bool                 // it may be sent again though it may have been served
	Limit      time.Time            // until when the answer is waited for; zero: for ever
	Raced      atomic.Bool          // two tries have run beside each other

	mu         sync.Mutex // guards what follows, and Try's ended and paid
	ledger     *Ledger    // of the service; nil before the first pick
	tried      []*balancer.Endpoint
	spared     int                   // of those tried: refused at once, with others left, so that they don't count
	stalls     int                   // dials that took too long
	room       [4]*balancer.Endpoint // for tried
	current    A                     // the caller's goroutine's
	beside     *lane[A]              // nil: nothing has run beside it
	winner     A                     // the first that was answered well
	over       bool                  // no try begins any more
	overBudget bool                  // a try was not made for want of budget
	quit       chan struct{}         // closed when over; nil: nothing has run beside it
}

// Try is one attempt as its Call knows it.
type Try struct {
	Lease    balancer.Lease
	Balancer *balancer.Balancer // that gave the lease
	Start    time.Time
	Cancel   context.CancelCauseFunc
	Code     outcome.Code // how it ended

	// Final says that the answer forbids another try.
	Final bool
	// Impatient says that its patience is over, and that another try runs for it, or
	// will.
	Impatient atomic.Bool
	// Beside says that it runs in a lane.
	Beside bool
	// After is how the try before it ended, of its lane if it is in one; None: it is the
	// first.
	After outcome.Code

	ended bool // what it was sent for came or failed
	paid  bool // the next try is
}

var errOver = errors.New("the request is over")

// Lock and Unlock guard what a Sender notes of its tries.
func (c *Call[A]) Lock() { c.mu.Lock() }

// Unlock is Lock's end.
func (c *Call[A]) Unlock() { c.mu.Unlock() }

// Pick leases an endpoint for the next try. An error says that there is none; code
// says why. The lock is held.
func (c *Call[A]) Pick(b *balancer.Balancer, now time.Time) (lease balancer.Lease, code outcome.Code, err error) {
	if c.over {
		return lease, outcome.Outrun, errOver
	}
	lease, err = b.Pick(balancer.Request{Now: now, Group: c.Group, Tried: c.tried, Prefer: c.Prefer})
	if err != nil {
		return lease, outcome.NoInstance, err
	}
	return lease, outcome.None, nil
}

// Began notes a try that is ready to be sent. The lock is held.
func (c *Call[A]) Began(a A, ledger *Ledger, beside bool) {
	t := a.Base()
	if c.ledger == nil {
		c.ledger = ledger
		ledger.Request(t.Start)
		c.tried = c.room[:0]
	}
	c.tried = append(c.tried, t.Lease.Endpoint())
	lane := &c.current
	if beside {
		lane, t.Beside = &c.beside.current, true
	}
	var none A
	if before := *lane; before != none {
		t.After = before.Base().Code
	}
	*lane = a
}

// Ended notes that a try has ended, and reports whether it was cut before. The
// context is the try's.
func (c *Call[A]) Ended(t *Try, ctx context.Context) bool { //nolint:revive // the context is what is asked about
	c.mu.Lock()
	defer c.mu.Unlock()
	t.ended = true
	return ctx.Err() != nil && c.Ctx.Err() == nil
}

// OverBudget reports whether another try would have been made had the budget
// allowed it. Ask it after Run.
func (c *Call[A]) OverBudget() bool { return c.overBudget }

// SourceCode says what an error of the source is called.
func (c *Call[A]) SourceCode(err error) outcome.Code {
	switch ended := c.Ctx.Err(); {
	case errors.Is(err, catalog.ErrClosed):
		return outcome.Closed
	case ended == nil:
		return outcome.NoInstance
	case errors.Is(ended, context.DeadlineExceeded):
		return outcome.Timeout
	}
	return outcome.Canceled
}

// closed reports whether the transport was closed.
func (c *Call[A]) closed() bool {
	select {
	case <-c.Rules.Closed:
		return true
	default:
		return false
	}
}

// count is how many tries count. The lock is held.
func (c *Call[A]) count() int { return len(c.tried) - c.spared }

// Run sends the request, again and again as far as the rules allow. It returns the
// try whose answer or failure is the request's, the zero A if none was made; won
// says that it was answered well. An error says why there is no further try.
func (c *Call[A]) Run() (used A, won bool, code outcome.Code, err error) {
	var last A
	for {
		a, code, err := c.Sender.Begin(false)
		if err != nil {
			return c.finish(last, code, err)
		}
		a.Send()
		last = a
		code = a.Base().Code
		if code == outcome.OK && c.claim(a) {
			return c.finish(a, code, nil)
		}
		wait, again := c.again(a)
		if !again {
			return c.finish(a, code, nil)
		}
		a.Discard()
		c.pause(wait)
	}
}

// finish ends the request. last is the latest try of the caller's goroutine, code
// and err say why there is no further one.
func (c *Call[A]) finish(last A, code outcome.Code, err error) (A, bool, outcome.Code, error) {
	var none A
	rival := c.join(last)
	used, won := c.winner, c.winner != none // nothing runs any more
	switch {
	case won:
		code, err = used.Base().Code, nil
	default:
		// The last failure is the answer, and an answer before none.
		used = last
		if rival != none && (rival.Answered() || last == none || !last.Answered()) {
			used, code, err = rival, rival.Base().Code, nil
		}
	}
	for _, other := range []A{last, rival} {
		if other != none && other != used {
			other.Discard()
		}
	}
	return used, won, code, err
}

// Rerun goes on after a try that Run had returned as one that was answered well, and
// that has failed since, before anything of it was used: a stream without a message.
// It reports false if there is no further try. Nothing may run beside.
func (c *Call[A]) Rerun(a A) (used A, won, again bool) {
	var none A
	c.mu.Lock()
	c.winner, c.over = none, false
	c.mu.Unlock()
	wait, again := c.again(a)
	if !again {
		return used, false, false
	}
	c.pause(wait)
	used, won, _, _ = c.Run()
	return used, won, true
}
