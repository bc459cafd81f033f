package httpmesh

import (
	"context"
	"fmt"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Trace has a function for each thing that happens; nil ones are skipped. They
// are called by many goroutines, outside of every lock, and must be quick.
type Trace struct {
	// Done is called once for each request, when the headers of its response
	// came or it failed. The report is shared: do not change it. A request
	// whose URL does not name a service is not told of.
	Done func(r *Report)
	// Balancer is told of the picks.
	Balancer balancer.Trace
}

// Report explains where a request went and why.
type Report struct {
	Service string
	Method  string
	// Counts are the numbers of instances at the last pick.
	Counts balancer.Counts
	// Proven is when the registry last proved the set of instances.
	Proven time.Time
	// Tries are in order; none if no instance could be picked.
	Tries []Try
	// Elapsed is the time to the response's headers or to the failure.
	Elapsed time.Duration
	// Outcome is one of a bounded set, fit for a metric's label:
	//   - ok: an instance answered, whatever the status, but for the next two
	//   - misdirected: the last try was answered 421, which the caller gets, or by
	//     a server that is none of the service's
	//   - overload: the last try was shed (see ReasonOverload), and the caller
	//     gets that 503
	//   - no_instance: nobody to send to, or the source refuses the service
	//   - unreachable: no connection could be made at the last try
	//   - timeout: the caller's deadline or TryTimeout ended it
	//   - transport: the connection broke, or the request can't be sent at all
	//   - canceled: the caller gave up
	//   - closed: the Transport was, or the source
	Outcome string
	// OverBudget says that another try would have been made had Config.Budget
	// allowed it.
	OverBudget bool
}

// Try is one attempt at one instance.
type Try struct {
	Instance catalog.Instance
	// Outcome is one of a bounded set, fit for a metric's label: ok,
	// dial_failed, misdirected (421, or a foreign server), overload (a 503 that says so), timeout
	// (TryTimeout or the caller's deadline), transport, canceled (by the caller,
	// or by Close).
	Outcome string
	// Status is the response's; 0 if no headers came.
	Status int
	// Latency is the time to the response's headers or to the failure.
	Latency time.Duration
	// Err is nil if headers came.
	Err error
}

// The words of Report.Outcome and Try.Outcome.
const (
	ok          = "ok"
	misdirected = "misdirected"
	overload    = "overload"
	noInstance  = "no_instance"
	unreachable = "unreachable"
	dialFailed  = "dial_failed"
	timeout     = "timeout"
	transport   = "transport"
	canceled    = "canceled"
	closed      = "closed"
)

type reportKey struct{}

// WithReport returns a context whose request fills r; it is valid once
// RoundTrip has returned. If several requests use the context, one after the
// other, r tells of the last; they must not run at the same time.
func WithReport(ctx context.Context, r *Report) context.Context {
	return context.WithValue(ctx, reportKey{}, r)
}

// Error is the error of a request that no instance answered. It unwraps to the
// last try's error; without a try, to catalog.ErrNoInstance or what else kept
// it from being sent.
type Error struct {
	Report *Report
	Err    error
}

func (e *Error) Error() string {
	r := e.Report
	if len(r.Tries) == 0 {
		return e.Err.Error()
	}
	last := r.Tries[len(r.Tries)-1].Instance
	ejected := ""
	if r.Counts.Ejected > 0 {
		ejected = fmt.Sprintf(", %d of them ejected", r.Counts.Ejected)
	}
	return fmt.Sprintf("%s: no instance answered (%d known, %d ready%s, %d tried): try %s (%s): %v",
		r.Service, r.Counts.Known, r.Counts.Ready, ejected, len(r.Tries), last.ID, last.Addr(), e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether a deadline ended the request; a dial that took too
// long is not one: nothing was sent.
func (e *Error) Timeout() bool { return e.Report.Outcome == timeout }
