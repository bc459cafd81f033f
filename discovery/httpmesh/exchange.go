package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// exchange is one request over all of its tries.
type exchange struct {
	t      *Transport
	r      *http.Request
	header http.Header // as sent, the same for all tries
	body   *payload
	report *Report
	start  time.Time
	limit  time.Time // until when the header of the answer is waited for; zero: for ever
	ledger *ledger   // of the service; nil before the first pick
	tried  []*balancer.Endpoint
	spared int                   // of those tried: refused at once, with others left, so that they don't count
	lost   int                   // dials that timed out
	room   [4]*balancer.Endpoint // for tried
}

func newExchange(t *Transport, r *http.Request, service string) *exchange {
	x := &exchange{t: t, r: r, body: newPayload(r), report: &Report{Service: service, Method: r.Method}, start: time.Now()}
	if r.Method == "" {
		x.report.Method = http.MethodGet
	}
	x.tried = x.room[:0]
	// The values are shared with the caller's header, which nobody changes
	// until the response's body is closed.
	if x.header = maps.Clone(r.Header); x.header == nil {
		x.header = http.Header{}
	}
	x.header[ServiceHeader] = []string{service}
	x.limit, _ = r.Context().Deadline()
	if said, ok := x.header[TimeoutHeader]; ok {
		delete(x.header, TimeoutHeader)
		if wait, err := parseTimeout(said); err == nil && (x.limit.IsZero() || x.start.Add(wait).Before(x.limit)) {
			x.limit = x.start.Add(wait)
		}
	}
	return x
}

// run sends the request, again and again as far as the rules allow.
func (x *exchange) run() (*http.Response, error) {
	ctx := x.r.Context()
	var last *verdict // of the try before
	for {
		snapshot, err := x.t.cfg.Source.Latest(ctx, x.report.Service)
		if err != nil {
			return x.end(last, x.sourceOutcome(err), err)
		}
		now := time.Now()
		route := x.t.route(snapshot, now)
		x.report.Proven, _ = snapshot.Freshness()
		x.report.Counts = route.balancer.Counts(now)
		lease, err := route.balancer.Pick(balancer.Request{Now: now, Tried: x.tried})
		if err != nil {
			return x.end(last, noInstance, err)
		}
		body, err := x.body.next()
		if err != nil {
			lease.Done(balancer.Outcome{At: now})
			return x.end(last, transport, fmt.Errorf("send to %s: have the body again: %w", x.report.Service, err))
		}
		if x.ledger == nil {
			x.ledger = route.ledger
			x.ledger.request(now)
		}
		more := len(x.tried)-x.spared < x.t.cfg.MaxRetries // tries after this one
		x.tried = append(x.tried, lease.Endpoint())
		a := &attempt{x: x, lease: lease, route: route, leaf: route.leaf(lease.Endpoint()), start: now}
		resp, v := a.send(body, more && lease.Another() && x.mayTimeOut())
		x.report.Tries = append(x.report.Tries, v.try)
		if more {
			if wait, ok := x.again(a, &v); ok {
				a.discard(resp, v)
				x.pause(wait)
				last = &v
				continue
			}
		}
		if resp != nil {
			return a.accept(resp, v), nil
		}
		return x.end(&v, "", nil)
	}
}

// end fails with the last try's error, or if there was none, with err.
func (x *exchange) end(last *verdict, outcome string, err error) (*http.Response, error) {
	if last == nil {
		return x.fail(outcome, err)
	}
	switch outcome, err = last.try.Outcome, last.err; {
	case x.t.isClosed():
		return x.fail(closed, fmt.Errorf("%w: %w", catalog.ErrClosed, err))
	case outcome == dialFailed:
		outcome = unreachable
	}
	return x.fail(outcome, err)
}

// sourceOutcome says what an error of the source is called in the report.
func (x *exchange) sourceOutcome(err error) string {
	switch ended := x.r.Context().Err(); {
	case errors.Is(err, catalog.ErrClosed):
		return closed
	case ended == nil:
		return noInstance
	case errors.Is(ended, context.DeadlineExceeded):
		return timeout
	}
	return canceled
}

func (x *exchange) fail(outcome string, err error) (*http.Response, error) {
	x.body.abandon()
	x.tell(outcome)
	return nil, &Error{Report: x.report, Err: err}
}

// tell finishes the report.
func (x *exchange) tell(outcome string) {
	x.report.Outcome = outcome
	x.report.Elapsed = time.Since(x.start)
	if r, ok := x.r.Context().Value(reportKey{}).(*Report); ok {
		*r = *x.report
	}
	if done := x.t.cfg.Trace.Done; done != nil {
		done(x.report)
	}
}
