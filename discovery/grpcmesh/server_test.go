package grpcmesh

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

// tester is a service whose unary calls and streams are what the test says.
type tester struct {
	testpb.UnimplementedTestServiceServer
	unary  func(context.Context) error
	stream func(testpb.TestService_FullDuplexCallServer) error
}

func (s tester) EmptyCall(ctx context.Context, _ *testpb.Empty) (*testpb.Empty, error) {
	if s.unary == nil {
		return &testpb.Empty{}, nil
	}
	return &testpb.Empty{}, s.unary(ctx)
}

func (s tester) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.stream(stream)
}

// serving is a server that runs inside the test, and a plain client of it.
type serving struct {
	*Server
	conn *grpc.ClientConn
	test testpb.TestServiceClient
}

func serveTest(t *testing.T, cfg ServerConfig, service tester) serving {
	t.Helper()
	cfg.Service = "order"
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	testpb.RegisterTestServiceServer(s, service)
	l := bufconn.Listen(64 << 10)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///order", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve() = %v; want nil after the end", err)
		}
	})
	return serving{s, conn, testpb.NewTestServiceClient(conn)}
}

// ways are the kinds of calls there are; each returns how it ended and the
// header of the answer.
var ways = map[string]func(context.Context, serving) (metadata.MD, error){
	"unary": func(ctx context.Context, s serving) (metadata.MD, error) {
		var header metadata.MD
		_, err := s.test.EmptyCall(ctx, &testpb.Empty{}, grpc.Header(&header))
		return header, err
	},
	"stream": func(ctx context.Context, s serving) (metadata.MD, error) {
		stream, err := s.test.FullDuplexCall(ctx)
		if err != nil {
			return nil, err
		}
		header, err := stream.Header()
		if err != nil {
			return header, err
		}
		if _, err = stream.Recv(); errors.Is(err, io.EOF) {
			err = nil
		}
		return header, err
	},
}

// reason is that of the status' ErrorInfo.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetDomain() + " " + info.GetReason()
		}
	}
	return ""
}

func TestCallMeantForAnotherServiceIsRefusedWhateverItsMethod(t *testing.T) {
	t.Parallel()
	s := serveTest(t, ServerConfig{}, tester{stream: func(testpb.TestService_FullDuplexCallServer) error { return nil }})
	all := map[string]func(context.Context, serving) (metadata.MD, error){
		"a method that is another service's": func(ctx context.Context, s serving) (metadata.MD, error) {
			return nil, s.conn.Invoke(ctx, "/rollcall.user.v1.UserService/GetUser", &testpb.Empty{}, &testpb.Empty{})
		},
	}
	maps.Copy(all, ways)
	for name, call := range all {
		_, err := call(metadata.AppendToOutgoingContext(t.Context(), ServiceKey, "user"), s)
		if status.Code(err) != codes.Unavailable || reason(err) != "rollcall WRONG_SERVICE" {
			t.Errorf("%s meant for user: %v (%s); want UNAVAILABLE, WRONG_SERVICE", name, err, reason(err))
		}
	}
	for name, call := range ways {
		header, err := call(metadata.AppendToOutgoingContext(t.Context(), ServiceKey, "Order"), s)
		if err != nil || !slices.Equal(header.Get(ServiceKey), []string{"order"}) {
			t.Errorf("%s meant for Order: %v, header %v; want it served, by order", name, err, header)
		}
		if header, err := call(t.Context(), s); err != nil || len(header.Get(ServiceKey)) > 0 {
			t.Errorf("%s that does not say: %v, header %v; want it served", name, err, header)
		}
	}
}

func TestTraceIsToldOfEachCallButNotOfNamesThatTheCallerMadeUp(t *testing.T) {
	t.Parallel()
	type key struct{}
	var mu sync.Mutex
	var told []string
	s := serveTest(t, ServerConfig{Trace: &ServerTrace{
		Began: func(ctx context.Context, call ServerCall) context.Context {
			return context.WithValue(ctx, key{}, "began "+call.Method)
		},
		Ended: func(ctx context.Context, call ServerCall, end ServerEnd) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, ctx.Value(key{}).(string)+" "+call.Method+" "+end.Code.String())
		},
	}}, tester{unary: func(ctx context.Context) error {
		if ctx.Value(key{}) == nil {
			t.Error("the handler's context is not the one that Began returned")
		}
		return context.DeadlineExceeded
	}})
	_, _ = ways["unary"](t.Context(), s)
	err := s.conn.Invoke(t.Context(), "/made.Up/Name", &testpb.Empty{}, &testpb.Empty{})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is not there: %v; want UNIMPLEMENTED", err)
	}
	if _, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	const method = "/grpc.testing.TestService/EmptyCall"
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"began " + method + " " + method + " DeadlineExceeded", "began   Unimplemented"}; !slices.Equal(told, want) {
		t.Errorf("told %q; want %q", told, want)
	}
	if n := s.Arrivals(); n != 2 {
		t.Errorf("%d arrivals; want 2, without the health check", n)
	}
}

