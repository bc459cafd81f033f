package httpmesh

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// exchange is one request over all of its tries. The Call's lock guards the report,
// and of its tries index, over and accepted.
type exchange struct {
	tries.Call[*attempt]
	t       *Transport
	r       *http.Request
	to      routeKey
	upgrade bool // it asks for another protocol
	body    *payload
	start   time.Time
	report  *Report
}

func newExchange(t *Transport, r *http.Request, to routeKey) *exchange {
	x := &exchange{t: t, r: r, to: to, body: &payload{r: r}, start: time.Now(), report: &Report{Service: to.service, Method: r.Method}}
	if r.Method == "" {
		x.report.Method = http.MethodGet
	}
	x.Sender, x.Rules, x.Ctx = x, &t.rules, r.Context()
	if begin := t.cfg.Trace.Begin; begin != nil {
		x.Ctx = begin(x.Ctx, to.service, x.report.Method)
	}
	if most, ok := x.Ctx.Value(maxTriesKey{}).(int); ok {
		rules := t.rules
		rules.MaxRetries = min(most-1, maxMaxRetries)
		x.Rules = &rules
	}
	if !safe(x.report.Method) {
		x.Group = outcome.Unsafe
	}
	x.Repeatable = x.Group == outcome.Safe || r.Header.Get(keyHeader) != ""
	x.upgrade = !to.grpc && upgrades(r.Header)
	x.Prefer, _ = r.Context().Value(preferenceKey{}).(*balancer.Preference)
	x.Limit, _ = r.Context().Deadline()
	if said, ok := r.Header[TimeoutHeader]; ok {
		if wait, err := parseTimeout(said); err == nil && (x.Limit.IsZero() || x.start.Add(wait).Before(x.Limit)) {
			x.Limit = x.start.Add(wait)
		}
	}
	if to.grpc {
		x.call()
	}
	return x
}

// Begin prepares the next try. An error says that there is none.
func (x *exchange) Begin(beside bool) (*attempt, outcome.Code, error) {
	source := x.t.cfg.Source
	if x.to.grpc {
		source = x.t.cfg.GRPC
	}
	source.KeepAlive(x.report.Service)
	snapshot, err := source.Latest(x.Ctx, x.report.Service)
	if err != nil {
		return nil, x.SourceCode(err), err
	}
	now := time.Now()
	route := x.t.route(snapshot, x.to, now)
	x.Lock()
	defer x.Unlock()
	x.report.Proven, _ = snapshot.Freshness()
	x.report.Counts = route.balancer.Counts(now)
	lease, code, err := x.Pick(route.balancer, now)
	if err != nil {
		if other := route.otherScheme(snapshot); other != nil {
			return nil, outcome.WrongScheme, other
		}
		return nil, code, err
	}
	body, err := x.body.next()
	if err != nil {
		lease.Done(outcome.Result{Began: now, At: now})
		return nil, outcome.CallerError, fmt.Errorf("send to %s: have the body again: %w", x.report.Service, err)
	}
	x.report.Tries = append(x.report.Tries, Try{Instance: lease.Endpoint().Instance()})
	a := &attempt{
		Try: tries.Try{Lease: lease, Balancer: route.balancer, Start: now},
		x:   x, route: route, leaf: route.leaf(lease.Endpoint()), body: body,
		header: x.header(), index: len(x.report.Tries) - 1,
	}
	a.ctx, a.Cancel = context.WithCancelCause(context.WithValue(x.Ctx, attemptKey{}, a))
	x.Began(a, route.ledger, beside)
	return a, outcome.None, nil
}

// Left reports whether the body could be sent once more.
func (x *exchange) Left() bool { return x.body.left() }

// Again takes the body back from the try before.
func (x *exchange) Again() bool { return x.body.again() }

// mayTry reports whether TryTimeout holds for the request at all: it must be one
// that can be sent again whatever has become of it. A call of gRPC may be a stream,
// which is silent for as long as it likes.
func (x *exchange) mayTry() bool {
	return x.t.cfg.TryTimeout > 0 && !x.body.single() && !x.upgrade && !x.to.grpc && x.Repeatable
}

// header returns what a try sends. The values are shared with the caller's
// header, which nothing changes until the response's body is closed.
func (x *exchange) header() http.Header {
	h := maps.Clone(x.r.Header)
	if h == nil {
		h = http.Header{}
	}
	h[ServiceHeader] = []string{x.report.Service}
	delete(h, TimeoutHeader)
	if !x.Limit.IsZero() {
		h[TimeoutHeader] = []string{timeoutValue(time.Until(x.Limit))}
	}
	if x.to.grpc {
		x.callHeader(h)
	}
	stripH2C(h)
	return h
}

// run sends the request, again and again as far as the rules allow.
func (x *exchange) run() (*http.Response, error) {
	a, won, code, err := x.Run()
	switch {
	case a == nil:
		return x.fail(code, err)
	case err != nil && !won: // a try before, and then no instance or no source
		if a.err != nil {
			err = fmt.Errorf("%w; the try before: %w", err, a.err)
		} else {
			a.Discard()
			err = fmt.Errorf("%w; the try before was answered %d", err, a.resp.StatusCode)
		}
		return x.fail(code, err)
	case a.resp == nil:
		return x.fail(a.Code, x.failure(a))
	}
	return x.accept(a), nil
}

// failure is the error of the last try.
func (x *exchange) failure(a *attempt) error {
	if x.t.isClosed() {
		return fmt.Errorf("%w: %w", catalog.ErrClosed, a.err)
	}
	return a.err
}

// accept makes the response the caller's.
func (x *exchange) accept(a *attempt) *http.Response {
	a.body.pass()
	x.body.forget()
	a.resp.Request = x.r
	x.report.Tries[a.index].Used = true
	x.tell(a.Code)
	x.Lock()
	defer x.Unlock()
	if a.over {
		x.t.leave()
	}
	a.accepted = true
	return a.resp
}

// left is called when a try's answer is over.
func (x *exchange) left(a *attempt) {
	x.Lock()
	defer x.Unlock()
	a.over = true
	if a.accepted {
		x.t.leave()
	}
}

// note completes the report's line of a try.
func (x *exchange) note(a *attempt, t Try) {
	x.Lock()
	defer x.Unlock()
	x.report.Tries[a.index] = t
}

func (x *exchange) fail(code outcome.Code, err error) (*http.Response, error) {
	x.body.abandon()
	x.tell(code)
	return nil, &Error{Report: x.report, Err: err}
}

// tell finishes the report.
func (x *exchange) tell(code outcome.Code) {
	x.report.Outcome = code
	x.report.OverBudget = x.OverBudget()
	x.report.Elapsed = time.Since(x.start)
	if r, ok := x.r.Context().Value(reportKey{}).(*Report); ok {
		*r = *x.report
	}
	if done := x.t.cfg.Trace.Done; done != nil {
		done(x.Ctx, x.report)
	}
}
