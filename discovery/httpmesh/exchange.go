package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// exchange is one request over all of its tries.
//
// They are made one after the other by the caller's goroutine. When one has had
// TryTimeout without an answer, another may run beside it, in a lane of its own
// (see race.go); the mutex is for that time.
type exchange struct {
	t       *Transport
	r       *http.Request
	group   outcome.Group
	secure  bool // its URL says https
	upgrade bool // it asks for another protocol
	body    *payload
	start   time.Time
	limit   time.Time // until when the header of the answer is waited for; zero: for ever

	mu      sync.Mutex // guards what follows, the tries' index and ended
	report  *Report
	ledger  *ledger // of the service; nil before the first pick
	tried   []*balancer.Endpoint
	spared  int                   // of those tried: refused at once, with others left, so that they don't count
	stalls  int                   // dials that took too long
	room    [4]*balancer.Endpoint // for tried
	current *attempt              // the caller's goroutine's
	beside  *lane                 // nil: nothing has run beside it
	winner  *attempt              // the first that was answered well
	raced   bool                  // two tries have run beside each other
	over    bool                  // no try begins any more
	quit    chan struct{}         // closed when over; nil: nothing has run beside it
}

func newExchange(t *Transport, r *http.Request, to routeKey) *exchange {
	x := &exchange{t: t, r: r, secure: to.secure, body: &payload{r: r}, report: &Report{Service: to.service, Method: r.Method}, start: time.Now()}
	if r.Method == "" {
		x.report.Method = http.MethodGet
	}
	if !safe(x.report.Method) {
		x.group = outcome.Unsafe
	}
	x.upgrade = upgrades(r.Header)
	x.tried = x.room[:0]
	x.limit, _ = r.Context().Deadline()
	if said, ok := r.Header[TimeoutHeader]; ok {
		if wait, err := parseTimeout(said); err == nil && (x.limit.IsZero() || x.start.Add(wait).Before(x.limit)) {
			x.limit = x.start.Add(wait)
		}
	}
	return x
}

// errOver says that another try has ended the request.
var errOver = errors.New("the request is over")

// begin prepares the next try. An error says that there is none.
func (x *exchange) begin(l *lane) (*attempt, outcome.Code, error) {
	x.t.cfg.Source.KeepAlive(x.report.Service)
	snapshot, err := x.t.cfg.Source.Latest(x.r.Context(), x.report.Service)
	if err != nil {
		return nil, x.sourceCode(err), err
	}
	now := time.Now()
	route := x.t.route(snapshot, x.secure, now)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil, outcome.Outrun, errOver
	}
	x.report.Proven, _ = snapshot.Freshness()
	x.report.Counts = route.balancer.Counts(now)
	lease, err := route.balancer.Pick(balancer.Request{Now: now, Group: x.group, Tried: x.tried})
	if err != nil {
		if other := route.otherScheme(snapshot); other != nil {
			return nil, outcome.WrongScheme, other
		}
		return nil, outcome.NoInstance, err
	}
	body, err := x.body.next()
	if err != nil {
		lease.Done(outcome.Result{Began: now, At: now})
		return nil, outcome.CallerError, fmt.Errorf("send to %s: have the body again: %w", x.report.Service, err)
	}
	if x.ledger == nil {
		x.ledger = route.ledger
		x.ledger.request(now)
	}
	x.tried = append(x.tried, lease.Endpoint())
	x.report.Tries = append(x.report.Tries, Try{Instance: lease.Endpoint().Instance()})
	a := &attempt{
		x: x, lease: lease, route: route, leaf: route.leaf(lease.Endpoint()), body: body, start: now,
		header: x.header(), index: len(x.report.Tries) - 1,
	}
	a.ctx, a.cancel = context.WithCancelCause(context.WithValue(x.r.Context(), attemptKey{}, a))
	if l == nil {
		x.current = a
	} else {
		l.current, a.beside = a, true
	}
	return a, outcome.None, nil
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
	if !x.limit.IsZero() {
		h[TimeoutHeader] = []string{timeoutValue(time.Until(x.limit))}
	}
	stripH2C(h)
	return h
}

// run sends the request, again and again as far as the rules allow.
func (x *exchange) run() (*http.Response, error) {
	var last *attempt
	for {
		a, code, err := x.begin(nil)
		if err != nil {
			return x.finish(last, code, err)
		}
		a.send()
		last = a
		if a.code == outcome.OK && x.claim(a) {
			return x.finish(a, a.code, nil)
		}
		wait, again := x.again(a)
		if !again {
			return x.finish(a, a.code, nil)
		}
		a.discard()
		x.pause(wait)
	}
}

// finish ends the request. last is the latest try of the caller's goroutine, code
// and err say why there is no further one.
func (x *exchange) finish(last *attempt, code outcome.Code, err error) (*http.Response, error) {
	rival := x.join(last)
	a := x.winner // nothing runs any more
	if a == nil {
		// The last failure is the answer, and an answer before none.
		if a = last; rival != nil && (rival.resp != nil || a == nil || a.resp == nil) {
			a, code, err = rival, rival.code, nil
		}
	}
	for _, other := range []*attempt{last, rival} {
		if other != nil && other != a {
			other.discard()
		}
	}
	switch {
	case a == nil:
		return x.fail(code, err)
	case err != nil && x.winner == nil: // a try before, and then no instance or no source
		if a.err != nil {
			err = fmt.Errorf("%w; the try before: %w", err, a.err)
		} else {
			a.discard()
			err = fmt.Errorf("%w; the try before was answered %d", err, a.resp.StatusCode)
		}
		return x.fail(code, err)
	case a.resp == nil:
		return x.fail(a.code, x.failure(a))
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
	a.resp.Request = x.r
	x.report.Tries[a.index].Used = true
	x.tell(a.code)
	x.mu.Lock()
	defer x.mu.Unlock()
	if a.over {
		x.t.leave()
	}
	a.accepted = true
	return a.resp
}

// left is called when a try's answer is over.
func (x *exchange) left(a *attempt) {
	x.mu.Lock()
	defer x.mu.Unlock()
	a.over = true
	if a.accepted {
		x.t.leave()
	}
}

// ends notes that a try has ended, and reports whether it was cut before.
func (x *exchange) ends(a *attempt) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	a.ended = true
	return a.ctx.Err() != nil && x.r.Context().Err() == nil
}

// note completes the report's line of a try.
func (x *exchange) note(a *attempt, t Try) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.report.Tries[a.index] = t
}

// count is how many tries count. Call it with the mutex held.
func (x *exchange) count() int { return len(x.tried) - x.spared }

// sourceCode says what an error of the source is called in the report.
func (x *exchange) sourceCode(err error) outcome.Code {
	switch ended := x.r.Context().Err(); {
	case errors.Is(err, catalog.ErrClosed):
		return outcome.Closed
	case ended == nil:
		return outcome.NoInstance
	case errors.Is(ended, context.DeadlineExceeded):
		return outcome.Timeout
	}
	return outcome.Canceled
}

func (x *exchange) fail(code outcome.Code, err error) (*http.Response, error) {
	x.body.abandon()
	x.tell(code)
	return nil, &Error{Report: x.report, Err: err}
}

// tell finishes the report.
func (x *exchange) tell(code outcome.Code) {
	x.report.Outcome = code
	x.report.Elapsed = time.Since(x.start)
	if r, ok := x.r.Context().Value(reportKey{}).(*Report); ok {
		*r = *x.report
	}
	if done := x.t.cfg.Trace.Done; done != nil {
		done(x.report)
	}
}
