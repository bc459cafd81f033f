package app

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/internal/tlstest"
)

// caller is a gRPC service whose calls come to a gate.
type caller struct {
	testpb.UnimplementedTestServiceServer
	*gate
}

func (c caller) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	c.inside <- struct{}{}
	select {
	case <-c.open:
		return &testpb.Empty{}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// rpcsOf serves a gate by both protocols.
func rpcsOf(g *gate) both {
	return both{g, func(s grpc.ServiceRegistrar) { testpb.RegisterTestServiceServer(s, caller{gate: g}) }}
}

func (p *program) dial() *grpc.ClientConn {
	p.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.rpcs, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func TestServiceHasAnEntryForEachProtocolAndLeavesWithBothOnceAllIsServed(t *testing.T) {
	t.Parallel()
	agent, addr, _ := reachable(t)
	g := newGate()
	p := begin(t, addr, rpcsOf(g), "--drain-timeout=1m", "--instance-id=one")
	entries := func() []string {
		t.Helper()
		found, _, err := agent.Client().Health().Service("user", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, e := range found {
			all = append(all, e.Service.ID+" "+strings.Join(slices.Sorted(slices.Values(e.Service.Tags)), ",")+" "+e.Checks.AggregatedStatus())
		}
		slices.Sort(all)
		return all
	}
	are := func(want ...string) {
		t.Helper()
		p.eventually(strings.Join(want, "; "), func() bool { return slices.Equal(entries(), want) })
	}
	are("one http,prometheus passing", "one-grpc grpc passing")
	conn := p.dial()
	health := func() healthpb.HealthCheckResponse_ServingStatus {
		t.Helper()
		answer, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Error(err)
		}
		return answer.GetStatus()
	}
	p.broken.Store(true)
	if got := health(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		// Readiness is asked for anew, as a probe does.
		p.eventually("NOT_SERVING", func() bool {
			_, _, _ = p.get(p.admin + "/readyz")
			return health() == healthpb.HealthCheckResponse_NOT_SERVING
		})
	}
	p.broken.Store(false)
	p.eventually("SERVING", func() bool {
		_, _, _ = p.get(p.admin + "/readyz")
		return health() == healthpb.HealthCheckResponse_SERVING
	})

	held := make(chan error, 1)
	go func() {
		_, err := testpb.NewTestServiceClient(conn).EmptyCall(t.Context(), &testpb.Empty{})
		held <- err
	}()
	wait(t, g.inside)
	p.signals <- syscall.SIGTERM
	are("one http,prometheus critical", "one-grpc grpc critical")
	if got := health(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("while it drains its health is %v; want NOT_SERVING", got)
	}
	select {
	case err := <-held:
		t.Fatalf("the call under way ended with %v; want the drain to wait for it", err)
	default:
	}
	close(g.open)
	if err := wait(t, held); err != nil {
		t.Errorf("the call under way: %v; want it served", err)
	}
	p.exit(ExitDrained)
	are()
}

func TestBothProtocolsShareOneLimitOneLogAndOneID(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := begin(t, nobody(t), rpcsOf(g), "--overload-from=1")
	client := testpb.NewTestServiceClient(p.dial())
	under := make(chan error, 1)
	var header metadata.MD
	go func() {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "x-request-id", "abc")
		_, err := client.EmptyCall(ctx, &testpb.Empty{}, grpc.Header(&header))
		under <- err
	}()
	wait(t, g.inside)
	// A method that is not said to be without side effects is a write, as POST is.
	if _, err := client.EmptyCall(t.Context(), &testpb.Empty{}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the second call: %v; want RESOURCE_EXHAUSTED", err)
	}
	resp, err := p.client.Post(p.traffic+"/", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("a POST beside the call is answered %d; want 503", resp.StatusCode)
	}
	close(g.open)
	if err := wait(t, under); err != nil || !slices.Equal(header.Get("x-request-id"), []string{"abc"}) {
		t.Errorf("the call within the limit: %v, %v; want it served, with its own ID", err, header)
	}
	_, page, err := p.get(p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`http_server_requests_shed_total{kind="write",service="user"} 2`,
		`rpc_server_call_duration_seconds_count{code="OK",method="/grpc.testing.TestService/EmptyCall",service="user"} 1`,
		`rpc_server_call_duration_seconds_count{code="ResourceExhausted",method="/grpc.testing.TestService/EmptyCall",service="user"} 1`,
		`rpc_server_calls_in_flight{service="user"} 0`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if want := `"rpc":"/grpc.testing.TestService/EmptyCall","code":"OK"`; !strings.Contains(p.log.String(), want) || !strings.Contains(p.log.String(), `"request_id":"abc"`) {
		t.Errorf("the log lacks %s and its ID:\n%s", want, p.log)
	}
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 65<<10)}}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message of 65 KiB: %v; want RESOURCE_EXHAUSTED", err)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}

func TestServicesCallEachOtherByGRPCOverTLSAndOnlyNamedCallersMay(t *testing.T) {
	t.Parallel()
	agent, consul, _ := reachable(t)
	ours := tlstest.New(t, "ours")
	g := newGate()
	close(g.open)
	user := begin(t, consul, rpcsOf(g), append(tlsArgs(t, ours, "user"), "--tls-callers=order")...)
	user.eventually("both entries are registered as speaking TLS", func() bool {
		found, _, err := agent.Client().Health().Service("user", "", true, nil)
		return err == nil && len(found) == 2 && found[0].Service.Meta["rollcall-tls"] == "true" && found[1].Service.Meta["rollcall-tls"] == "true"
	})
	for name, want := range map[string]codes.Code{"order": codes.OK, "stranger": codes.Unavailable} {
		var runtime *Runtime
		p := beginBuilt(t, Spec{Name: name, Peers: []string{"user"}}, func(r *Runtime, _ *Parts) { runtime = r }, consul, hello, tlsArgs(t, ours, name)...)
		conn, err := grpcmesh.NewClient(runtime.Mesh, "user", grpcmesh.ClientConfig{Credentials: runtime.Credentials("user")})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		if _, err := testpb.NewTestServiceClient(conn).EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != want {
			t.Errorf("%s calls user: %v; want %v", name, err, want)
		}
		cancel()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		p.signals <- syscall.SIGTERM
		p.exit(ExitDrained)
	}
	user.signals <- syscall.SIGTERM
	user.exit(ExitDrained)
}
