package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// listening is an agent that the command asks.
func listening(t *testing.T) *consultest.Agent {
	t.Helper()
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", address)
	return agent
}

// offer registers what listens on a port of this machine as an instance of order.
func offer(t *testing.T, agent *consultest.Agent, id string, port int, tags ...string) {
	t.Helper()
	err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "order", ID: id, Address: "127.0.0.1", Port: port, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
}

// serveHTTP offers an instance of order that answers so.
func serveHTTP(t *testing.T, agent *consultest.Agent, id string, handler http.HandlerFunc) {
	t.Helper()
	server := httptest.NewServer(httpmesh.RequireService("order", handler))
	t.Cleanup(server.Close)
	offer(t, agent, id, server.Listener.Addr().(*net.TCPAddr).Port)
}

// closedPort is one that refuses connections.
func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func summaryOf(t *testing.T, got result) summary {
	t.Helper()
	var sum summary
	if err := json.Unmarshal([]byte(got.out), &sum); err != nil {
		t.Fatalf("%v: %q, %q", err, got.out, got.errs)
	}
	return sum
}

func TestCallSaysWhoServedAndWhatWasTriedAgain(t *testing.T) {
	agent := listening(t)
	serveHTTP(t, agent, "order-1", func(http.ResponseWriter, *http.Request) {})
	serveHTTP(t, agent, "order-2", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	offer(t, agent, "order-3", closedPort(t))
	got := rollcall(t, "call", "order", "/orders/1?full", "-n", "40", "-c", "4", "-o", "json")
	sum := summaryOf(t, got)
	if got.code != 0 || sum.Requests != 40 || sum.Failed != 0 || sum.Statuses["200"]+sum.Statuses["404"] != 40 {
		t.Errorf("got exit code %d and %+v; want 40 answers, and 0: a 404 is one", got.code, sum)
	}
	if sum.Request != "GET /orders/1?full" || sum.Seconds <= 0 || sum.Latency.P50 <= 0 || sum.Latency.P50 > sum.Latency.P99 || sum.Latency.P99 > sum.Latency.Max {
		t.Errorf("got %+v; want the request and its times", sum)
	}
	tries, answered, failed, counted := 0, 0, 0, 0
	for _, i := range sum.Instances {
		tries, answered, failed = tries+i.Tries, answered+i.Answered, failed+i.Failed
	}
	for _, b := range sum.Latency.Buckets {
		counted += b.Count
	}
	if answered != 40 || counted != 40 || tries != 40+sum.Retries || sum.Retries == 0 || failed == 0 {
		t.Errorf("%d answered, %d in the histogram, %d tries, %d retries, %d failed tries; want them to add up, and some retries of failed tries", answered, counted, tries, sum.Retries, failed)
	}
	if len(sum.Failures) != 1 || sum.Failures[0].Instance != "order-3" || sum.Failures[0].Outcome != "unreachable" || sum.Failures[0].Count != failed {
		t.Errorf("got failures %+v; want that order-3 is unreachable", sum.Failures)
	}
}

func TestCallThatFailsIsExitCode1AndSaysWhy(t *testing.T) {
	agent := listening(t)
	serveHTTP(t, agent, "order-1", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "out of \x1b[31mtea", http.StatusInternalServerError)
	})
	got := rollcall(t, "call", "order")
	if got.code != exitNo {
		t.Errorf("got exit code %d; want %d", got.code, exitNo)
	}
	for _, want := range []string{`out of \x1b[31mtea`, "GET /: 1 request in ", "1 failed", "status: 500 (1)", "order-1", "error", "status 500"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("got %q; want %q in it", got.out, want)
		}
	}
}

