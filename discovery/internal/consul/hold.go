package consul

import "time"

// Hold is for how long Consul may be asked to hold a question. Something between us
// and Consul may cut it short: a proxy with a time limit below our wait answers in
// Consul's place, or closes the connection. That says nothing about Consul. The zero
// value knows of no limit. It belongs to one goroutine.
type Hold struct {
	cuts  int           // in a row
	most  time.Duration // how long a question may be held
	until time.Time     // when most is forgotten
}

const (
	// LeastHold is the shortest wait that is learned.
	LeastHold = 2 * time.Second
	// holdMemory is how long a limit is remembered: it may have been lifted.
	holdMemory = 10 * time.Minute
)

// Longest returns how long a question may be held; 0 means as long as it likes.
func (h *Hold) Longest(now time.Time) time.Duration {
	if now.Before(h.until) {
		return h.most
	}
	return 0
}

// Cut notes a question that ended after that time, and not by Consul. The second in a
// row teaches the limit: one alone may be an agent or a proxy that is restarted.
func (h *Hold) Cut(after time.Duration, now time.Time) {
	if h.cuts++; h.cuts > 1 {
		h.cuts, h.most, h.until = 0, max(LeastHold, after*3/4), now.Add(holdMemory)
	}
}

// Whole notes one that ended otherwise.
func (h *Hold) Whole() { h.cuts = 0 }
