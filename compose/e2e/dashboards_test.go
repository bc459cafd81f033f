package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/queries"
)

// testEveryQueryOfADashboardHasData asks Prometheus what Grafana would, of a fleet that has work to do. A panel may be
// empty only if it says so, as those do that show what goes wrong.
func testEveryQueryOfADashboardHasData(t *testing.T, m *mesh) {
	all, err := queries.Dashboards(filepath.Join(root(t), "observability", "grafana", "dashboards"))
	if err != nil {
		t.Fatal(err)
	}
	es, err := m.entries(t.Context(), "order")
	if err != nil || len(es) == 0 {
		t.Fatalf("%d orders, %v", len(es), err)
	}
	values := map[string]string{"service": "order", "instance": es[0].Service.ID, "__rate_interval": "1m"}
	empty := map[queries.Query]bool{}
	for _, q := range all {
		empty[q] = true
	}
	work := m.steady(t, true)
	// A rate needs some scrapes, and what is recorded comes after them.
	until(t, 90*time.Second, "each query has data", func(ctx context.Context) error {
		var errs []error
		for q := range empty {
			n, err := m.series(ctx, q.With(values))
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %s: %w", q.Dashboard, q.Panel, err))
			case n > 0:
				delete(empty, q)
			case !q.Excused():
				errs = append(errs, fmt.Errorf("%s: %s: nothing for %s", q.Dashboard, q.Panel, q.With(values)))
			}
		}
		return errors.Join(errs...)
	})
	work.stop(t)
	for q := range empty {
		t.Logf("%s: %s has no data, and says: %s", q.Dashboard, q.Panel, q.About)
	}
}

// series is how many a query of Prometheus has now.
func (m *mesh) series(ctx context.Context, expr string) (int, error) {
	var answer struct {
		Data struct{ Result []any }
	}
	err := m.getJSON(ctx, m.prometheus+"/api/v1/query?query="+url.QueryEscape(expr), &answer)
	return len(answer.Data.Result), err
}
