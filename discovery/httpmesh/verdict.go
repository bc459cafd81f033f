package httpmesh

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// fairTry is how long an instance must have had for the end of its caller's
// patience to count as its failure: a caller in a hurry proves nothing.
const fairTry = 250 * time.Millisecond

// verdict is what became of a try.
type verdict struct {
	try         Try
	err         error         // for the caller; nil if headers came
	answered    bool          // with a status that may be tried again: elsewhere, or when the answer says
	after       time.Duration // the answer's Retry-After; 0: it says nothing
	again       bool          // it may be repeated if the body can
	free        bool          // of the budget: no work was done
	failed      bool          // by the instance's fault
	load        bool          // shed: the instance has too much to do
	busy        bool          // 429: like load, but the answer may be waited for
	proxied     bool          // the answer says nothing of the instance: it tells of another service
	unreachable bool
	lost        bool // its dial timed out: nothing refused it
}

func (a *attempt) judgeAnswer(resp *http.Response, v *verdict) {
	status, reason := resp.StatusCode, resp.Header.Get(ReasonHeader)
	v.try.Status, v.try.Outcome = status, ok
	switch status {
	case http.StatusMisdirectedRequest:
		v.try.Outcome = misdirected
		v.again, v.free, v.failed, v.unreachable = true, true, true, true
		return
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return // it understood, and says that it can't: not a failure
	case http.StatusTooManyRequests:
		v.busy, v.again = true, a.x.repeatable()
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		switch {
		case reason == ReasonDownstream:
			v.proxied = true
			return
		case reason == ReasonOverload && status == http.StatusServiceUnavailable:
			v.try.Outcome = overload
			v.load, v.again = true, true
		default:
			v.failed = true
			// A 504 has used up somebody's patience already.
			v.again = status != http.StatusGatewayTimeout && a.x.repeatable()
		}
	default:
		v.failed = status >= http.StatusInternalServerError
	}
	if v.again {
		v.answered, v.after = true, retryAfter(resp.Header, time.Now())
	}
}

func (a *attempt) judgeError(err error, v *verdict) {
	_, dial := errors.AsType[*dialError](err)
	wrote := a.wrote()
	v.err, v.try.Err = err, err
	switch ended := a.x.r.Context().Err(); {
	case ended != nil && errors.Is(ended, context.DeadlineExceeded):
		v.try.Outcome = timeout
		v.failed = time.Since(a.start) >= fairTry
	case ended != nil, a.x.t.isClosed():
		v.try.Outcome = canceled
	case errors.Is(err, errTryTimeout):
		v.try.Outcome = timeout
		v.failed, v.again = true, true // else it had no limit
	case errors.Is(err, errForeign):
		v.try.Outcome = misdirected
		v.failed, v.unreachable, v.again, v.free = true, true, true, true
	case dial && !wrote:
		v.try.Outcome = dialFailed
		v.failed, v.unreachable, v.again, v.free = true, true, true, true
		v.lost = time.Since(a.start) >= a.x.t.cfg.DialTimeout
	case a.conn == nil && !dial, a.x.body.fault() != nil:
		// The request can't be sent at all, or its body can't be read.
		v.try.Outcome = transport
	default:
		v.try.Outcome = transport
		// A connection that was closed while idle says nothing bad.
		v.failed = wrote || !a.reused
		v.again, v.free = !wrote || a.x.repeatable(), !wrote
	}
}
