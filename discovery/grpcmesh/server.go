package grpcmesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// ServerConfig says what a Server is. Service is required, the rest may be
// empty.
type ServerConfig struct {
	// Service is the name that the server is registered by. Calls that are meant
	// for another one are refused. Required.
	Service string
	// Ready says whether the instance can serve: nil, or why not. It is what the
	// health service (grpc.health.v1) answers, so it must not wait, nor depend on
	// Consul or peers. One that panics says no. nil means always ready.
	Ready func() error
	// Limit lets a call in, or sheds it: ok is false if there is too much to do.
	// Then the call ends with RESOURCE_EXHAUSTED before any work was done; see
	// Overloaded. Else done is called when it has ended. readOnly says that the
	// method's idempotency_level is NO_SIDE_EFFECTS. Streams are not asked about:
	// how many there are, and how long they take, says nothing of load. nil means
	// no limit.
	Limit func(ctx context.Context, readOnly bool) (in context.Context, done func(), ok bool)
	// Reflection offers the reflection service, by which grpcurl and the like
	// learn what a server takes. Whoever reaches the port can ask it. false means
	// that they need the proto files.
	Reflection bool
	// Trace is told of each call. nil means none.
	Trace *ServerTrace
	// Log gets panics, with their stacks. nil means slog.Default().
	Log *slog.Logger
}

// ServerTrace is told what a Server does. Each function may be nil, is called in
// the call's own goroutine, and should return at once. Calls of the health
// service are left out.
type ServerTrace struct {
	// Began is told of each call, before anything is decided about it, and returns
	// the context that it goes on with.
	Began func(ctx context.Context, call ServerCall) context.Context
	// Ended is told of the same calls, refused ones included. Their context is the
	// one that Began has returned.
	Ended func(ctx context.Context, call ServerCall, end ServerEnd)
}

// ServerCall is a call that has come to a Server.
type ServerCall struct {
	// Method as it is on the wire, "/package.Service/Method". It is empty for one
	// that the server does not have: a caller can make up any number of them.
	Method string
	// Stream says that it is no unary call. What the server does not have counts
	// as a stream.
	Stream bool
}

// ServerEnd is how a call has ended.
type ServerEnd struct {
	Code     codes.Code
	Took     time.Duration
	Panicked bool
}

// Server is a grpc.Server that is an instance in the mesh: it refuses what is
// meant for another service, answers for its health, sheds what is too much,
// survives handlers that panic, and leaves without breaking a call. Use
// NewServer.
type Server struct {
	*grpc.Server
	cfg      ServerConfig
	health   *health
	methods  atomic.Pointer[map[string]bool] // all that the server has; set by Serve
	arrivals atomic.Uint64
	calls    atomic.Int64 // under way
}

// NewServer returns a server without services, to register generated ones with
// as with any grpc.Server. The options come after the server's own, which are
// interceptors, grpc.UnknownServiceHandler, and limits:
//
//   - 1000 streams on a connection (grpc.MaxConcurrentStreams);
//   - clients may ping every 10 s, without a call as well, which grpc-go's own
//     server would end the connection for;
//   - a connection that nothing came on for a minute is pinged, and closed 20 s
//     later: a client that vanished holds nothing for long.
//
// So interceptors of the caller's see calls that were let in, and of those that
// the server has. An error means a wrong setting, which it names.
func NewServer(cfg ServerConfig, opts ...grpc.ServerOption) (*Server, error) {
	if err := catalog.CheckService(cfg.Service); err != nil {
		return nil, fmt.Errorf("grpcmesh: Service: %w", err)
	}
	if cfg.Ready == nil {
		cfg.Ready = func() error { return nil }
	}
	if cfg.Limit == nil {
		cfg.Limit = func(ctx context.Context, _ bool) (context.Context, func(), bool) { return ctx, func() {}, true }
	}
	trace := ServerTrace{}
	if cfg.Trace != nil {
		trace = *cfg.Trace
	}
	if trace.Began == nil {
		trace.Began = func(ctx context.Context, _ ServerCall) context.Context { return ctx }
	}
	if trace.Ended == nil {
		trace.Ended = func(context.Context, ServerCall, ServerEnd) {}
	}
	cfg.Trace = &trace
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{cfg: cfg, health: newHealth(cfg.Ready, cfg.Log)}
	s.Server = grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.UnknownServiceHandler(unknown),
		grpc.MaxConcurrentStreams(1000),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	}, opts...)...)
	healthpb.RegisterHealthServer(s.Server, s.health)
	if cfg.Reflection {
		reflection.Register(s.Server)
	}
	return s, nil
}

// Serve answers the listener's connections until Shutdown, and returns nil then.
// It closes the listener. All services must have been registered.
func (s *Server) Serve(l net.Listener) error {
	methods, names := map[string]bool{}, map[string]bool{"": true}
	for name, service := range s.GetServiceInfo() {
		names[name] = true
		for _, m := range service.Methods {
			methods["/"+name+"/"+m.Name] = true
		}
	}
	s.methods.Store(&methods)
	s.health.serve(names)
	if err := s.Server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// Arrivals returns how many calls have arrived so far, those of the health
// service left out: for registration.Config, whose drain goes on while calls
// still come.
func (s *Server) Arrivals() uint64 { return s.arrivals.Load() }

// Refresh has Ready asked again, for those who watch the server's health: call it
// when readiness has changed. Each check of the health asks as well.
func (s *Server) Refresh() { s.health.refresh() }

// Retire answers NOT_SERVING from now on, whatever Ready says, to those who ask
// for the server's health. Everything is served all the same: call it first when
// the instance leaves, before registration.Registration's Drain.
func (s *Server) Retire() { s.health.retire() }

// grace is how long handlers may take to return after they were cut off.
const grace = time.Second

// Shutdown retires the server, closes its listeners, asks clients to leave
// (GOAWAY) and waits for the calls under way, those included that clients have
// sent before they read that. When ctx ends it cuts the rest off, streams for the
// most part, and the error says how many. A handler that does not heed its context
// is waited for a second longer, and not any more then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Retire()
	s.health.end()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.GracefulStop()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
	}
	left := s.calls.Load()
	s.Stop() // ends GracefulStop too, but for handlers that don't return
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
	}
	if left == 0 {
		return nil // connections without a call: nothing was lost
	}
	return fmt.Errorf("shut down: %d calls were cut off: %w", left, context.Cause(ctx))
}