func TestTooMuchIsShedWithAWordOfWhenToComeBack(t *testing.T) {
	t.Parallel()
	var done atomic.Int64
	full := true
	s := serveTest(t, ServerConfig{Limit: func(ctx context.Context, readOnly bool) (context.Context, func(), bool) {
		if readOnly {
			t.Error("EmptyCall is said to be read-only; want not, for its proto does not say so")
		}
		return ctx, func() { done.Add(1) }, !full
	}}, tester{stream: func(testpb.TestService_FullDuplexCallServer) error { return nil }})
	var trailer metadata.MD
	_, err := s.test.EmptyCall(t.Context(), &testpb.Empty{}, grpc.Trailer(&trailer))
	if status.Code(err) != codes.ResourceExhausted || reason(err) != "rollcall OVERLOAD" || !slices.Equal(trailer.Get("grpc-retry-pushback-ms"), []string{"1000"}) {
		t.Errorf("%v (%s), trailer %v; want RESOURCE_EXHAUSTED, OVERLOAD, and a pushback of 1000 ms", err, reason(err), trailer)
	}
	var delay time.Duration
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			delay = info.GetRetryDelay().AsDuration()
		}
	}
	if delay != time.Second {
		t.Errorf("RetryInfo says %v; want 1s", delay)
	}
	if _, err := ways["stream"](t.Context(), s); err != nil {
		t.Errorf("a stream: %v; want it served, for it is not limited", err)
	}
	if done.Load() != 0 {
		t.Error("what was shed is told to have ended")
	}
	full = false
	if _, err := ways["unary"](t.Context(), s); err != nil || done.Load() != 1 {
		t.Errorf("within the limit: %v, %d told to have ended; want it served, and 1", err, done.Load())
	}
}

func TestMethodWithoutSideEffectsIsReadOnly(t *testing.T) {
	t.Parallel()
	safe := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
	method := func(name string, options *descriptorpb.MethodOptions) *descriptorpb.MethodDescriptorProto {
		return &descriptorpb.MethodDescriptorProto{
			Name: new(name), InputType: new(".servertest.M"), OutputType: new(".servertest.M"), Options: options,
		}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: new("servertest.proto"), Package: new("servertest"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("M")}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("S"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Get", safe), method("Put", nil),
		}}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	if err := protoregistry.GlobalFiles.RegisterFile(file); err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]bool{
		"/servertest.S/Get": true, "/servertest.S/Put": false, "/servertest.S/None": false, "/servertest.S": false, "/servertest.M/x": false, "": false,
	} {
		if got := noSideEffects(method); got != want {
			t.Errorf("noSideEffects(%q) = %v; want %v", method, got, want)
		}
	}
}

func TestHandlerThatPanicsIsAnsweredAndLoggedAndTheServerGoesOn(t *testing.T) {
	t.Parallel()
	var log logtest.Buffer
	var ends atomic.Int64
	s := serveTest(t, ServerConfig{
		Log:   slog.New(slog.NewTextHandler(&log, nil)),
		Ready: func() error { panic("not ready in the least") },
		Trace: &ServerTrace{Ended: func(_ context.Context, _ ServerCall, end ServerEnd) {
			if end.Panicked && end.Code == codes.Internal {
				ends.Add(1)
			}
		}},
	}, tester{
		unary:  func(context.Context) error { panic("secret one") },
		stream: func(testpb.TestService_FullDuplexCallServer) error { panic("secret two") },
	})
	for name, call := range ways {
		if _, err := call(t.Context(), s); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v; want INTERNAL, which does not tell the panic", name, err)
		}
	}
	healthy, err := healthpb.NewHealthClient(s.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || healthy.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a Ready that panics makes the health %v, %v; want NOT_SERVING", healthy, err)
	}
	for _, want := range []string{"secret one", "secret two", "in the least", "server_test.go"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
	if ends.Load() != 2 {
		t.Errorf("the trace was told of %d panics; want 2", ends.Load())
	}
}

