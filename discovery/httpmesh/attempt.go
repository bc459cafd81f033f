package httpmesh

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// attempt is one try.
type attempt struct {
	tries.Try
	x      *exchange
	route  *route
	leaf   *leaf
	body   *tryBody
	header http.Header                // as sent
	ctx    context.Context            //nolint:containedctx // it ends with the try
	timer  *time.Timer                // of patience, then of the answer's rest; nil: neither is watched so far
	answer atomic.Pointer[answerBody] // nil: no headers so far

	dial atomic.Int32 // what came first: see below

	// The connection in use, and what it had sent and got before.
	conn         *conn
	stream       *stream // nil: the connection is this try's alone
	before, seen int64
	reused       bool

	// How it ended. The first three are guarded by the exchange's lock.
	call     *callAnswer    // nil: no answer to a call of gRPC
	index    int            // in Report.Tries
	over     bool           // its answer's body has ended
	accepted bool           // its answer is the caller's
	resp     *http.Response // nil if no headers came, or not the service's
	err      error          // nil if resp is not
}

// What came first of a try's wait for a connection.
const (
	dialWaits   = iota // neither
	dialGot            // a connection
	dialStalled        // the end of DialTimeout
)

type attemptKey struct{}

// Base is what the exchange knows of it.
func (a *attempt) Base() *tries.Try { return &a.Try }

// Answered reports whether headers came, and were the service's.
func (a *attempt) Answered() bool { return a.resp != nil }

// ComeAgain is the answer's Retry-After.
func (a *attempt) ComeAgain(now time.Time) time.Duration {
	if a.call != nil {
		return max(a.call.status.Wait, 0)
	}
	return retryAfter(a.resp.Header, now)
}

// Send makes the try, and notes how it ended.
func (a *attempt) Send() {
	x := a.x
	if try := x.t.cfg.Trace.Try; try != nil {
		a.ctx = try(a.ctx, TryStart{
			Service: x.report.Service, Method: x.report.Method, Instance: a.Lease.Endpoint().Instance(),
			Number: a.index + 1, After: a.After, Beside: a.Beside, Set: a.header.Set,
		})
	}
	out := x.r.WithContext(httptrace.WithClientTrace(a.ctx, &httptrace.ClientTrace{GetConn: a.get, GotConn: a.got}))
	url := *x.r.URL
	url.Host = a.leaf.addr
	out.URL, out.Header = &url, a.header
	if a.body != nil {
		// http.Transport would repeat by itself what it can have again.
		out.Body, out.GetBody = a.body.reader(), nil
	}
	if out.Host == "" {
		out.Host = x.report.Service
	}
	if x.mayTry() {
		a.timer = time.AfterFunc(x.t.cfg.TryTimeout, a.tick)
	}
	resp, err := a.leaf.pool.RoundTrip(out)
	latency := time.Since(a.Start)
	if x.Ended(&a.Try, a.ctx) && err == nil { // cut just when the headers came: the body is lost
		_ = resp.Body.Close()
		err = context.Cause(a.ctx)
	}
	status := 0
	if err == nil {
		status, err = resp.StatusCode, a.answered(resp)
	} else {
		a.Code = a.errorCode(err)
	}
	if err == nil {
		a.wrap(latency)
	} else {
		a.err = err
		if fault := a.body.fault(); fault != nil {
			a.err = fault
		}
		a.done(latency)
	}
	if again := a.Code.Row().Again; x.to.grpc && (again == outcome.Always || again == outcome.IfRepeatable && x.Repeatable) {
		x.body.settle()
	}
	ended := Try{Instance: a.Lease.Endpoint().Instance(), Outcome: a.Code, Status: status, Latency: latency, Err: a.err, Beside: a.Beside, After: a.After}
	x.note(a, ended)
	if tried := x.t.cfg.Trace.Tried; tried != nil {
		tried(a.ctx, ended)
	}
}

// answered takes an answer, unless it is none: then the error says why.
func (a *attempt) answered(resp *http.Response) error {
	a.resp = resp
	if a.x.to.grpc {
		own := *resp // see peekedBody
		a.resp = &own
	}
	a.Code = a.answerCode(resp)
	if a.conn != nil && a.conn.tls != nil {
		a.resp.TLS = a.conn.tls
	}
	a.leaf.heard.Store(int64(a.leaf.network.since()))
	err := a.refused()
	if err != nil {
		_ = a.resp.Body.Close()
		a.resp = nil
	}
	return err
}

// refused returns why an answer is none.
func (a *attempt) refused() error {
	switch {
	case a.call != nil && a.call.broken != nil:
		return a.call.broken
	case a.Code == outcome.Foreign:
		return errForeign
	case a.resp.StatusCode == http.StatusSwitchingProtocols && a.Code == outcome.Error:
		return errUnasked
	}
	return nil
}

// tick is called when the time is over that is waited for: that of patience, or
// that in which the answer's body has moved.
func (a *attempt) tick() {
	if b := a.answer.Load(); b != nil {
		b.tick()
		return
	}
	a.x.Impatient(a)
}

