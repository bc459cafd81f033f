package grpcmesh

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// attempt is one try.
type attempt struct {
	tries.Try
	call  *call
	link  *link
	ctx   context.Context //nolint:containedctx // it ends with the try
	index int             // in Report.Tries
	line  *line           // nil: it has no connection so far
	picks int             // how often gRPC has asked for it
	began time.Time

	// What gRPC said at its end.
	end   atomic.Pointer[grpcbalancer.DoneInfo]
	moved atomic.Bool // gRPC would have repeated it: nothing of it was served

	reply  any // for this try
	adopt  func()
	stream grpc.ClientStream // of a stream
	flow   *flow             // nil: no stream, or none so far
	err    error
}

// Base is what the call knows of it.
func (a *attempt) Base() *tries.Try { return &a.Try }

// Answered reports whether the server has said how the call ended.
func (a *attempt) Answered() bool { return a.err == nil || answered(a.Code) }

// ComeAgain is what the answer says of it.
func (a *attempt) ComeAgain(time.Time) time.Duration {
	return max(onTheWire(status.Convert(a.err), a.trailer()).Wait, 0)
}

// Discard has nothing to end: a try without an answer that is used is over.
func (a *attempt) Discard() {}

// pick returns the connection to send on; nil if the try is over for gRPC's asking
// again: it was refused, or is not to be sent on a connection that ends.
func (a *attempt) pick() *line {
	a.picks++
	if end := a.end.Load(); end != nil && end.BytesSent || a.picks > maxPicks {
		a.moved.Store(true)
		return nil
	}
	if a.line.lost.Load() {
		ready := a.link.ready.Load()
		if ready == nil || ready.lost.Load() {
			a.moved.Store(true)
			return nil
		}
		a.line = ready // it was renewed
	}
	return a.line
}

// maxPicks bounds how often a try takes another connection to its instance.
const maxPicks = 4

// sent is told how gRPC's part has ended.
func (a *attempt) sent(info grpcbalancer.DoneInfo) { a.end.Store(&info) }

// heard reports whether anything came back.
func (a *attempt) heard() bool {
	end := a.end.Load()
	return end != nil && end.BytesReceived
}

// Send makes the try, and notes how it ended.
func (a *attempt) Send() {
	x := a.call
	if try := x.client.settings.Trace.Try; try != nil {
		a.ctx = a.start(try)
	}
	if x.patient {
		timer := time.AfterFunc(x.client.rules.Patience, func() { x.Impatient(a) })
		defer timer.Stop()
	}
	line, err := a.link.line(a.ctx)
	if err == nil {
		a.line, a.began = line, time.Now()
		err = x.send(a)
	}
	latency := time.Since(a.Start)
	cut := x.Ended(&a.Try, a.ctx)
	switch {
	case a.flow != nil && err != nil:
		a.streamEnded(err)
		return
	case a.flow != nil: // it goes on
		a.Code = outcome.OK
		a.note(latency)
		return
	}
	a.err = err
	a.Code, a.Final = a.judge(err, cut)
	a.finish(latency)
}

// finish gives the lease back.
func (a *attempt) finish(latency time.Duration) {
	r := outcome.Result{Code: a.Code, Group: a.call.Group, Began: a.Start, At: time.Now(), Latency: latency}
	switch a.Code {
	case outcome.Unreachable:
		r.Code = outcome.None // the dial itself has told
	case outcome.Silent:
		r.Latency = max(a.silence(), a.call.client.rules.Patience)
	}
	if a.flow == nil {
		a.Lease.Done(r)
	} else {
		a.flow.end(r)
	}
	a.Cancel(nil)
	ended := a.note(latency)
	if tried := a.call.client.settings.Trace.Tried; tried != nil {
		tried(a.ctx, ended)
	}
}

// start tells the trace of the try, and returns the context that it goes on with.
func (a *attempt) start(try func(context.Context, httpmesh.TryStart) context.Context) context.Context {
	var md metadata.MD // nil: it sends what the call does
	ctx := try(a.ctx, httpmesh.TryStart{
		Service: a.call.report.Service, Method: a.call.report.Method, Instance: a.Lease.Endpoint().Instance(),
		Number: a.index + 1, After: a.After, Beside: a.Beside,
		Set: func(name, value string) {
			if md == nil {
				md, _ = metadata.FromOutgoingContext(a.ctx) // a copy
			}
			md.Set(name, value)
		},
	})
	if md != nil {
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	return ctx
}

// note completes the report's line of the try.
func (a *attempt) note(latency time.Duration) httpmesh.Try {
	t := httpmesh.Try{
		Instance: a.Lease.Endpoint().Instance(), Outcome: a.Code, Latency: latency, Err: a.err, Beside: a.Beside, After: a.After,
	}
	a.call.note(a, t)
	return t
}

// silence is how long nothing was said since the call was sent.
func (a *attempt) silence() time.Duration {
	if a.line == nil {
		return 0
	}
	return time.Since(a.began)
}

// silent reports whether the instance has said nothing for as long as patience lasts,
// since it had the call. A stream may be silent for as long as it likes.
func (a *attempt) silent() bool {
	return a.call.streamer == nil && a.line != nil && !a.moved.Load() && !a.heard() && (a.Impatient.Load() || a.silence() >= a.call.client.rules.Patience)
}
