package outlier

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// State is how an endpoint stands with its callers.
type State uint8

// The states, from the best to the worst.
const (
	// Healthy is every endpoint of which nothing bad is known.
	Healthy State = iota
	// Suspect has just failed or shed a request: it is used when no healthy one
	// is left.
	Suspect
	// OnTrial was ejected, and is not trusted yet: it gets one request at a time
	// while others are left.
	OnTrial
	// Ejected is out of use: for what each other one has failed.
	Ejected
)

var states = [...]string{Healthy: "healthy", Suspect: "suspect", OnTrial: "on trial", Ejected: "ejected"}

// String returns the state's name, as pages show it.
func (s State) String() string { return states[s] }

// Ejection says from when until when an endpoint is out of use, and why.
type Ejection struct {
	// At and Until are its beginning and its end, by the clock of the results.
	At, Until time.Time
	// Reason is the outcome of the last failure.
	Reason outcome.Code
}

// Over reports whether the ejection has ended.
func (x Ejection) Over(now time.Time) bool { return !now.Before(x.Until) }

const (
	// A failure makes an endpoint suspect for failureSuspicion, twice as long
	// after each further one in a row, up to 3.2s; a shed request for
	// loadSuspicion, and up to 160ms.
	failureSuspicion = 50 * time.Millisecond
	failureDoublings = 6
	loadSuspicion    = 20 * time.Millisecond
	loadDoublings    = 3
)

// Health is what the outcomes of its requests say of one endpoint. Begin makes it
// ready, and it is not copied. Any number of goroutines use it at once; its lock
// is taken only when something is wrong: for a failure that may eject, and on
// trial.
type Health struct {
	// In nanoseconds from base; 0 means never.
	suspect atomic.Int64 // it is until then
	out     atomic.Int64 // when the latest ejection ends; it is on trial from then until it is trusted, which sets 0
	ejected atomic.Int64 // when that began
	doubted atomic.Int64 // when the present suspicion began

	shaky atomic.Int32 // failures and shed requests in a row
	rows  [outcome.Groups]row
	rules *Rules
	base  time.Time // spans are counted from it, by the monotonic clock

	mu     sync.Mutex // guards what follows
	last   Ejection
	failed outcome.Group // whose answers end the trial
	any    bool          // each group's do
	level  int           // doublings of the next ejection, before what time has forgiven
	well   int           // answers in a row on trial
}

// row counts the failures in a row of one group of requests: all, those that
// prove that the endpoint does not serve, and those that prove that nothing is
// there.
type row struct{ bad, down, absent atomic.Int32 }

func (r *row) end() {
	for _, n := range []*atomic.Int32{&r.bad, &r.down, &r.absent} {
		if n.Load() != 0 {
			n.Store(0)
		}
	}
}

// Begin begins the record by these rules, before anything else is called.
func (h *Health) Begin(r *Rules, now time.Time) { h.rules, h.base = r, now }

// since is a time as the atomics hold it; never 0.
func (h *Health) since(t time.Time) int64 {
	if d := int64(t.Sub(h.base)); d != 0 {
		return d
	}
	return 1
}

// State returns the state at a time.
func (h *Health) State(now time.Time) State {
	out, suspect := h.out.Load(), h.suspect.Load()
	if out == 0 && suspect == 0 {
		return Healthy
	}
	at := h.since(now)
	switch {
	case out != 0 && at < out:
		return Ejected
	case suspect != 0 && at < suspect:
		return Suspect
	case out != 0:
		return OnTrial
	}
	return Healthy
}

