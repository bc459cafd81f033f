package tries

import (
	"math/rand/v2"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

const (
	// firstPause is the longest pause before an instance that was tried already
	// is tried again; it doubles with each such try, up to maxPause. The pause
	// is drawn from the whole range, so that callers that failed together do not
	// come back together ("full jitter": M. Brooker, "Exponential Backoff And
	// Jitter", AWS Architecture Blog, 2015). Another instance is tried at once.
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
	// maxRetryAfter is the longest Retry-After of the only instance left that is
	// waited for; with a longer one the caller gets the answer.
	maxRetryAfter = time.Second
	// maxSpared is how many dials that were refused at once do not count as
	// tries while an instance is left that was not tried: the catalog may be
	// full of addresses at which nothing listens.
	maxSpared = 20
	// maxStalls is how many dials may take too long before an instance that was
	// tried, or is ejected or critical, is not tried any more: an address that
	// swallows packets will do so again, and the caller waits.
	maxStalls = 2
)

// again decides whether the request is tried once more after this try, and how
// long to wait before. If so, the retry is paid for, and the body is taken from
// the try.
func (c *Call[A]) again(a A) (wait time.Duration, ok bool) {
	t := a.Base()
	row := t.Code.Row()
	if t.Final || row.Again == outcome.Never || row.Again == outcome.IfRepeatable && !c.Repeatable || c.Ctx.Err() != nil || c.closed() {
		return 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.count() > c.Rules.MaxRetries || !c.Sender.Left() {
		return 0, false
	}
	if t.Code == outcome.Stalled {
		c.stalls++
	}
	if c.elsewhere(t, row) {
		if row.Proves == outcome.Absent && c.spared < maxSpared {
			c.spared++
		}
	} else if wait, ok = c.sameAgain(a, row); !ok {
		return 0, false
	}
	if row.Costs && !t.paid && !c.spend() {
		return 0, false
	}
	return wait, c.Sender.Again()
}

// elsewhere reports whether an instance is left that was not tried, and is worth
// it: one that is ejected or critical is not when it may swallow one dial more,
// for what was shed, or beside a try that runs.
func (c *Call[A]) elsewhere(t *Try, row outcome.Row) bool {
	inUse, found := t.Balancer.Left(balancer.Request{Now: time.Now(), Tried: c.tried})
	return inUse || found && !t.Beside && c.stalls < maxStalls && !row.Shed()
}

// sameAgain reports whether an instance that was tried is tried again, and after
// how long. An instance that sheds has told the caller when to come again: to
// wait here would only move the queue.
func (c *Call[A]) sameAgain(a A, row outcome.Row) (wait time.Duration, ok bool) {
	if a.Base().Beside || row.Shed() || c.stalls >= maxStalls || len(c.tried) > c.Rules.MaxRetries {
		return 0, false
	}
	if a.Answered() && row.Proves != outcome.Absent { // only if it says when to come again
		wait = a.ComeAgain(time.Now())
		if wait <= 0 || wait > maxRetryAfter {
			return 0, false
		}
	}
	wait += rand.N(min(firstPause<<(len(c.tried)-1), maxPause))
	if !c.Limit.IsZero() && time.Until(c.Limit) <= wait {
		return 0, false
	}
	return wait, true
}

// spend takes a retry out of the service's budget, or notes that there was none.
// Call it with the mutex held.
func (c *Call[A]) spend() bool {
	ok := c.ledger.Spend(time.Now())
	if !ok {
		c.overBudget = true
	}
	return ok
}

// pause waits before the only instance left is tried again.
func (c *Call[A]) pause(wait time.Duration) {
	if wait <= 0 {
		return
	}
	c.mu.Lock()
	quit := c.quit
	c.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-quit:
	case <-c.Ctx.Done():
	case <-c.Rules.Closed:
	}
}