func TestCallSendsMethodHeadersAndBody(t *testing.T) {
	agent := listening(t)
	serveHTTP(t, agent, "order-1", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %q %q %s %d\nand more", r.Method, r.RequestURI, r.Header.Get("Idempotency-Key"), r.Header.Get("Content-Type"), body, r.ContentLength)
	})
	for _, c := range []struct {
		words []string
		want  string
	}{
		{nil, `GET /x "" ""  0`},
		{[]string{"-d", `{"a":1}`, "-H", "Idempotency-Key: 7"}, `POST /x "7" "application/json" {"a":1} 7`},
		{[]string{"-d", "@-", "-X", "PUT", "-H", "content-type:text/plain"}, `PUT /x "" "text/plain" from standard input 19`},
	} {
		var out, errs screen
		code := run(t.Context(), append([]string{"call", "order", "/x"}, c.words...), strings.NewReader("from standard input"), &out, &errs)
		if got := out.take(); code != 0 || !strings.HasPrefix(got, c.want+"\nand more\n") {
			t.Errorf("%q: got exit code %d, %q and %q; want %q", c.words, code, got, errs.take(), c.want)
		}
	}
	for words, want := range map[string]string{
		"-H Idempotency-Key": `--header is "Idempotency-Key"; want name:value`,
		"-d @nowhere":        "--data: open nowhere",
		"--ca x":             "need --tls",
		"-X G(T":             `--method is "G(T"`,
	} {
		if got := rollcall(t, append([]string{"call", "order"}, strings.Fields(words)...)...); got.code != exitUsage || !strings.Contains(got.errs, want) {
			t.Errorf("%s: got exit code %d and %q; want %d and %q", words, got.code, got.errs, exitUsage, want)
		}
	}
}

func TestCallKeepsItsRateAndNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &callCmd{Requests: 11, Concurrency: 4, Rate: 10}
		var now, most atomic.Int64
		tally := newTally("order", "GET /", func(int) {})
		began := time.Now()
		c.send(t.Context(), time.Minute, func(context.Context) answer {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(350 * time.Millisecond)
			return answer{status: "200", answered: true, report: httpmesh.Report{Outcome: outcome.OK}}
		}, tally)
		sum := tally.sum()
		if took := time.Since(began); took != 1350*time.Millisecond {
			t.Errorf("it took %v; want a second for 11 requests at 10 a second, and the last one's time", took)
		}
		if sum.Requests != 11 || most.Load() != 4 {
			t.Errorf("%d requests, %d at a time; want 11 and 4", sum.Requests, most.Load())
		}
	})
}

func TestInterruptEndsACallAndWhatWasCutOffIsNotCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		tally := newTally("order", "GET /", func(int) {})
		(&callCmd{Requests: 100, Concurrency: 1}).send(ctx, time.Minute, func(ctx context.Context) answer {
			select {
			case <-time.After(time.Second):
				return answer{status: "200", answered: true, report: httpmesh.Report{Outcome: outcome.OK}}
			case <-ctx.Done():
				return answer{status: noStatus, err: ctx.Err(), report: httpmesh.Report{Outcome: outcome.Canceled}}
			}
		}, tally)
		if sum := tally.sum(); sum.Requests != 2 || sum.Failed != 0 {
			t.Errorf("got %d requests, %d failed; want the 2 that had an answer", sum.Requests, sum.Failed)
		}
	})
}

