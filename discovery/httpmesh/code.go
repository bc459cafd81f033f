package httpmesh

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// Why a try was ended by us; besides tries.ErrSilent and tries.ErrOutrun.
var (
	errStalled = errors.New("no connection within DialTimeout")
	errIdle    = errors.New("the idle connection was closed")
)

// Why an answer is none.
var (
	errForeign = errors.New("what answers at its address is no instance of the service, of which it has vanished")
	errUnasked = errors.New("it switched protocols without being asked to")
)

// answerCode says what an answer is.
func (a *attempt) answerCode(resp *http.Response) outcome.Code {
	if a.x.to.grpc && resp.StatusCode == http.StatusOK {
		return a.begunCode(resp)
	}
	status, reason := resp.StatusCode, resp.Header.Get(ReasonHeader)
	switch {
	case a.foreign(resp):
		return outcome.Foreign
	case status == http.StatusSwitchingProtocols && !a.x.upgrade:
		return outcome.Error
	}
	switch code := outcome.OfStatus(status); {
	case reason == ReasonDownstream && (code == outcome.Gateway || code == outcome.GatewayTimeout):
		return outcome.Downstream
	case reason == ReasonOverload && status == http.StatusServiceUnavailable:
		return outcome.Overload
	default:
		return code
	}
}

// foreign reports whether another server has answered than the one that was
// picked: an instance that is missing may be gone, and its address another server's.
// A handler of a service says its name (see RequireService), so an answer without it was
// given by none. What no handler gives, a protocol that was switched or a
// connection that is refused, is believed.
func (a *attempt) foreign(resp *http.Response) bool {
	if strings.EqualFold(resp.Header.Get(ServiceHeader), a.x.report.Service) {
		if !a.route.named.Load() {
			a.route.named.Store(true)
		}
		return false
	}
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols, http.StatusMisdirectedRequest:
		return false
	}
	return a.route.named.Load() && a.Lease.Endpoint().Instance().Missing() && resp.Header.Get(ReasonHeader) == ""
}

// errorCode says what an error of http.Transport is.
func (a *attempt) errorCode(err error) outcome.Code {
	dial, isDial := errors.AsType[*dialError](err)
	wrote := a.wrote()
	switch cause := context.Cause(a.ctx); {
	case a.x.t.isClosed():
		return outcome.Closed
	case a.body.fault() != nil:
		return outcome.CallerError
	case errors.Is(cause, tries.ErrOutrun):
		if a.silent() {
			return outcome.Silent
		}
		return outcome.Outrun
	case errors.Is(cause, tries.ErrSilent):
		return outcome.Silent
	case (a.dial.Load() == dialStalled || errors.Is(err, errStalled)) && !wrote:
		return outcome.Stalled // the cause may still be on its way
	case a.x.r.Context().Err() != nil:
		return a.callerCode()
	case isDial && !wrote:
		return dial.code
	case errors.Is(err, errOwnFault), errors.Is(err, errCrowded):
		return outcome.Unsent
	case a.conn == nil:
		return outcome.CallerError // it can't be sent at all
	case a.conn.refusedByAlert(err):
		return outcome.Untrusted
	case a.stream != nil && !wrote:
		return a.stream.code(err)
	case !wrote, a.stream != nil && notProcessed(err):
		return outcome.Unsent
	case a.reused && !a.heard():
		return outcome.IdleClosed
	}
	return outcome.Broken
}

// callerCode says what it means that the caller's wait has ended. When two tries
// ran beside each other and neither was answered, the silence is proven of
// neither.
func (a *attempt) callerCode() outcome.Code {
	ctx := a.x.r.Context()
	late := errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded)
	switch {
	case a.silent() && !a.x.Raced.Load() && (late || !a.x.to.grpc): // a stream that is left may have had nothing to say
		return outcome.Silent
	case late:
		return outcome.Timeout
	}
	return outcome.Canceled
}

// silent reports whether the instance has said nothing for as long as patience
// lasts, since it had the whole request.
func (a *attempt) silent() bool {
	return a.conn != nil && a.wrote() && a.body.finished() && (a.Impatient.Load() || a.silence() >= a.x.t.rules.Patience)
}

// silence is how long nothing was said or sent.
func (a *attempt) silence() time.Duration {
	if a.conn == nil {
		return 0
	}
	wroteAt := &a.conn.wroteAt
	if a.stream != nil {
		wroteAt = &a.stream.wroteAt
	}
	return min(time.Since(a.Start), a.conn.network.since()-time.Duration(wroteAt.Load()))
}

// errOwnFault marks a failed dial that says nothing of the address.
var errOwnFault = errors.New("this process can't open a connection")
