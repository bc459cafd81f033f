package grpcmesh

import (
	"context"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// unary is around every unary call. What comes with a message was received whole
// by now: a client that sends slowly takes no place of others.
func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (answer any, err error) {
	err = s.around(ctx, ServerCall{Method: info.FullMethod}, func(ctx context.Context) error {
		if !isHealth(info.FullMethod) {
			in, done, ok := s.cfg.Limit(ctx, noSideEffects(info.FullMethod))
			if !ok {
				return Overloaded(ctx)
			}
			defer done()
			ctx = in
		}
		answer, err = next(ctx, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// stream is around every other call, and around those that the server does not
// have: unknown is their handler.
func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return s.around(stream.Context(), ServerCall{Method: info.FullMethod, Stream: true}, func(ctx context.Context) error {
		return next(srv, &streamIn{stream, ctx})
	})
}

// streamIn is a stream whose context is another one.
type streamIn struct {
	grpc.ServerStream
	ctx context.Context //nolint:containedctx // grpc.ServerStream's own way
}

func (s *streamIn) Context() context.Context { return s.ctx }

// around is what happens around every call.
func (s *Server) around(ctx context.Context, call ServerCall, serve func(context.Context) error) (err error) {
	ended := func(error, bool) {}
	if !isHealth(call.Method) {
		ctx, ended = s.note(ctx, call)
	}
	panicked := true
	defer func() {
		if panicked {
			s.cfg.Log.ErrorContext(ctx, "handler panicked", "method", call.Method, "panic", recover(), "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, "the call could not be served; the logs say why")
		}
		ended(err, panicked)
	}()
	err = s.admit(ctx, serve)
	panicked = false
	return err
}

// note counts a call, and has the trace told of it.
func (s *Server) note(ctx context.Context, call ServerCall) (in context.Context, ended func(err error, panicked bool)) {
	began := time.Now()
	s.arrivals.Add(1)
	s.calls.Add(1)
	if known := s.methods.Load(); known == nil || !(*known)[call.Method] {
		call.Method = ""
	}
	in = s.cfg.Trace.Began(ctx, call)
	return in, func(err error, panicked bool) {
		s.calls.Add(-1)
		s.cfg.Trace.Ended(in, call, ServerEnd{Code: codeOf(err), Took: time.Since(began), Panicked: panicked})
	}
}

// codeOf is the code that grpc makes of a handler's error.
func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// admit keeps from the handler what is meant for another service, and what
// nobody waits for any more.
//
// Addresses are reused: what was an order may be a user a second later. A call
// without the metadata is served: its sender has chosen the address itself, as a
// health check does. An answer to one with it has it too.
func (s *Server) admit(ctx context.Context, serve func(context.Context) error) error {
	in, _ := metadata.FromIncomingContext(ctx)
	said := in.Get(ServiceKey)
	for _, meant := range said {
		if !strings.EqualFold(meant, s.cfg.Service) {
			return detailed(codes.Unavailable, grpcwire.WrongService, "the call is meant for %q; this is %q", clip.To(80, meant), s.cfg.Service)
		}
	}
	if len(said) > 0 {
		// It fails only after the header was sent.
		_ = grpc.SetHeader(ctx, metadata.Pairs(ServiceKey, s.cfg.Service))
	}
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return serve(ctx)
}

// unknown answers calls that the server does not have. grpc's own answer would
// come before any interceptor, and a client whose order has become a user would
// take it for the order's.
func unknown(any, grpc.ServerStream) error {
	return status.Error(codes.Unimplemented, "the server does not have this method")
}

var healthPrefix = "/" + healthpb.Health_ServiceDesc.ServiceName + "/"

func isHealth(method string) bool { return strings.HasPrefix(method, healthPrefix) }

// noSideEffects reports whether a method's idempotency_level says so.
func noSideEffects(method string) bool {
	return described(method) == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}
