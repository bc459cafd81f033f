package rpc_test

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlp"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlptest"
	"github.com/rollcall-mesh/rollcall/observability/tracing/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const method = "/shop.v1.Users/Find"

// open opens the provider of a service; stop sends its spans.
func open(t *testing.T, service string) (spans *tracing.Tracing, stop func()) {
	t.Helper()
	p, err := otlp.Open(t.Context(), otlp.Config{Service: service, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		if err := p.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return p.Tracing(), stop
}

// start starts an instance of user that traces its calls.
func start(t *testing.T, spans *tracing.Tracing, find func(context.Context) error) catalog.Instance {
	t.Helper()
	named := &grpcmesh.ServerTrace{Began: func(ctx context.Context, _ grpcmesh.ServerCall) context.Context {
		return logging.WithRequestID(ctx, "r-1")
	}}
	server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: "user", Trace: rpc.Server(spans, named)})
	if err != nil {
		t.Fatal(err)
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.v1.Users", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Find", Handler: func(srv any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
				return in, find(ctx)
			})
		}}},
	}, nil)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(lis) })
	t.Cleanup(func() {
		if err := server.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	host, port, err := net.SplitHostPort(lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Instance{ID: "at-" + port, Host: host, Port: number, Tags: []string{catalog.GRPC}}
}

func TestOneCallIsOneConnectedTraceWithARetryInIt(t *testing.T) {
	at := otlptest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", at.HTTP())
	orders, stopOrders := open(t, "order")
	users, stopUsers := open(t, "user")

	var served atomic.Int64
	var carried atomic.Value
	find := func(ctx context.Context) error {
		carried.Store(baggage.FromContext(ctx).String())
		if served.Add(1) == 1 {
			return status.Error(codes.Unavailable, "not now")
		}
		return nil
	}
	var source catalog.Fixed
	if err := source.Set("user", start(t, users, find), start(t, users, find)); err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &source, Trace: &discovery.Trace{HTTP: orders.Client(nil)}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	conn, err := grpcmesh.NewClient(mesh, "user", grpcmesh.ClientConfig{Repeatable: map[string]bool{method: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	member, err := baggage.NewMember("customer", "7")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(baggage.ContextWithBaggage(t.Context(), bag), "traceparent", "of the caller's caller")
	if err := conn.Invoke(ctx, method, wrapperspb.String("1"), new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Invoke(ctx, "/shop.v1.Users/Lose", wrapperspb.String("1"), new(wrapperspb.StringValue)); status.Code(err) != codes.Unimplemented {
		t.Fatalf("got %v; want that there is no such method", err)
	}
	stopOrders()
	stopUsers()

	want := `order internal shop.v1.Users/Find, ok
  order client try shop.v1.Users/Find, 1, first, gateway
    user server shop.v1.Users/Find, r-1, Unavailable
  order client try shop.v1.Users/Find, 2, retry after gateway, ok
    user server shop.v1.Users/Find, r-1, OK
order internal shop.v1.Users/Lose, ok
  order client try shop.v1.Users/Lose, 1, first, ok
    user server unmatched, r-1, Unimplemented
`
	if got := at.Tree("rollcall.request_id", "rpc.response.status_code", "rollcall.try.number", "rollcall.try.reason", "rollcall.outcome"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if carried.Load() != "customer=7" {
		t.Errorf("baggage came as %q", carried.Load())
	}
}
