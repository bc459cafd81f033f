package httpmesh

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	// firstPause is the longest pause before an instance that was tried already
	// is tried again; it doubles with each such try, up to maxPause. The pause
	// is drawn from the whole range, so that callers who failed together do not
	// come back together ("full jitter": M. Brooker, "Exponential Backoff And
	// Jitter", AWS Architecture Blog, 2015). Another instance is tried at once.
	firstPause = 50 * time.Millisecond
	maxPause   = time.Second
	// maxRetryAfter is the longest Retry-After of the only instance left that is
	// waited for; with a longer one the caller gets the answer.
	maxRetryAfter = time.Second
	// maxSpared is how many dials that were refused at once do not count as
	// tries while an instance is left that was not tried: the catalog may be
	// full of addresses at which nobody listens.
	maxSpared = 20
	// maxLost is how many dials may time out before one that was tried, or that
	// is ejected or critical, is not tried any more: an address that swallows packets will do
	// so again, and the caller waits.
	maxLost = 2
)

// errTryTimeout is the cause of a try that Config.TryTimeout ended.
var errTryTimeout = errors.New("no response within TryTimeout")

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
	return safe(x.report.Method) || x.r.Header.Get(keyHeader) != ""
}

// mayTimeOut reports whether TryTimeout holds for this request at all: it must
// be one that can be sent again whatever has become of it.
func (x *exchange) mayTimeOut() bool {
	return x.t.cfg.TryTimeout > 0 && x.body.inner == nil && x.repeatable() && x.r.Header.Get("Upgrade") == ""
}

// again decides whether the request is tried once more after this try, and how
// long to wait before. If so, the retry is paid for, and the body is taken from
// the try.
func (x *exchange) again(a *attempt, v *verdict) (wait time.Duration, ok bool) {
	if !v.again || x.r.Context().Err() != nil || x.t.isClosed() || !x.body.left() {
		return 0, false
	}
	if v.lost {
		x.lost++
	}
	if a.lease.Another() || a.lease.Spare() && x.lost < maxLost && !v.load {
		if v.unreachable && !v.lost && x.spared < maxSpared {
			x.spared++
		}
	} else {
		// Who sheds has told the caller when to come again: to wait here would
		// only move the queue.
		if v.load || x.lost >= maxLost || len(x.tried) > x.t.cfg.MaxRetries {
			return 0, false
		}
		if v.answered { // by the only instance left: only if it says when to come again
			if v.after <= 0 || v.after > maxRetryAfter {
				return 0, false
			}
			wait = v.after
		}
		longest := min(firstPause<<(len(x.tried)-1), maxPause)
		wait += rand.N(longest)
		if !x.limit.IsZero() && time.Until(x.limit) <= wait {
			return 0, false
		}
	}
	if !v.free && !a.cut() && !x.spend() {
		return 0, false
	}
	return wait, x.body.again()
}

// spend takes a retry out of the service's budget, or notes that there was none.
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
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
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
