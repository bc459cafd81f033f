package outlier

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
)

// The reasons of ejections: what the last failure was.
const (
	// Unreachable means that no connection could be made, or that another
	// service answered.
	Unreachable = "unreachable"
	// Unanswered means that the connection broke or no answer came in time.
	Unanswered = "unanswered"
	// Gateway means 502, 503 or 504.
	Gateway = "gateway"
	// Error means any other answer that is a failure.
	Error = "error"
)

func reason(o balancer.Outcome) string {
	switch {
	case o.Unreachable:
		return Unreachable
	case o.Status == 0:
		return Unanswered
	}
	switch o.Status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return Gateway
	}
	return Error
}

// record is a balancer.Record. Its lock is taken only when something is wrong:
// at a failure that may eject, and on probation.
type record struct {
	cfg *Config

	failures    atomic.Int32 // in a row
	gateway     atomic.Int32 // in a row, of that kind
	unreachable atomic.Int32 // in a row, of that kind
	probation   atomic.Bool  // ejected, and not trusted since

	mu    sync.Mutex // guards what follows
	last  balancer.Ejection
	level int // doublings of the next ejection, before what time has forgiven
	well  int // answers in a row on probation
}

// Note takes an outcome and says what follows from it. A request that was shed
// or called off says nothing about the endpoint.
func (r *record) Note(o balancer.Outcome) balancer.Verdict {
	switch {
	case o.Load || r.cfg.Consecutive < 0:
	case o.Failed:
		return r.failure(o)
	case o.Status != 0:
		return r.answer(o)
	}
	return balancer.Verdict{}
}

func (r *record) answer(o balancer.Outcome) (v balancer.Verdict) {
	if r.failures.Load() != 0 {
		r.failures.Store(0)
	}
	if r.gateway.Load() != 0 {
		r.gateway.Store(0)
	}
	if r.unreachable.Load() != 0 {
		r.unreachable.Store(0)
	}
	if !r.probation.Load() {
		return v
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.last.Over(o.At) || !r.probation.Load() {
		return v // a request from before the ejection
	}
	if r.well++; r.well >= r.cfg.Probation {
		r.probation.Store(false)
		v.Trusted = true
	}
	return v
}

func (r *record) failure(o balancer.Outcome) balancer.Verdict {
	why := reason(o)
	reached := func(n *atomic.Int32, counts bool, most int) bool {
		if !counts {
			n.Store(0)
			return false
		}
		return int(n.Add(1)) >= most && most > 0
	}
	many := reached(&r.failures, true, r.cfg.Consecutive)
	many = reached(&r.gateway, why != Error, r.cfg.ConsecutiveGateway) || many
	many = reached(&r.unreachable, why == Unreachable, r.cfg.ConsecutiveUnreachable) || many
	if !many && !r.probation.Load() {
		return balancer.Verdict{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.well = 0
	if !r.last.Over(o.At) {
		return balancer.Verdict{} // a request from before the ejection
	}
	if !many && !r.probation.Load() {
		return balancer.Verdict{} // trusted meanwhile
	}
	return balancer.Verdict{Eject: r.sentence(o.At), Reason: why}
}

// Ejected is told that an ejection was granted.
func (r *record) Ejected(x balancer.Ejection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.Until.Sub(x.At) < r.cfg.MaxEjection { // more would only take longer to forgive
		r.level = r.doublings(x.At) + 1
	} else {
		r.level = r.doublings(x.At)
	}
	r.last, r.well = x, 0
	r.probation.Store(true)
	r.failures.Store(0)
	r.gateway.Store(0)
	r.unreachable.Store(0)
}

// sentence returns how long an ejection lasts that begins now.
func (r *record) sentence(now time.Time) time.Duration {
	d := r.cfg.Ejection
	for range r.doublings(now) {
		if d >= r.cfg.MaxEjection/2 {
			return r.cfg.MaxEjection
		}
		d *= 2
	}
	return d
}

// doublings returns the level less what the time since the last ejection has
// forgiven.
func (r *record) doublings(now time.Time) int {
	if r.level == 0 {
		return 0
	}
	return max(0, r.level-int(max(0, now.Sub(r.last.Until))/r.cfg.Forgive))
}
