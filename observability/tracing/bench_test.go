package tracing_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
)

// BenchmarkRequest shows what tracing adds to a request through the mesh: off, which is to
// cost nothing; with a trace that is not kept; and with one that is.
func BenchmarkRequest(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		b.Fatal(err)
	}
	var source catalog.Fixed
	if err := source.Set("order", catalog.Instance{ID: "order-1", Host: host, Port: number}); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spans *tracing.Tracing
	}{
		{"off", nil},
		{"not kept", tracing.New(sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())))},
		{"kept", tracing.New(sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample())))},
	} {
		b.Run(c.name, func(b *testing.B) {
			mesh, err := httpmesh.New(httpmesh.Config{Source: &source, Trace: c.spans.Client(nil)})
			if err != nil {
				b.Fatal(err)
			}
			defer mesh.Close()
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://order/", nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := mesh.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
