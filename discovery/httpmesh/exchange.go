package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// maxPause before the only instance left is tried again. The pause is drawn
// from the whole range ("full jitter"), so that callers who failed together do
// not come back together.
const maxPause = 50 * time.Millisecond

// errTryTimeout is the cause of a try that Config.TryTimeout ended.
var errTryTimeout = errors.New("no response within TryTimeout")

// exchange is one request over all of its tries.
type exchange struct {
	t      *Transport
	r      *http.Request
	header http.Header // as sent, the same for all tries
	body   *payload
	report *Report
	start  time.Time
	tried  []*balancer.Endpoint
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
		more := len(x.tried) < x.t.cfg.MaxRetries // tries after this one
		x.tried = append(x.tried, lease.Endpoint())
		a := &attempt{x: x, lease: lease, leaf: route.leaf(lease.Endpoint()), start: now}
		resp, v := a.send(body, more && lease.Another() && x.mayTimeOut())
		x.report.Tries = append(x.report.Tries, v.try)
		if more && v.again && ctx.Err() == nil && !x.t.isClosed() && x.body.again() {
			a.discard(resp, v)
			if !lease.Another() {
				x.pause(ctx)
			}
			last = &v
			continue
		}
		if resp != nil {
			return a.accept(resp, v), nil
		}
		return x.end(&v, "", nil)
	}
}

// safe reports whether the method is safe as RFC 9110, section 9.2.1 has it.
func safe(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return true
	}
	return false
}

// mayTimeOut reports whether TryTimeout holds for this request at all: it must
// be one that can be sent again whatever has become of it.
func (x *exchange) mayTimeOut() bool {
	return x.t.cfg.TryTimeout > 0 && safe(x.report.Method) && x.body.inner == nil && x.r.Header.Get("Upgrade") == ""
}

// pause waits a little before the only instance left is tried again.
func (x *exchange) pause(ctx context.Context) {
	timer := time.NewTimer(rand.N(maxPause))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-x.t.closed:
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

// attempt is one try.
type attempt struct {
	x      *exchange
	lease  balancer.Lease
	leaf   *leaf
	start  time.Time
	cancel context.CancelCauseFunc // nil: TryTimeout does not hold

	// The connection in use, what it had sent before, and whether one before
	// it (http.Transport replaces those that were closed while idle) has sent
	// something.
	conn   *conn
	before int64
	reused bool
	sent   bool
}

// verdict is what became of a try.
type verdict struct {
	try         Try
	err         error // for the caller; nil if headers came
	again       bool  // it may be repeated if the body can
	failed      bool  // by the instance's fault
	unreachable bool
}

// send makes the try. The response is nil if no headers came.
func (a *attempt) send(body io.ReadCloser, limited bool) (*http.Response, verdict) {
	ctx := a.x.r.Context()
	var timer *time.Timer
	if limited {
		ctx, a.cancel = context.WithCancelCause(ctx)
		timer = time.AfterFunc(a.x.t.cfg.TryTimeout, func() { a.cancel(errTryTimeout) })
	}
	out := a.x.r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: a.got}))
	url := *a.x.r.URL
	url.Host = a.leaf.addr
	out.URL, out.Header, out.Body = &url, a.x.header, body
	if out.Host == "" {
		out.Host = a.x.report.Service
	}
	resp, err := a.leaf.pool.RoundTrip(out)
	if timer != nil && !timer.Stop() && err == nil {
		// The headers came just when the time was over: the body is lost.
		_ = resp.Body.Close()
		resp, err = nil, errTryTimeout
	}
	v := verdict{try: Try{Instance: a.lease.Endpoint().Instance(), Latency: time.Since(a.start)}}
	if err == nil {
		a.leaf.heard.Store(time.Now().UnixNano())
		a.judgeStatus(resp.StatusCode, &v)
		return resp, v
	}
	a.judgeError(err, &v)
	if a.cancel != nil {
		a.cancel(nil)
	}
	a.done(v)
	return nil, v
}

// got is told of the connection that is used.
func (a *attempt) got(info httptrace.GotConnInfo) {
	a.sent = a.wrote()
	a.conn, _ = info.Conn.(*conn)
	a.reused = info.Reused
	if a.conn != nil {
		a.before = a.conn.sent.Load()
	}
}

// wrote reports whether anything of the request has been written.
func (a *attempt) wrote() bool {
	return a.sent || a.conn != nil && a.conn.sent.Load() != a.before
}

func (a *attempt) judgeStatus(status int, v *verdict) {
	v.try.Status, v.try.Outcome = status, ok
	switch status {
	case http.StatusMisdirectedRequest:
		v.try.Outcome = misdirected
		v.again, v.failed, v.unreachable = true, true, true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		// It understood, and says that it can't: not a failure.
	default:
		v.failed = status >= 500
	}
}

func (a *attempt) judgeError(err error, v *verdict) {
	_, dial := errors.AsType[*dialError](err)
	wrote := a.wrote()
	v.err, v.try.Err = err, err
	switch ended := a.x.r.Context().Err(); {
	case ended != nil && errors.Is(ended, context.DeadlineExceeded):
		v.try.Outcome = timeout
		v.failed = true
	case ended != nil, a.x.t.isClosed():
		v.try.Outcome = canceled
	case errors.Is(err, errTryTimeout):
		v.try.Outcome = timeout
		v.failed, v.again = true, true // else it had no limit
	case dial && !wrote:
		v.try.Outcome = dialFailed
		v.failed, v.unreachable, v.again = true, true, true
	case a.conn == nil && !dial, a.x.body.fault() != nil:
		// The request can't be sent at all, or its body can't be read.
		v.try.Outcome = transport
	default:
		v.try.Outcome = transport
		// A connection that was closed while idle says nothing bad.
		v.failed = wrote || !a.reused
		v.again = !wrote || safe(a.x.report.Method)
	}
}

// done gives the lease back.
func (a *attempt) done(v verdict) {
	latency := v.try.Latency
	if v.try.Status == 0 {
		latency = 0
	}
	a.lease.Done(balancer.Outcome{Failed: v.failed, Unreachable: v.unreachable, Latency: latency, At: time.Now()})
	a.leaf.release()
}

// discard ends a try whose answer is not used.
func (a *attempt) discard(resp *http.Response, v verdict) {
	if resp != nil {
		a.wrap(resp, v, func() {})
		_ = resp.Body.Close()
	}
}

// accept makes the response the caller's.
func (a *attempt) accept(resp *http.Response, v verdict) *http.Response {
	a.x.body.answered()
	a.wrap(resp, v, a.x.t.leave)
	resp.Request = a.x.r
	a.x.tell(v.try.Outcome)
	return resp
}

// wrap lets the end of the response's body end the try.
func (a *attempt) wrap(resp *http.Response, v verdict, then func()) {
	ctx := a.x.r.Context()
	finish := func(err error) {
		v.failed = v.failed || err != nil && ctx.Err() == nil && !a.x.t.isClosed()
		if a.cancel != nil {
			a.cancel(nil)
		}
		a.done(v)
		then()
	}
	if resp.Body == http.NoBody {
		finish(nil)
		return
	}
	answer := &answerBody{ReadCloser: resp.Body, finish: finish}
	resp.Body = answer
	if both, ok := answer.ReadCloser.(io.ReadWriteCloser); ok && resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Body = &switchedBody{ReadWriteCloser: both, answer: answer}
	}
}