func TestSummaryCountsWhatFailed(t *testing.T) {
	tally := newTally("order", "GET /", func(int) {})
	for range 3 {
		tally.add(answer{status: noStatus, err: errors.New("no instance ready"), report: httpmesh.Report{Outcome: outcome.NoInstance}})
	}
	tally.add(answer{status: "200", answered: true, err: io.ErrUnexpectedEOF, took: time.Second, report: httpmesh.Report{
		Outcome: outcome.OK, OverBudget: true, Tries: []httpmesh.Try{{Outcome: outcome.Outrun}, {Outcome: outcome.OK, Used: true}},
	}})
	sum := tally.sum()
	if sum.Requests != 4 || sum.Failed != 4 || sum.Budget != 1 || sum.Retries != 1 {
		t.Errorf("got %+v; want 4 failed, 1 for want of budget, 1 retry", sum)
	}
	want := []failure{{Outcome: "no_instance", Count: 3, Example: "no instance ready"}, {Outcome: "body_broken", Count: 1, Example: "unexpected EOF"}}
	if diff := cmp.Diff(want, sum.Failures); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

func TestLatencyIsInBucketsThatDoubleOrSo(t *testing.T) {
	var took []time.Duration
	for n := range 100 {
		took = append(took, time.Duration(n+1)*time.Millisecond)
	}
	got := latencyOf(took)
	want := latency{P50: 0.051, P90: 0.091, P99: 0.1, Max: 0.1, Buckets: []bucket{
		{0.001, 1}, {0.002, 1}, {0.005, 3}, {0.01, 5}, {0.02, 10}, {0.05, 30}, {0.1, 50},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var out screen
	got.print(&out)
	golden(t, "latency", out.take())
	if got := latencyOf(nil); len(got.Buckets) != 0 || got.Max != 0 {
		t.Errorf("of none: got %+v; want nothing", got)
	}
}

// serveRPC offers an instance of order that speaks gRPC; more registers what it has
// besides its health.
func serveRPC(t *testing.T, agent *consultest.Agent, more func(*grpcmesh.Server)) {
	t.Helper()
	server, err := grpcmesh.NewServer(grpcmesh.ServerConfig{Service: "order"})
	if err != nil {
		t.Fatal(err)
	}
	more(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	offer(t, agent, "order-1-grpc", l.Addr().(*net.TCPAddr).Port, "grpc")
}

func TestCallOfGRPCNeedsNoGeneratedCode(t *testing.T) {
	agent := listening(t)
	file := &descriptorpb.FileDescriptorProto{
		Name: new("test/echo.proto"), Package: new("test"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: new("Text"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: new("text"), JsonName: new("text"), Number: new(int32(1)),
			Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: new("Echo"), Method: []*descriptorpb.MethodDescriptorProto{
			{Name: new("Say"), InputType: new(".test.Text"), OutputType: new(".test.Text")},
			{Name: new("Sing"), InputType: new(".test.Text"), OutputType: new(".test.Text"), ServerStreaming: new(true)},
		}}},
	}
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{file}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := files.FindDescriptorByName("test.Text")
	if err != nil {
		t.Fatal(err)
	}
	say := func(_ any, ctx context.Context, read func(any) error, through grpc.UnaryServerInterceptor) (any, error) {
		in := dynamicpb.NewMessage(text.(protoreflect.MessageDescriptor))
		if err := read(in); err != nil {
			return nil, err
		}
		return through(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Echo/Say"}, func(context.Context, any) (any, error) {
			if !strings.Contains(in.String(), "hello") {
				return nil, status.Error(codes.NotFound, "say hello")
			}
			return in, nil
		})
	}
	serveRPC(t, agent, func(server *grpcmesh.Server) {
		server.RegisterService(&grpc.ServiceDesc{
			ServiceName: "test.Echo", Metadata: file.GetName(), Methods: []grpc.MethodDesc{{MethodName: "Say", Handler: say}},
		}, nil)
		reflectionpb.RegisterServerReflectionServer(server, reflection.NewServerV1(reflection.ServerOptions{Services: server, DescriptorResolver: files}))
	})

	for _, c := range []struct {
		words string
		code  int
		want  string
	}{
		{`test.Echo/Say -d {"text":"hello"}`, 0, `"hello"`},
		{`/test.Echo/Say -d {"text":"hello"} -n 20 -c 2 -H x:y`, 0, "status: OK (20)"},
		{`test.Echo/Say`, 0, "say hello"}, // a word of the service's own
		{`grpc.health.v1.Health/Check`, 0, "SERVING"},
		{`test.Echo/Say -d {"txt":1}`, exitUsage, "no test.Text in JSON"},
		{`test.Echo/Shout`, exitUsage, "test.Echo has no method Shout; it has Say, Sing"},
		{`test.Echo/Sing`, exitUsage, "want a unary method"},
		{`test.Nobody/Say`, exitNo, "ask order to describe test.Nobody by server reflection"},
		{`test.Echo`, exitUsage, "want package.Service/Method"},
	} {
		got := rollcall(t, append([]string{"call", "order", "--grpc"}, strings.Fields(c.words)...)...)
		if got.code != c.code || !strings.Contains(got.out+got.errs, c.want) {
			t.Errorf("%s: got exit code %d, %q and %q; want %d and %q", c.words, got.code, got.out, got.errs, c.code, c.want)
		}
	}
}

func TestCallOfGRPCWithoutReflectionSaysHowToHaveIt(t *testing.T) {
	agent := listening(t)
	serveRPC(t, agent, func(*grpcmesh.Server) {})
	got := rollcall(t, "call", "order", "order.v1.Orders/Get", "--grpc")
	if got.code != exitNo || !strings.Contains(got.errs, "have it offer reflection") {
		t.Errorf("got exit code %d and %q; want %d and what to do", got.code, got.errs, exitNo)
	}
}
