package httpmesh

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
)

// attempt is one try.
type attempt struct {
	x      *exchange
	lease  balancer.Lease
	route  *route
	leaf   *leaf
	start  time.Time
	header http.Header             // as sent
	cancel context.CancelCauseFunc // nil: TryTimeout does not hold
	mu     sync.Mutex              // guards clock
	clock  clock

	// The connection in use, what it had sent before, and whether one before
	// it (http.Transport replaces those that were closed while idle) has sent
	// something.
	conn   *conn
	before int64
	reused bool
	sent   bool
	aged   bool // the header asks for the connection to be closed
}

// clock is what came first of an attempt.
type clock int

const (
	clockRuns    clock = iota // no headers so far, and TryTimeout is not over
	clockStopped              // the headers or a failure came first
	clockCut                  // TryTimeout came first, and ends the try: the next one is paid for
	clockUnpaid               // TryTimeout came first, and ends nothing: the budget has nothing left
)

// send makes the try. The response is nil if no headers came.
func (a *attempt) send(body io.ReadCloser, limited bool) (*http.Response, verdict) {
	x := a.x
	ctx := x.r.Context()
	var timer *time.Timer
	if limited {
		ctx, a.cancel = context.WithCancelCause(ctx)
		timer = time.AfterFunc(x.t.cfg.TryTimeout, a.timeOut)
	}
	out := x.r.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: a.got}))
	url := *x.r.URL
	url.Host = a.leaf.addr
	out.URL, out.Header, out.Body = &url, a.headers(limited), body
	if out.Host == "" {
		out.Host = x.report.Service
	}
	resp, err := a.leaf.pool.RoundTrip(out)
	if timer != nil {
		timer.Stop()
		if a.stop() == clockUnpaid {
			x.report.OverBudget = true
		}
	}
	if err == nil && a.cut() {
		// The headers came just when the time was over: the body is lost.
		_ = resp.Body.Close()
		resp, err = nil, errTryTimeout
	}
	if err == nil && a.foreign(resp) {
		_ = resp.Body.Close()
		resp, err = nil, errForeign
	}
	v := verdict{try: Try{Instance: a.lease.Endpoint().Instance(), Latency: time.Since(a.start)}}
	if err == nil {
		a.leaf.heard.Store(time.Now().UnixNano())
		a.judgeAnswer(resp, &v)
		return resp, v
	}
	a.judgeError(err, &v)
	if a.cancel != nil {
		a.cancel(nil)
	}
	a.done(v)
	return nil, v
}

// errForeign is the error of a try that another server has answered.
var errForeign = errors.New("what answers at its address is no instance of the service, of which it has vanished")

// foreign reports whether another server has answered than the one that was
// picked: an instance that is missing may be gone, and its address be anybody's.
// Servers of ours say who they are (see Guard), so who does not is none.
func (a *attempt) foreign(resp *http.Response) bool {
	if strings.EqualFold(resp.Header.Get(ServiceHeader), a.x.report.Service) {
		if !a.route.named.Load() {
			a.route.named.Store(true)
		}
		return false
	}
	return a.route.named.Load() && a.lease.Endpoint().Instance().Missing() && resp.StatusCode != http.StatusMisdirectedRequest
}

// timeOut ends the try for TryTimeout, if another one can be paid for: else it
// is the last, which has all the time there is.
func (a *attempt) timeOut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.clock != clockRuns: // the headers have been faster than we
	case a.x.ledger.spend(time.Now()):
		a.clock = clockCut
		a.cancel(errTryTimeout)
	default:
		a.clock = clockUnpaid
	}
}

// stop stops the clock, unless TryTimeout has been faster, and says what came
// first.
func (a *attempt) stop() clock {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.clock == clockRuns {
		a.clock = clockStopped
	}
	return a.clock
}

// cut reports whether TryTimeout has ended it.
func (a *attempt) cut() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.clock == clockCut
}

// headers returns what this try sends. An earlier try may still be reading its
// own, and the values are the caller's.
func (a *attempt) headers(limited bool) http.Header {
	x := a.x
	a.header = x.header
	if len(x.tried) > 1 {
		a.header = maps.Clone(x.header)
		delete(a.header, TimeoutHeader) // the first try's, as may be this one:
		if x.r.Header["Connection"] == nil {
			delete(a.header, "Connection")
		}
	}
	until := x.limit
	if limited {
		if end := a.start.Add(x.t.cfg.TryTimeout); until.IsZero() || end.Before(until) {
			until = end
		}
	}
	if !until.IsZero() {
		a.header[TimeoutHeader] = []string{timeoutValue(time.Until(until))}
	}
	return a.header
}

// got is told of the connection that is used, before the header is written.
func (a *attempt) got(info httptrace.GotConnInfo) {
	a.sent = a.wrote()
	a.conn, _ = info.Conn.(*conn)
	a.reused = info.Reused
	if a.conn == nil {
		return
	}
	a.before = a.conn.sent.Load()
	switch old := a.conn.expired(a.start); {
	case a.aged && !old:
		delete(a.header, "Connection")
		a.aged = false
	case old && a.header["Connection"] == nil:
		// The server closes it after its answer: so no request is lost, which
		// closing an idle connection that is just being used would risk.
		a.header["Connection"] = []string{"close"}
		a.aged = true
	}
}

// wrote reports whether anything of the request has been written.
func (a *attempt) wrote() bool {
	return a.sent || a.conn != nil && a.conn.sent.Load() != a.before
}

// done gives the lease back.
func (a *attempt) done(v verdict) {
	o := balancer.Outcome{
		Failed: v.failed, Load: v.load || v.busy, Unreachable: v.unreachable,
		Status: v.try.Status, Latency: v.try.Latency, At: time.Now(),
	}
	if o.Status == 0 || v.proxied {
		o.Status, o.Latency = 0, 0
	}
	a.lease.Done(o)
	a.leaf.release()
}

const (
	// smallAnswer is what is read of an answer that is not used, so that its
	// connection can be: those who shed would have to be dialled again else.
	smallAnswer = 4 << 10
	// smallPatience is how long that may take; it is in the same packet as the
	// header, or nearly.
	smallPatience = 20 * time.Millisecond
)

// discard ends a try whose answer is not used.
func (a *attempt) discard(resp *http.Response, v verdict) {
	if resp == nil {
		return
	}
	a.wrap(resp, v, func() {})
	if resp.ContentLength > 0 && resp.ContentLength <= smallAnswer {
		timer := time.AfterFunc(smallPatience, func() { _ = resp.Body.Close() })
		_, _ = io.Copy(io.Discard, resp.Body)
		timer.Stop()
	}
	_ = resp.Body.Close()
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
