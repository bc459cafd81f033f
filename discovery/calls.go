package discovery

import (
	"context"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/rates"
)

// counted returns the trace with each request counted in calls, of whichever protocol.
func counted(trace *httpmesh.Trace, calls *rates.Services) *httpmesh.Trace {
	counting := *trace
	counting.Done = func(ctx context.Context, r *httpmesh.Report) {
		calls.Note(r.Service, rates.Call{
			Took: r.Elapsed, Failed: r.Outcome.Failed(), Retries: max(len(r.Tries)-1, 0), OverBudget: r.OverBudget,
		}, time.Now())
		if trace.Done != nil {
			trace.Done(ctx, r)
		}
	}
	return &counting
}

// callStatus describes what was sent to a service.
func callStatus(t rates.Totals) CallStatus {
	return CallStatus{
		WindowSeconds: rates.Seconds, Requests: t.Requests, Failed: t.Failed, Retries: t.Retries, OverBudget: t.OverBudget,
		P50Seconds: t.P50.Seconds(), P99Seconds: t.P99.Seconds(),
	}
}