// Ejection returns the latest ejection; the zero value before the first.
func (h *Health) Ejection() Ejection {
	if h.ejected.Load() == 0 {
		return Ejection{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// Note takes a result, and returns for how long the endpoint should be ejected
// for it: 0 means not at all. The caller may eject it by [Health.Eject].
func (h *Health) Note(r outcome.Result) time.Duration {
	switch proof := r.Code.Proves(); proof {
	case outcome.Nothing:
		return 0
	case outcome.Good:
		h.answer(r)
		return 0
	case outcome.Load:
		h.suspectFor(r, loadSuspicion, loadDoublings)
		return 0
	case outcome.Doubt:
		h.suspectFor(r, failureSuspicion, failureDoublings)
		return 0
	default:
		if ejected := h.ejected.Load(); ejected != 0 && h.since(r.Began) < ejected {
			return 0 // it has been out for that already
		}
		h.suspectFor(r, failureSuspicion, failureDoublings)
		return h.failure(r, proof)
	}
}

// suspectFor begins a suspicion. A result of a request that was sent before the
// latest one began, or that ends within it, changes nothing.
func (h *Health) suspectFor(r outcome.Result, first time.Duration, doublings int32) {
	at := h.since(r.At)
	if until := h.suspect.Load(); until != 0 && at < until {
		return
	}
	if doubted := h.doubted.Load(); doubted != 0 && h.since(r.Began) < doubted {
		return
	}
	n := min(h.shaky.Add(1)-1, doublings)
	h.doubted.Store(at)
	h.suspect.Store(h.since(r.At.Add(first << n)))
}

func (h *Health) answer(r outcome.Result) {
	if h.shaky.Load() != 0 {
		h.shaky.Store(0)
		h.suspect.Store(0)
	}
	h.rows[r.Group].end()
	if h.out.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.out.Load() == 0 || !h.last.Over(r.At) || r.Began.Before(h.last.At) || r.Group != h.failed && !h.any {
		return
	}
	if h.well++; h.well >= h.rules.cfg.Probation {
		h.out.Store(0)
	}
}

func (h *Health) failure(r outcome.Result, proof outcome.Proof) time.Duration {
	cfg := &h.rules.cfg
	if cfg.Consecutive <= 0 {
		return 0
	}
	reached := func(n *atomic.Int32, counts bool, most int) bool {
		if !counts {
			n.Store(0)
			return false
		}
		return int(n.Add(1)) >= most && most > 0
	}
	row := &h.rows[r.Group]
	many := reached(&row.bad, true, cfg.Consecutive)
	many = reached(&row.down, proof >= outcome.Down, cfg.ConsecutiveGateway) || many
	many = reached(&row.absent, proof == outcome.Absent, cfg.ConsecutiveUnreachable) || many
	if !many && h.out.Load() == 0 {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.well = 0
	switch {
	case h.out.Load() != 0 && !h.last.Over(r.At): // it is out
	case !many && h.out.Load() == 0: // trusted meanwhile
	default:
		return h.sentence(r.At)
	}
	return 0
}

// Eject takes the endpoint out of use for the result's sake, for as long as Note
// said. It returns false, and does nothing, if it is out already.
func (h *Health) Eject(r outcome.Result, d time.Duration) (Ejection, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.out.Load() != 0 && !h.last.Over(r.At) {
		return Ejection{}, false
	}
	h.level = h.doublings(r.At)
	if d < h.rules.cfg.MaxEjection { // more would only take longer to forgive
		h.level++
	}
	h.last = Ejection{At: r.At, Until: r.At.Add(d), Reason: r.Code}
	h.failed, h.any, h.well = r.Group, r.Code.Proves() == outcome.Absent, 0
	h.ejected.Store(h.since(r.At))
	h.out.Store(h.since(h.last.Until))
	for g := range h.rows {
		h.rows[g].end()
	}
	return h.last, true
}

// sentence returns how long an ejection lasts that begins now.
func (h *Health) sentence(now time.Time) time.Duration {
	d := h.rules.cfg.Ejection
	for range h.doublings(now) {
		if d >= h.rules.cfg.MaxEjection/2 {
			return h.rules.cfg.MaxEjection
		}
		d *= 2
	}
	return d
}

// doublings returns the level less what the time since the last ejection has
// forgiven.
func (h *Health) doublings(now time.Time) int {
	if h.level == 0 {
		return 0
	}
	return max(0, h.level-int(max(0, now.Sub(h.last.Until))/h.rules.cfg.Forgive))
}
