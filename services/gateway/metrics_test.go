package gateway_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/metricstest"
	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
)

func TestReferenceSaysWhatThePageOfTheGatewaySays(t *testing.T) {
	learner, err := routing.NewLearner(routing.Config{Catalog: new(discovery.Mesh), Source: new(catalog.Fixed), Log: slog.New(slog.DiscardHandler)}) // asked by Run alone
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(learner)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	metricstest.Reference(t, w.Body.String())
}
