package app

import (
	"context"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/rollcall-mesh/rollcall/internal/logtest"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlptest"
)

// do sends a request with headers, pairs of name and value, and returns the answer's body.
func (p *program) do(method, url, body string, header ...string) (int, string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for n := 0; n+1 < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	resp, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestSpansOfRequestsAreSentAndLogsAndBucketsNameTheirTrace(t *testing.T) {
	at := otlptest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", at.HTTP())
	mux := http.NewServeMux()
	mux.Handle("GET /users/{id}", hello)
	p := begin(t, nobody(t), both{mux, func(s grpc.ServiceRegistrar) {
		testpb.RegisterTestServiceServer(s, testpb.UnimplementedTestServiceServer{})
	}})
	const trace, above = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	const parent = "00-" + trace + "-" + above + "-01"
	if code, _ := p.do(http.MethodGet, p.traffic+"/users/1", "", "Traceparent", parent, "X-Request-Id", "r-1"); code != http.StatusOK {
		t.Fatalf("got %d", code)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent, "x-request-id", "r-2")
	if _, err := testpb.NewTestServiceClient(p.dial()).UnaryCall(ctx, &testpb.SimpleRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatalf("got %v", err)
	}
	p.do(http.MethodGet, p.admin+"/livez", "") // probes would bury the requests
	p.eventually("a bucket of each has an exemplar with the trace's ID", func() bool {
		_, page := p.do(http.MethodGet, p.admin+"/metrics", "", "Accept", "application/openmetrics-text")
		named := map[string]bool{}
		for line := range strings.Lines(page) {
			if name, _, _ := strings.Cut(line, "{"); strings.Contains(line, `# {trace_id="`+trace+`"}`) {
				named[name] = true
			}
		}
		return named["http_server_request_duration_seconds_bucket"] && named["rpc_server_call_duration_seconds_bucket"]
	})
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)

	want := "user server GET /users/{id}, r-1, 200\nuser server grpc.testing.TestService/UnaryCall, r-2, Unimplemented\n"
	if got := at.Tree("rollcall.request_id", "http.response.status_code", "rpc.response.status_code"); got != want {
		t.Errorf("the collector has got\n%swant\n%s", got, want)
	}
	for _, s := range at.Spans() {
		if s.Trace != trace || s.Parent != above {
			t.Errorf("%s is in %s below %s; want the sender's", s.Name, s.Trace, s.Parent)
		}
		if line := `"request_id":"` + s.Attributes["rollcall.request_id"] + `","trace_id":"` + trace + `","span_id":"` + s.ID + `"`; !strings.Contains(p.log.String(), line) {
			t.Errorf("no line has %s:\n%s", line, p.log)
		}
	}
}

func TestWrongVariableOfTracingStopsTheStart(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	log := &logtest.Buffer{}
	code := Run(t.Context(), Spec{Name: "user", Build: func(context.Context, *Runtime) (Parts, error) { return Parts{}, nil }}, nil, Process{Stdout: io.Discard, Stderr: log})
	if want := `user: OTEL_TRACES_EXPORTER is "zipkin"; want otlp or none`; code != ExitSetting || strings.TrimSpace(log.String()) != want {
		t.Errorf("exit code %d with %q; want %d with %q", code, log, ExitSetting, want)
	}
}

func TestLevelOfTheLogIsChangedAtTheAdminPort(t *testing.T) {
	t.Parallel()
	p := begin(t, nobody(t), hello)
	if code, body := p.do(http.MethodGet, p.admin+"/debug/level", ""); code != http.StatusOK || strings.TrimSpace(body) != `{"level":"info"}` {
		t.Errorf("got %d %s", code, body)
	}
	if strings.Contains(p.log.String(), "/debug/level") {
		t.Error("requests to the admin port are logged at info")
	}
	if code, body := p.do(http.MethodPut, p.admin+"/debug/level", "debug"); code != http.StatusOK || strings.TrimSpace(body) != `{"level":"debug"}` {
		t.Errorf("got %d %s", code, body)
	}
	p.eventually("requests to the admin port are logged at debug", func() bool { return strings.Contains(p.log.String(), `"path":"/debug/level"`) })
	if code, body := p.do(http.MethodDelete, p.admin+"/debug/level", ""); code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE is answered %d %s", code, body)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}
