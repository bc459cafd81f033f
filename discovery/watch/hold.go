package watch

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// hold is how long a blocking query is held. Something between us and Consul may
// cut it short: a proxy with a time limit below our wait answers in Consul's place,
// or closes the connection. That says nothing about Consul, and so is no failure.
// The zero value knows of no limit.
type hold struct {
	cuts  int           // queries in a row that were cut short
	most  time.Duration // how long a query may wait
	until time.Time     // when most is forgotten
}

const (
	// leastHold is the shortest wait that is learned. A query that ends sooner has
	// failed, and is backed off from.
	leastHold = 2 * time.Second
	// holdMemory is how long a limit is remembered: it may have been lifted.
	holdMemory = 10 * time.Minute
)

// longest returns how long a query may wait; 0 means as long as it likes.
func (h *hold) longest(now time.Time) time.Duration {
	if now.Before(h.until) {
		return h.most
	}
	return 0
}

// cutShort notes an answer, and reports whether it is none of Consul's but the
// end of its query before its time. The second in a row teaches the limit: one
// alone may be an agent or a proxy that is restarted.
func (h *hold) cutShort(a answer, now time.Time) bool {
	if a.kind != block {
		return false
	}
	if !cut(a) || a.took < leastHold || a.took >= a.wait {
		h.cuts = 0
		return false
	}
	if h.cuts++; h.cuts > 1 {
		h.cuts, h.most, h.until = 0, max(leastHold, a.took*3/4), now.Add(holdMemory)
	}
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
