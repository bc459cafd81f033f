package metrics_test

import (
	"regexp"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/internal/metricstest"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

func TestReferenceSaysWhatThePageSays(t *testing.T) {
	m := newOrder(t)
	everything(t, m)
	metricstest.Reference(t, page(t, m))
}

func TestPageIsCleanByPromtool(t *testing.T) {
	m := newOrder(t)
	everything(t, m)
	metricstest.Promtool(t, page(t, m))
}

// keeping is a registry that keeps what is registered.
type keeping struct {
	prometheus.Registerer
	kept []prometheus.Collector
}

func (k *keeping) Register(c prometheus.Collector) error {
	k.kept = append(k.kept, c)
	return k.Registerer.Register(c)
}

// Else the reference would lack what the tests know nothing of.
func TestEachMetricThatThereIsHasASeriesInTheseTests(t *testing.T) {
	reg := prometheus.NewRegistry()
	kept := &keeping{Registerer: reg}
	made, err := metrics.New(metrics.Config{Registerer: kept, Service: "order", Peers: []string{"user"}})
	if err != nil {
		t.Fatal(err)
	}
	everything(t, order{made, reg})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range families {
		seen[f.GetName()] = true
	}
	described := make(chan *prometheus.Desc)
	go func() {
		defer close(described)
		for _, c := range kept.kept {
			c.Describe(described)
		}
	}()
	name, n := regexp.MustCompile(`fqName: "([^"]+)"`), 0
	for d := range described {
		n++
		if found := name.FindStringSubmatch(d.String()); found == nil || !seen[found[1]] {
			t.Errorf("%s has no series: it belongs into everything", d)
		}
	}
	if n != len(families) || n == 0 {
		t.Errorf("%d metrics are described, %d have series; want the same", n, len(families))
	}
}
