package gateway_test

import (
	"context"
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
	"github.com/rollcall-mesh/rollcall/services/gateway/split"
)

// document is Consul's KV with one document that never changes.
type document string

func (d document) FollowKey(_ context.Context, _ string, told func(value []byte, index uint64, err error)) error {
	told([]byte(d), 1, nil)
	return nil
}

func TestReferenceSaysWhatThePageOfTheGatewaySays(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	learner, err := routing.NewLearner(routing.Config{Catalog: new(discovery.Mesh), Source: new(catalog.Fixed), Log: log}) // asked by Run alone
	if err != nil {
		t.Fatal(err)
	}
	splits := split.NewFollower(document(`{"order": [{"to": "version=v2", "percent": 10}]}`), "splits", log)
	if err := splits.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(learner, splits)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	metricstest.Reference(t, w.Body.String())
}
