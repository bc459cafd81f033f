package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// judge says how a try ended, and whether the answer forbids another. cut says that
// it was ended by us.
func (a *attempt) judge(err error, cut bool) (code outcome.Code, final bool) {
	if err == nil {
		return outcome.OK, false // also one that was cut: it is there
	}
	if a.call.client.isClosed() || errors.Is(err, catalog.ErrClosed) {
		return outcome.Closed, false
	}
	if cut {
		return a.cutCode(), false
	}
	if ctx := a.call.Ctx; ctx.Err() != nil {
		return a.callerCode(), false
	}
	dial, dialed := errors.AsType[*dialError](err)
	switch {
	case errors.Is(err, errStalled):
		return outcome.Stalled, false
	case dialed && (tries.OwnFault(dial) || errors.Is(err, errRetired)):
		return outcome.Unsent, false
	case dialed:
		return outcome.Unreachable, false
	case a.moved.Load():
		return outcome.Unsent, false
	}
	return a.statusCode(status.Convert(err))
}

func (a *attempt) cutCode() outcome.Code {
	if errors.Is(context.Cause(a.ctx), tries.ErrSilent) || a.silent() {
		return outcome.Silent
	}
	return outcome.Outrun
}

// callerCode says what it means that the caller's wait has ended. When two tries ran
// beside each other and neither was answered, the silence is proven of neither.
func (a *attempt) callerCode() outcome.Code {
	ctx := a.call.Ctx
	switch {
	case a.silent() && !a.call.Raced.Load():
		return outcome.Silent
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return outcome.Timeout
	case ctx.Err() == nil:
		return outcome.Timeout
	}
	return outcome.Canceled
}

// statusCode says what a status is, the server's or one that gRPC made.
func (a *attempt) statusCode(s *status.Status) (code outcome.Code, final bool) {
	if tooLarge(s) {
		return outcome.CallerError, false
	}
	if !a.heard() {
		switch s.Code() {
		case codes.DeadlineExceeded, codes.Canceled:
			return a.callerCode(), false // a hair before the context says so
		case codes.Internal:
			if strings.HasPrefix(s.Message(), "grpc: error while marshaling") {
				return outcome.CallerError, false
			}
		case codes.Unavailable, codes.Unknown:
		default:
			return outcome.CallerError, false // gRPC's own refusal: credentials, metadata
		}
		return outcome.Broken, false
	}
	return tries.OfStatus(onTheWire(s, a.trailer()), a.call.Limit, a.Lease.Endpoint().Instance().Missing())
}

// tooLarge reports whether a message was larger than a side takes: gRPC says so by
// RESOURCE_EXHAUSTED, which it is not.
func tooLarge(s *status.Status) bool {
	return s.Code() == codes.ResourceExhausted && strings.Contains(s.Message(), "larger than max")
}

// onTheWire is the status as those read it who know nothing of gRPC's types.
func onTheWire(s *status.Status, trailer metadata.MD) grpcwire.Status {
	wire := grpcwire.Status{Code: uint32(s.Code()), Message: s.Message()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			wire.Domain, wire.Reason = d.GetDomain(), d.GetReason()
		case *errdetails.RetryInfo:
			wire.Wait, wire.Waits = max(d.GetRetryDelay().AsDuration(), 0), true
		}
	}
	if wait, said := grpcwire.Pushback(trailer[grpcwire.PushbackKey]); said {
		wire.Wait, wire.Waits = wait, true
	}
	return wire
}

// trailer is the answer's.
func (a *attempt) trailer() metadata.MD {
	if end := a.end.Load(); end != nil {
		return end.Trailer
	}
	return nil
}

// answered reports whether an outcome is a server's word.
func answered(code outcome.Code) bool {
	switch code {
	case outcome.OK, outcome.Error, outcome.Gateway, outcome.GatewayTimeout, outcome.Downstream, outcome.Busy,
		outcome.Overload, outcome.Misdirected, outcome.Foreign:
		return true
	}
	return false
}

type reportKey struct{}

// WithReport returns a context whose call fills r: it is valid once a unary call has
// returned, and for a stream once its first message came or it has ended. If several calls use the context,
// one after the other, r tells of the last; they must not run at the same time.
func WithReport(ctx context.Context, r *httpmesh.Report) context.Context {
	return context.WithValue(ctx, reportKey{}, r)
}

// Error is the error of a call that failed for the instances or the way to them; what
// a service answers by itself (NOT_FOUND) comes as it is. It is a status: that of the
// last try, its details included, or UNAVAILABLE. It unwraps to the last try's error;
// without a try, to catalog.ErrNoInstance or what else kept it from being sent.
type Error struct {
	// Report tells of each try; never nil.
	Report *httpmesh.Report
	// Err is the cause; never nil.
	Err error

	status *status.Status
}

func (e *Error) Error() string {
	return fmt.Sprintf("rpc error: code = %s desc = %s", e.status.Code(), e.status.Message())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// GRPCStatus is for status.FromError and status.Code.
func (e *Error) GRPCStatus() *status.Status { return e.status }

// fail ends the call with an error; a is the try whose status it is, nil: none's.
func (x *call) fail(a *attempt, code outcome.Code, err error) error {
	e := &Error{Report: x.report, Err: err}
	text := (&httpmesh.Error{Report: x.report, Err: plain(err)}).Error()
	s := status.New(x.failure(code), text)
	if a != nil && (answered(code) || code == outcome.CallerError || code == outcome.BodyBroken) {
		p := status.Convert(a.err).Proto()
		p.Message = text
		s = status.FromProto(p)
	}
	e.status = s
	x.tell(code)
	x.end(e)
	return e
}

// plain is an error's text without what a status puts before it.
func plain(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Code().String() + ": " + s.Message())
	}
	return err
}

// failure is the status of a call without an answer.
func (x *call) failure(code outcome.Code) codes.Code {
	switch code {
	case outcome.Timeout:
		return codes.DeadlineExceeded
	case outcome.Canceled, outcome.Closed:
		return codes.Canceled
	case outcome.CallerError:
		return codes.Internal
	}
	switch ended := x.Ctx.Err(); {
	case errors.Is(ended, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case ended != nil:
		return codes.Canceled
	}
	return codes.Unavailable
}
