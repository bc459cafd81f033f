package watch

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// hold is how long a blocking query is held.
type hold struct{ consul.Hold }

// cutShort notes an answer, and reports whether it is none of Consul's but the
// end of its query before its time, which is no failure. A query that ends sooner than
// can be learned has failed, and is backed off from.
func (h *hold) cutShort(a answer, now time.Time) bool {
	if a.kind != block {
		return false
	}
	if !cut(a) || a.took < consul.LeastHold || a.took >= a.wait {
		h.Whole()
		return false
	}
	h.Cut(a.took, now)
	return true
}

// cut reports whether the answer is one that proxies give to a query that takes
// too long for them: none, an empty one without Consul's headers, or a status of
// their own.
func cut(a answer) bool {
	if a.err == nil {
		return len(a.entries) == 0 && a.meta.LastIndex == 0 && !a.meta.KnownLeader
	}
	if slices.Contains([]int{http.StatusNotModified, http.StatusRequestTimeout, http.StatusGatewayTimeout}, consul.StatusCode(a.err)) {
		return true
	}
	return consul.Unreachable(a.err) && !errors.Is(a.err, context.DeadlineExceeded)
}