// get is told that a connection is looked for. The second time http.Transport is
// about to send the request again, for the connection that it had was closed while
// it was idle. What may be repeated, and where, is decided by us.
func (a *attempt) get(string) {
	if a.conn != nil {
		a.Cancel(errIdle)
	}
}

// got is told of the connection that is used, before the header is written.
func (a *attempt) got(info httptrace.GotConnInfo) {
	next, _ := info.Conn.(*conn)
	if a.conn != nil || !a.dial.CompareAndSwap(dialWaits, dialGot) {
		// It has been ended, and is not to be done here as well.
		if next != nil {
			next.veto.Store(true)
		}
		return
	}
	a.conn, a.reused = next, info.Reused
	if a.conn == nil {
		return
	}
	a.before, a.seen = a.conn.sent.Load(), a.conn.received.Load()
	if a.conn.expired(a.Start) && a.header["Connection"] == nil {
		// The server closes it after its answer: so no request is lost, which
		// closing an idle connection that is just being used would risk.
		a.header["Connection"] = []string{"close"}
	}
}

// stall sends the request elsewhere, unless it has got a connection: the one that
// is being made for it takes too long.
func (a *attempt) stall() {
	if a.dial.CompareAndSwap(dialWaits, dialStalled) {
		a.Cancel(errStalled)
	}
}

// wrote reports whether anything of the request has been written.
func (a *attempt) wrote() bool {
	if a.stream != nil && a.stream.wroteAt.Load() == 0 {
		return false
	}
	return a.conn != nil && a.conn.sent.Load() != a.before
}

// heard reports whether anything came back.
func (a *attempt) heard() bool { return a.conn != nil && a.conn.received.Load() != a.seen }

// result is what the balancer is told.
func (a *attempt) result(code outcome.Code, latency time.Duration) outcome.Result {
	return outcome.Result{Code: code, Group: a.x.Group, Began: a.Start, At: time.Now(), Latency: latency}
}

// done gives the lease back of a try without an answer.
func (a *attempt) done(latency time.Duration) {
	r := a.result(a.Code, latency)
	if _, dial := errors.AsType[*dialError](a.err); dial {
		r.Code = outcome.None // the dial itself has told, see leaf.dial
	}
	if a.Code == outcome.Silent {
		r.Latency = max(a.silence(), a.x.t.rules.Patience)
		if s, ok := a.leaf.pool.(*http2Pool); ok && a.stream != nil && !a.heard() {
			s.abandon(a.stream.on)
		}
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.Cancel(nil)
	a.Lease.Done(r)
	a.leaf.release()
}

// wrap lets the end of the response's body end the try.
func (a *attempt) wrap(latency time.Duration) {
	first := a.result(a.Code, latency)
	if a.call != nil && !a.call.known {
		first.Code = outcome.None // its end says what it is
	}
	load := a.Lease.Answered(first)
	finish := func(err error) {
		code := outcome.None // the caller closed it
		switch {
		case errors.Is(err, io.EOF):
			code = outcome.OK
		case err != nil && a.ctx.Err() == nil && !a.x.t.isClosed():
			code = outcome.BodyBroken
		}
		if a.call != nil && !a.call.known {
			code = a.endCode(code)
		}
		r := a.result(code, 0)
		a.Cancel(nil)
		load.Done(r)
		a.leaf.release()
		a.x.left(a)
	}
	if a.resp.Body == http.NoBody {
		if a.timer != nil {
			a.timer.Stop()
		}
		finish(nil)
		return
	}
	body := &answerBody{ReadCloser: a.resp.Body, attempt: a, load: load, finish: finish}
	body.moved.Store(int64(latency))
	if a.timer == nil {
		a.timer = time.AfterFunc(time.Hour, a.tick)
	}
	a.answer.Store(body)
	a.timer.Reset(restAfter)
	a.resp.Body = body
	if both, ok := body.ReadCloser.(io.ReadWriteCloser); ok && a.resp.StatusCode == http.StatusSwitchingProtocols {
		a.resp.Body = &switchedBody{answerBody: body, both: both}
	}
}

const (
	// smallAnswer is what is read of an answer that is not used, so that its
	// connection can be: those that shed would have to be dialled again else.
	smallAnswer = 4 << 10
	// smallPatience is how long that may take; it is in the same packet as the
	// header, or nearly.
	smallPatience = 20 * time.Millisecond
)

// Discard ends a try whose answer, if it has one, is not used.
func (a *attempt) Discard() {
	if a.resp == nil {
		return
	}
	if a.resp.ContentLength > 0 && a.resp.ContentLength <= smallAnswer {
		timer := time.AfterFunc(smallPatience, func() { _ = a.resp.Body.Close() })
		_, _ = io.Copy(io.Discard, a.resp.Body)
		timer.Stop()
	}
	_ = a.resp.Body.Close()
}
