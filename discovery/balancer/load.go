package balancer

import (
	"sync/atomic"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// load is what an endpoint has to do, in one word, so that a pick changes but
// one: leases that are not done, without bodies at rest, in the lowest bits; and
// above them, for each group, those of them without headers.
type load struct{ atomic.Int64 }

const (
	bits    = 20 // for each number: a million
	moving  = 1
	waiting = 1 << bits // shifted by bits for each group
	mask    = 1<<bits - 1
)

// inFlight returns the number of leases that are a load.
func (l *load) inFlight() int64 { return l.Load() & mask }

// waiting returns the number of leases without headers.
func (l *load) waiting() (n int64) {
	word := l.Load()
	for g := range outcome.Bodies { // the groups of requests
		n += word >> (bits * (1 + g)) & mask
	}
	return n
}

// waits reports whether one of the group has no headers.
func (l *load) waits(g outcome.Group) bool { return l.Load()>>(bits*(1+g))&mask != 0 }
