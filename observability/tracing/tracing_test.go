package tracing_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record returns what makes spans, and those that have ended.
func record(sampler sdk.Sampler) (*tracing.Tracing, *tracetest.SpanRecorder) {
	ended := tracetest.NewSpanRecorder()
	return tracing.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(ended), sdk.WithSampler(sampler))), ended
}

// begin begins a request that came in.
func begin(t testing.TB, spans *tracing.Tracing) context.Context {
	return spans.Receive(t.Context(), propagation.MapCarrier{}, "request")
}

func TestTracingThatIsOffLeavesEverythingAsItIs(t *testing.T) {
	var off *tracing.Tracing
	if tracing.New(nil) != nil {
		t.Error("New(nil) makes spans; want none")
	}
	trace := new(httpmesh.Trace)
	if off.Client(trace) != trace || off.Client(nil) != nil {
		t.Error("the mesh's trace has changed")
	}
	h := http.NotFoundHandler()
	w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	off.Server().Handler(h).ServeHTTP(w, r)
	if w.Code != http.StatusNotFound {
		t.Errorf("got %d", w.Code)
	}
	if ctx := off.Server().Begin(t.Context(), r); ctx != t.Context() {
		t.Error("the request's context has changed")
	}
	off.Server().End(t.Context(), r, http.StatusOK)
}

func TestSpanThatNobodyAskedForCostsNothing(t *testing.T) {
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		in, end := tracing.Start(ctx, "sql")
		end(nil)
		if in != ctx || tracing.LogAttrs(ctx) != nil || tracing.Exemplar(ctx) != nil {
			t.Error("there is a span")
		}
	}); n != 0 {
		t.Errorf("%v allocations; want none", n)
	}
}

func TestEndOfAStartedSpanTellsTheError(t *testing.T) {
	spans, ended := record(sdk.AlwaysSample())
	_, end := tracing.Start(begin(t, spans), "sql")
	end(errors.New("the disk is full"))
	if got := ended.Ended()[0].Status(); got.Code != codes.Error || got.Description != "the disk is full" {
		t.Errorf("got %+v", got)
	}
}

func TestExemplarLeadsToTracesThatAreKeptOnly(t *testing.T) {
	spans, _ := record(sdk.NeverSample())
	if ctx := begin(t, spans); tracing.Exemplar(ctx) != nil || len(tracing.LogAttrs(ctx)) != 2 {
		t.Errorf("got %v and %v; want no exemplar, and the IDs in the log", tracing.Exemplar(ctx), tracing.LogAttrs(ctx))
	}
	spans, _ = record(sdk.AlwaysSample())
	ctx := begin(t, spans)
	attrs := tracing.LogAttrs(ctx)
	if diff := cmp.Diff(map[string]string{"trace_id": attrs[0].Value.String()}, tracing.Exemplar(ctx)); diff != "" || attrs[0].Key != "trace_id" || attrs[1].Key != "span_id" {
		t.Errorf("got %v: %s", attrs, diff)
	}
}

func TestNameOfAServersSpanIsOfABoundedNumber(t *testing.T) {
	spans, ended := record(sdk.AlwaysSample())
	mux := http.NewServeMux()
	mux.HandleFunc("/orders/{id}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	h := spans.Server().Handler(mux)
	for _, c := range []struct{ method, path, name string }{
		{"GET", "/orders/1", "GET /orders/{id}"},
		{"BREW", "/orders/1", "_OTHER /orders/{id}"},
		{"GET", "/nowhere", "GET"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), c.method, c.path, nil)
		h.ServeHTTP(httptest.NewRecorder(), r)
		all := ended.Ended()
		if got := all[len(all)-1].Name(); got != c.name {
			t.Errorf("%s %s: got %q; want %q", c.method, c.path, got, c.name)
		}
		if c.name != "GET" && r.Pattern != "/orders/{id}" {
			t.Errorf("the middleware outside sees the route %q", r.Pattern)
		}
	}
}

func TestSpanOfATryTellsWhereItWentAndWhy(t *testing.T) {
	spans, ended := record(sdk.AlwaysSample())
	var told []string
	trace := spans.Client(&httpmesh.Trace{
		Begin: func(ctx context.Context, _, _ string) context.Context { told = append(told, "begin"); return ctx },
		Try:   func(ctx context.Context, _ httpmesh.TryStart) context.Context { told = append(told, "try"); return ctx },
		Tried: func(context.Context, httpmesh.Try) { told = append(told, "tried") },
		Done:  func(context.Context, *httpmesh.Report) { told = append(told, "done") },
	})
	at := catalog.Instance{ID: "order-1", Node: "host-1", Host: "10.0.0.1", Port: 8080, State: catalog.StateCritical}
	for _, c := range []struct {
		start httpmesh.TryStart
		why   string
	}{
		{httpmesh.TryStart{Number: 1}, "first"},
		{httpmesh.TryStart{Number: 2, Beside: true}, "beside"},
		{httpmesh.TryStart{Number: 3, Beside: true, After: outcome.Broken}, "retry after broken"},
	} {
		sent := map[string]string{}
		c.start.Service, c.start.Method, c.start.Instance = "order", "GET", at
		c.start.Set = func(name, value string) { sent[name] = value }
		ctx := trace.Begin(t.Context(), "order", "GET")
		trace.Tried(trace.Try(ctx, c.start), httpmesh.Try{Outcome: outcome.Error, Status: 500})
		trace.Done(ctx, &httpmesh.Report{Outcome: outcome.Error, OverBudget: true})
		all := ended.Ended()
		try := all[len(all)-2]
		got := map[string]string{}
		for _, a := range try.Attributes() {
			got[string(a.Key)] = a.Value.String()
		}
		if got["rollcall.try.reason"] != c.why || got["rollcall.instance.id"] != "order-1" || got["rollcall.instance.node"] != "host-1" ||
			got["server.address"] != "10.0.0.1" || got["server.port"] != "8080" || got["rollcall.pick.mode"] != "panic" ||
			got["http.response.status_code"] != "500" || got["error.type"] != "error" {
			t.Errorf("try %d: got %v", c.start.Number, got)
		}
		if want := "00-" + try.SpanContext().TraceID().String() + "-" + try.SpanContext().SpanID().String() + "-01"; sent["traceparent"] != want {
			t.Errorf("try %d sends %v; want its own span, %s", c.start.Number, sent, want)
		}
	}
	if diff := cmp.Diff([]string{"begin", "try", "tried", "done"}, told[:4]); diff != "" {
		t.Errorf("the trace inside was told (-want +got):\n%s", diff)
	}
}

func TestCodeOfTheHowToIsInTheExample(t *testing.T) {
	page, err := os.ReadFile("../../docs/how-to/follow-a-request.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 3 {
		t.Errorf("found %d pieces of code; want 3 and more", len(blocks))
	}
	indent := regexp.MustCompile(`(?m)^\t+`)
	for _, b := range blocks {
		if !bytes.Contains(indent.ReplaceAll(example, nil), indent.ReplaceAll(b[1], nil)) {
			t.Errorf("example_test.go lacks\n%s", b[1])
		}
	}
}
