package httpmesh

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// keyHeader says that its sender wants a request done once, however often it
// arrives (draft-ietf-httpapi-idempotency-key-header).
const keyHeader = "Idempotency-Key"

type maxTriesKey struct{}

// WithMaxTries returns a context whose requests are sent that many times at most,
// the first included, in place of 1 + Config.MaxRetries. Less than 1 counts as 1, and
// 11 is the most. What is tried again, and what the budget says, stays as it is.
func WithMaxTries(ctx context.Context, tries int) context.Context {
	return context.WithValue(ctx, maxTriesKey{}, max(tries, 1))
}

// safe reports whether the method is safe as RFC 9110, section 9.2.1 has it.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
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
