package tracing_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlp"
)

// A program with spans, exemplars, and the IDs of both in its log.
func Example() {
	ctx := context.Background()
	log, err := logging.New(logging.Config{Output: os.Stderr, Context: tracing.LogAttrs})
	if err != nil {
		slog.Error("billing", "error", err)
		return
	}
	if err := run(ctx, log); err != nil {
		log.Error("billing", "error", err)
	}
	// Output:
}

func run(ctx context.Context, log *slog.Logger) error {
	spans, err := otlp.Open(ctx, otlp.Config{Service: "billing", Version: "1.4.0", Log: log})
	if err != nil {
		return err
	}
	defer spans.Shutdown(ctx)
	t := spans.Tracing()

	m, err := metrics.New(metrics.Config{Service: "billing", Peers: []string{"user"}, Exemplar: tracing.Exemplar})
	if err != nil {
		return err
	}
	trace := m.Trace()
	trace.HTTP = t.Client(trace.HTTP)
	mesh, err := discovery.Open(ctx, discovery.Config{Trace: trace, Log: log})
	if err != nil {
		return err
	}
	defer mesh.Close()

	client := &http.Client{Transport: logging.PassRequestID(mesh.RoundTripper())}
	mux := http.NewServeMux()
	mux.Handle("GET /bills/{user}", bill(client))
	traffic := t.Server().Handler(m.Server().Handler(logging.Handler(log, mux)))
	_ = traffic // to be served
	return nil
}

func bill(client *http.Client) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, end := tracing.Start(r.Context(), "find the bill")
		ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://user/users/1", nil)
		if err != nil {
			end(err)
			return
		}
		resp, err := client.Do(ask)
		if err == nil {
			err = resp.Body.Close()
		}
		end(err)
	})
}
