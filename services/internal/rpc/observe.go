package rpc

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

// requestID is the metadata of a request's ID, as HTTP's header.
var requestID = strings.ToLower(logging.RequestIDHeader)

// unmatched is the method of a call that the server does not have.
const unmatched = metrics.Unmatched

// Observe returns what counts and logs each call, a line each, and gives it its
// request ID: the sender's, if that is well formed, else a new one.
func Observe(log *slog.Logger, counted *metrics.RPCServer) *grpcmesh.ServerTrace {
	return &grpcmesh.ServerTrace{
		Began: func(ctx context.Context, _ grpcmesh.ServerCall) context.Context {
			counted.Begin()
			in, _ := metadata.FromIncomingContext(ctx)
			id := logging.TakeRequestID(http.Header{logging.RequestIDHeader: in.Get(requestID)})
			Set(ctx, requestID, id)
			return logging.WithRequestID(ctx, id)
		},
		Ended: func(ctx context.Context, call grpcmesh.ServerCall, end grpcmesh.ServerEnd) {
			method := call.Method
			if method == "" {
				method = unmatched
			}
			counted.End(ctx, method, end.Code.String(), end.Took)
			if end.Panicked {
				counted.Panicked()
			}
			log.LogAttrs(ctx, slog.LevelInfo, "request",
				slog.String("rpc", method),
				slog.String("code", end.Code.String()),
				slog.Float64("duration_ms", float64(end.Took.Microseconds())/1000),
				slog.String("remote", remote(ctx)))
		},
	}
}

func remote(ctx context.Context) string {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(from.Addr.String())
	if err != nil {
		return from.Addr.String()
	}
	return host
}

// Outgoing is an interceptor for calls to other services: it hands the request ID
// on, and gives the place of the request that is at work here up meanwhile (see
// overload.Away).
func Outgoing(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if id := logging.RequestID(ctx); id != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, requestID, id)
	}
	defer overload.Away(ctx)()
	return call(ctx, method, request, reply, conn, opts...)
}

// Limit is the limit of a service, for gRPC.
func Limit(limits *overload.Limiter) func(context.Context, bool) (context.Context, func(), bool) {
	return func(ctx context.Context, readOnly bool) (context.Context, func(), bool) {
		kind := overload.Write
		if readOnly {
			kind = overload.Read
		}
		return limits.Admit(ctx, kind)
	}
}
