package httpmesh

import (
	"math/rand/v2"
	"net/http"
	"strconv"
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

// keyHeader says that its sender wants a request done once, however often it
// arrives (draft-ietf-httpapi-idempotency-key-header).
const keyHeader = "Idempotency-Key"

// safe reports whether the method is safe as RFC 9110, section 9.2.1 has it.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// repeatable reports whether the request may be sent again though it may have
// been served.
func (x *exchange) repeatable() bool {
	return x.group == outcome.Safe || x.r.Header.Get(keyHeader) != ""
}

// again decides whether the request is tried once more after this try, and how
// long to wait before. If so, the retry is paid for, and the body is taken from
// the try.
func (x *exchange) again(a *attempt) (wait time.Duration, ok bool) {
	row := a.code.Row()
	if row.Again == outcome.Never || row.Again == outcome.IfRepeatable && !x.repeatable() || x.r.Context().Err() != nil || x.t.isClosed() {
		return 0, false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || x.count() > x.t.cfg.MaxRetries || !x.body.left() {
		return 0, false
	}
	if a.code == outcome.Stalled {
		x.stalls++
	}
	if x.elsewhere(a, row) {
		if row.Proves == outcome.Absent && x.spared < maxSpared {
			x.spared++
		}
	} else if wait, ok = x.sameAgain(a, row); !ok {
		return 0, false
	}
	if row.Costs && !a.paid && !x.spend() {
		return 0, false
	}
	return wait, x.body.again()
}

// elsewhere reports whether an instance is left that was not tried, and is worth
// it: one that is ejected or critical is not when it may swallow one dial more,
// for what was shed, or beside a try that runs.
func (x *exchange) elsewhere(a *attempt, row outcome.Row) bool {
	inUse, found := a.route.balancer.Left(balancer.Request{Now: time.Now(), Tried: x.tried})
	return inUse || found && !a.beside && x.stalls < maxStalls && !row.Shed()
}

// sameAgain reports whether an instance that was tried is tried again, and after
// how long. An instance that sheds has told the caller when to come again: to
// wait here would only move the queue.
func (x *exchange) sameAgain(a *attempt, row outcome.Row) (wait time.Duration, ok bool) {
	if a.beside || row.Shed() || x.stalls >= maxStalls || len(x.tried) > x.t.cfg.MaxRetries {
		return 0, false
	}
	if a.resp != nil && row.Proves != outcome.Absent { // only if it says when to come again
		wait = retryAfter(a.resp.Header, time.Now())
		if wait <= 0 || wait > maxRetryAfter {
			return 0, false
		}
	}
	wait += rand.N(min(firstPause<<(len(x.tried)-1), maxPause))
	if !x.limit.IsZero() && time.Until(x.limit) <= wait {
		return 0, false
	}
	return wait, true
}

// spend takes a retry out of the service's budget, or notes that there was none.
// Call it with the mutex held.
func (x *exchange) spend() bool {
	ok := x.ledger.spend(time.Now())
	if !ok {
		x.report.OverBudget = true
	}
	return ok
}

// pause waits before the only instance left is tried again.
func (x *exchange) pause(wait time.Duration) {
	if wait <= 0 {
		return
	}
	x.mu.Lock()
	quit := x.quit
	x.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-quit:
	case <-x.r.Context().Done():
	case <-x.t.closed:
	}
}

// retryAfter reads the header Retry-After (RFC 9110, section 10.2.3); 0 if there
// is none that makes sense.
func retryAfter(h http.Header, now time.Time) time.Duration {
	const most = 1 << 30 // seconds; more would overflow
	said := h.Get("Retry-After")
	if said == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(said, 10, 32); err == nil {
		return time.Duration(min(seconds, most)) * time.Second
	}
	if at, err := http.ParseTime(said); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
