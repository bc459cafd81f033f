package otlp_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlp"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens the provider of a service; stop sends its spans.
func open(t *testing.T, service string) (spans *tracing.Tracing, stop func()) {
	t.Helper()
	p, err := otlp.Open(t.Context(), otlp.Config{Service: service, Version: "1.2.3", Log: slog.New(slog.DiscardHandler)})
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

// serve starts an instance that traces what it serves.
func serve(t *testing.T, spans *tracing.Tracing, pattern string, h http.HandlerFunc) catalog.Instance {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc(pattern, h)
	server := httptest.NewServer(spans.Server().Handler(logging.Handler(slog.New(slog.DiscardHandler), mux)))
	t.Cleanup(server.Close)
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return catalog.Instance{ID: "at-" + port, Host: host, Port: number}
}

// given is the trace that the client of request has begun.
const given = "4bf92f3577b34da6a3ce929d0e0e4736"

// request sends a request through a gateway to two orders, the first of which that is
// asked sheds it; when it returns, the spans are with the collector that the environment
// names. It returns the baggage and the trace state that came to the order.
func request(t *testing.T) (carried string) {
	t.Helper()
	door, stopDoor := open(t, "gateway")
	orders, stopOrders := open(t, "order")

	var served atomic.Int64
	var seen atomic.Value
	order := func(w http.ResponseWriter, r *http.Request) {
		seen.Store(baggage.FromContext(r.Context()).String() + " " + trace.SpanContextFromContext(r.Context()).TraceState().String())
		if served.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, end := tracing.Start(r.Context(), "sql")
		defer end(nil)
		_, _ = io.WriteString(w, "laptop")
	}
	var source catalog.Fixed
	if err := source.Set("order", serve(t, orders, "GET /orders/{id}", order), serve(t, orders, "GET /orders/{id}", order)); err != nil {
		t.Fatal(err)
	}
	mesh, err := httpmesh.New(httpmesh.Config{Source: &source, Trace: door.Client(nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	entry := serve(t, door, "GET /orders/", func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context()) // as a proxy does: what came in the headers goes on
		out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = "http", "order", "", ""
		resp, err := mesh.RoundTrip(out)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		_, _ = io.Copy(w, resp.Body)
	})

	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+entry.Addr()+"/orders/101?card=secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", "00-"+given+"-00f067aa0ba902b7-01")
	r.Header.Set("Tracestate", "shop=1")
	r.Header.Set("Baggage", "customer=7")
	r.Header.Set("X-Request-Id", "r-1")
	client := &http.Transport{}
	defer client.CloseIdleConnections()
	resp, err := client.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "laptop" {
		t.Errorf("got %q, %v", body, err)
	}
	stopDoor()
	stopOrders()
	return fmt.Sprint(seen.Load())
}

func TestOneRequestIsOneConnectedTraceWithARetryInIt(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			at := otlptest.New(t)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", map[string]string{"http/protobuf": at.HTTP(), "grpc": at.GRPC()}[protocol])
			if carried := request(t); carried != "customer=7 shop=1" {
				t.Errorf("baggage and trace state came as %q", carried)
			}
			want := `gateway server GET /orders/, r-1
  gateway internal GET order, ok
    gateway client try GET order, 1, first, gateway
      order server GET /orders/{id}, r-1
    gateway client try GET order, 2, retry after gateway, ok
      order server GET /orders/{id}, r-1
        order internal sql
`
			if got := at.Tree("rollcall.request_id", "rollcall.try.number", "rollcall.try.reason", "rollcall.outcome"); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
			for _, s := range at.Spans() {
				if s.Trace != given {
					t.Errorf("%s is in the trace %s; want the sender's, %s", s.Name, s.Trace, given)
				}
				if failed := s.Attributes["rollcall.outcome"] == "gateway" || s.Attributes["http.response.status_code"] == "503"; s.Failed != failed {
					t.Errorf("%s %v: failed is %v", s.Name, s.Attributes, s.Failed)
				}
				for name, value := range s.Attributes {
					if strings.Contains(value, "secret") {
						t.Errorf("%s has the query in %s", s.Name, name)
					}
				}
			}
		})
	}
}
