package metrics_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

type traceKey struct{}

func TestExemplarLeadsFromEachLatencyToItsTrace(t *testing.T) {
	reg := prometheus.NewRegistry()
	m, err := metrics.New(metrics.Config{
		Registerer: reg, Service: "order", Peers: []string{"user"},
		Exemplar: func(ctx context.Context) map[string]string {
			if id, ok := ctx.Value(traceKey{}).(string); ok {
				return map[string]string{"trace_id": id}
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := m.Server().Handler(http.NotFoundHandler())
	for _, ctx := range []context.Context{context.WithValue(t.Context(), traceKey{}, "4bf9"), t.Context()} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		m.RPCServer().Begin()
		m.RPCServer().End(ctx, "/shop.v1.Orders/Get", "OK", 3*time.Millisecond)
		m.Trace().HTTP.Done(ctx, &httpmesh.Report{Service: "user", Outcome: outcome.OK, Elapsed: 3 * time.Millisecond})
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text")
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
	for _, name := range []string{"http_server_request_duration_seconds", "rpc_server_call_duration_seconds", "rollcall_client_request_duration_seconds"} {
		exemplars, seen := 0, false
		for line := range strings.Lines(w.Body.String()) {
			if strings.HasPrefix(line, name+"_bucket") && strings.Contains(line, `# {trace_id="4bf9"} `) {
				exemplars++
			}
			seen = seen || strings.HasPrefix(line, name+"_count") && strings.HasSuffix(strings.TrimSpace(line), " 2")
		}
		if exemplars != 1 || !seen {
			t.Errorf("%s has %d exemplars, both requests counted: %v; want one, and both", name, exemplars, seen)
		}
	}
}
