package httpmesh

import (
	"context"
	"fmt"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// Trace has a function for each thing that happens; nil ones are skipped. They
// are called by many goroutines, outside of every lock, and must be quick.
type Trace struct {
	// Begin is called once for each request, before its first try, and returns the
	// context that it goes on with, made of ctx. A request whose URL does not name a
	// service is not told of; a call by kitmesh has no method, and its try is not told of.
	Begin func(ctx context.Context, service, method string) context.Context
	// Done is called once for each such request, when the headers of its response
	// came or it failed, with the context that Begin has returned. The report is
	// shared: do not change it.
	Done func(ctx context.Context, r *Report)
	// Try is called before each try, and returns the context that it goes on with,
	// made of ctx.
	Try func(ctx context.Context, t TryStart) context.Context
	// Tried is called when a try has ended, as Done is, with the context that Try has
	// returned. Whether its answer is used is not known by then.
	Tried func(ctx context.Context, t Try)
	// Balancer is told of the picks.
	Balancer balancer.Trace
}

// Report explains where a request went and why.
type Report struct {
	// Service is the one that the URL named.
	Service string
	// Method is the request's.
	Method string
	// Counts are the numbers of instances at the last pick.
	Counts balancer.Counts
	// Proven is when the registry last proved the set of instances.
	Proven time.Time
	// Tries are in the order of their beginning; none if no instance could be
	// picked.
	Tries []Try
	// Elapsed is the time to the response's headers or to the failure.
	Elapsed time.Duration
	// Outcome is how the request ended: as its last try did, or as the one whose
	// answer the caller gets; without a try, why there was none.
	Outcome outcome.Code
	// OverBudget says that another try would have been made had Config.Budget
	// allowed it.
	OverBudget bool
}

// Served returns the instance whose answer the caller gets; false if it gets none.
// When two tries run beside each other that need not be the last one.
func (r *Report) Served() (catalog.Instance, bool) {
	for _, t := range r.Tries {
		if t.Used {
			return t.Instance, true
		}
	}
	return catalog.Instance{}, false
}

// Try is one attempt at one instance.
type Try struct {
	// Instance is the one that was tried, as the registry told of it then.
	Instance catalog.Instance
	// Outcome says how it ended, and by that what was made of it.
	Outcome outcome.Code
	// Status is the response's; 0 if no headers came.
	Status int
	// Latency is the time to the response's headers or to the failure.
	Latency time.Duration
	// Err is nil if headers came.
	Err error
	// Used says that the caller gets its answer.
	Used bool
	// Beside says that it ran beside others, for one of them had no answer within
	// Config.TryTimeout.
	Beside bool
	// After is how the try ended that this one followed. None for the first, and for
	// the first beside others.
	After outcome.Code
}

// TryStart is a try that is about to be sent.
type TryStart struct {
	// Service is the one that the request is for, Method the request's.
	Service, Method string
	// Instance is the one that was picked.
	Instance catalog.Instance
	// Number counts the request's tries from 1, in the order of their beginning.
	Number int
	// After says how the try ended in whose place this one is made; outcome.None if
	// there was none.
	After outcome.Code
	// Beside says that it runs beside another one, which has had its patience.
	Beside bool
	// Set puts a header into what this try sends, of gRPC an entry of the metadata,
	// in place of what the request has by that name. It is for Trace.Try alone.
	Set func(name, value string)
}

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
	// Report tells of each try; never nil.
	Report *Report
	// Err is the cause; never nil.
	Err error
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
func (e *Error) Timeout() bool {
	return e.Report.Outcome == outcome.Timeout || e.Report.Outcome == outcome.Silent
}

type preferenceKey struct{}

// WithPreference returns a context whose requests would rather have the instances of p,
// and get others where none of these is in use or each has failed them.
func WithPreference(ctx context.Context, p *balancer.Preference) context.Context {
	return context.WithValue(ctx, preferenceKey{}, p)
}
