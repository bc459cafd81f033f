// Package rpc makes the spans of a gRPC server of package grpcmesh:
//
//	server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: "order", Trace: rpc.Server(t, nil)})
//
// Those of its clients are made by tracing.Client, as HTTP's are.
package rpc

import (
	"context"

	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
)

// unmatched is the name of a call that the server does not have: a caller can make up
// any number of them.
const unmatched = "unmatched"

// Server returns a trace of a server that makes a span for each call, until its end,
// streams included, and does what next does besides, inside of it; nil means nothing.
func Server(t *tracing.Tracing, next *grpcmesh.ServerTrace) *grpcmesh.ServerTrace {
	if t == nil {
		return next
	}
	var inner grpcmesh.ServerTrace
	if next != nil {
		inner = *next
	}
	return &grpcmesh.ServerTrace{
		Began: func(ctx context.Context, call grpcmesh.ServerCall) context.Context {
			name := unmatched
			if len(call.Method) > 1 {
				name = call.Method[1:]
			}
			in, _ := metadata.FromIncomingContext(ctx)
			ctx = t.Receive(ctx, carrier(in), name, semconv.RPCSystemNameGRPC, semconv.RPCMethod(name))
			span := trace.SpanFromContext(ctx)
			if inner.Began != nil {
				ctx = inner.Began(ctx, call)
			}
			if id := logging.RequestID(ctx); id != "" {
				span.SetAttributes(tracing.RequestID(id))
			}
			return ctx
		},
		Ended: func(ctx context.Context, call grpcmesh.ServerCall, end grpcmesh.ServerEnd) {
			if inner.Ended != nil {
				inner.Ended(ctx, call, end)
			}
			span := trace.SpanFromContext(ctx)
			span.SetAttributes(semconv.RPCResponseStatusCode(end.Code.String()))
			if serversFault(end.Code) {
				span.SetAttributes(semconv.ErrorTypeKey.String(end.Code.String()))
				span.SetStatus(otelcodes.Error, end.Code.String())
			}
			span.End()
		},
	}
}

// serversFault reports whether a code says that the server has failed, by the
// conventions of OpenTelemetry for gRPC's server spans.
func serversFault(code codes.Code) bool {
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// carrier is the metadata of a call that has come in.
type carrier metadata.MD

var (
	_ propagation.TextMapCarrier = carrier(nil)
	_ propagation.ValuesGetter   = carrier(nil)
)

// Get returns the first value of a name.
func (c carrier) Get(name string) string {
	if values := metadata.MD(c).Get(name); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Values returns all values of a name.
func (c carrier) Values(name string) []string { return metadata.MD(c).Get(name) }

// Set puts a value in.
func (c carrier) Set(name, value string) { metadata.MD(c).Set(name, value) }

// Keys returns the names.
func (c carrier) Keys() []string {
	names := make([]string, 0, len(c))
	for name := range c {
		names = append(names, name)
	}
	return names
}