func TestDeadlineReachesTheHandler(t *testing.T) {
	t.Parallel()
	s := serveTest(t, ServerConfig{}, tester{unary: func(ctx context.Context) error {
		if by, ok := ctx.Deadline(); !ok || time.Until(by) > time.Minute {
			t.Errorf("the deadline is %v, %v; want one within a minute", by, ok)
		}
		return nil
	}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := ways["unary"](ctx, s); err != nil {
		t.Error(err)
	}
}

func TestHealthIsWhatReadySaysAndNotServingForGoodOnceRetired(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	s := serveTest(t, ServerConfig{Ready: func() error {
		if !ready.Load() {
			return errors.New("disk full")
		}
		return nil
	}}, tester{})
	client := healthpb.NewHealthClient(s.conn)
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, name := range []string{"", "grpc.testing.TestService"} {
			got, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
			if err != nil || got.GetStatus() != want {
				t.Errorf("Check(%q) = %v, %v; want %v", name, got, err, want)
			}
		}
		all, err := client.List(t.Context(), &healthpb.HealthListRequest{})
		if err != nil || all.GetStatuses()[""].GetStatus() != want {
			t.Errorf("List() = %v, %v; want %v", all, err, want)
		}
	}
	check(healthpb.HealthCheckResponse_NOT_SERVING)
	watch, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	told := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if got, err := watch.Recv(); err != nil || got.GetStatus() != want {
			t.Errorf("told %v, %v; want %v", got, err, want)
		}
	}
	told(healthpb.HealthCheckResponse_NOT_SERVING)
	ready.Store(true)
	s.Refresh()
	told(healthpb.HealthCheckResponse_SERVING)
	check(healthpb.HealthCheckResponse_SERVING)
	s.Retire()
	told(healthpb.HealthCheckResponse_NOT_SERVING)
	s.Refresh()
	check(healthpb.HealthCheckResponse_NOT_SERVING)

	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "another"}); status.Code(err) != codes.NotFound {
		t.Errorf("Check of a service that is not there: %v; want NOT_FOUND", err)
	}
	other, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{Service: "another"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.Recv(); err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		t.Errorf("Watch of a service that is not there: %v, %v; want SERVICE_UNKNOWN", got, err)
	}

	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown() = %v; want nil: those who watch the health hold nothing up", err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("after the end the watch says %v; want UNAVAILABLE", err)
	}
}

func TestShutdownAnswersEveryCallThatAHandlerHasBegun(t *testing.T) {
	t.Parallel()
	var begun, answered atomic.Int64
	inside, release := make(chan struct{}, 1), make(chan struct{})
	s := serveTest(t, ServerConfig{}, tester{unary: func(context.Context) error {
		begun.Add(1)
		select {
		case inside <- struct{}{}:
			<-release // the first one only
		default:
		}
		return nil
	}})
	var calling sync.WaitGroup
	for range 8 {
		calling.Go(func() {
			for {
				if _, err := s.test.EmptyCall(t.Context(), &testpb.Empty{}); err != nil {
					return
				}
				answered.Add(1)
			}
		})
	}
	shut := make(chan error, 1)
	for begun.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	go func() { shut <- s.Shutdown(t.Context()) }()
	select {
	case err := <-shut:
		t.Fatalf("Shutdown() = %v while a call was under way; want it to wait", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-shut; err != nil {
		t.Errorf("Shutdown() = %v; want nil", err)
	}
	calling.Wait()
	if begun.Load() != answered.Load() {
		t.Errorf("%d calls were begun, %d answered; want all of them", begun.Load(), answered.Load())
	}
}

func TestShutdownCutsOffWhatIsLeftWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	inside, ignored := make(chan struct{}), make(chan struct{})
	s := serveTest(t, ServerConfig{}, tester{
		stream: func(stream testpb.TestService_FullDuplexCallServer) error {
			inside <- struct{}{}
			<-stream.Context().Done()
			return stream.Context().Err()
		},
		unary: func(context.Context) error {
			inside <- struct{}{}
			<-ignored // heeds nothing
			return nil
		},
	})
	stream, err := s.test.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { _, err := s.test.EmptyCall(t.Context(), &testpb.Empty{}); ended <- err }()
	<-inside
	<-inside
	enough := errors.New("the drain's time is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	err = s.Shutdown(ctx)
	if !errors.Is(err, enough) || !strings.Contains(err.Error(), "2 calls were cut off") {
		t.Errorf("Shutdown() = %v; want 2 calls cut off, and why", err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v; want UNAVAILABLE", err)
	}
	if err := <-ended; status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v; want UNAVAILABLE", err)
	}
	close(ignored)
}

func TestReflectionIsThereWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{false, true} {
		s := serveTest(t, ServerConfig{Reflection: on}, tester{})
		stream, err := reflectionpb.NewServerReflectionClient(s.conn).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		if err != nil && !errors.Is(err, io.EOF) { // EOF: it has ended, and Recv says why
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if !on && status.Code(err) != codes.Unimplemented {
			t.Errorf("by default it is answered %v, %v; want UNIMPLEMENTED", answer, err)
		}
		if on && !strings.Contains(answer.String(), "grpc.testing.TestService") {
			t.Errorf("it lists %v, %v; want grpc.testing.TestService", answer, err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Error(err)
		}
	}
}

func TestServerWithoutANameIsRefused(t *testing.T) {
	if _, err := NewServer(ServerConfig{Service: "or der"}); err == nil || !strings.Contains(err.Error(), `Service`) {
		t.Errorf("NewServer() = %v; want an error that names Service", err)
	}
}
