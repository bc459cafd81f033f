package queries

import (
	"regexp"
	"strings"
	"testing"
)

const dashboards = root + "/observability/grafana/dashboards"

func panels(t *testing.T) []Query {
	t.Helper()
	all, err := Dashboards(dashboards)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("found %d queries; want 50 and more, else this looks in vain", len(all))
	}
	return all
}

func TestDashboardsReadMetricsThatThereAre(t *testing.T) {
	isKnown := known(t)
	for _, q := range panels(t) {
		names := Names(q.Expr)
		if len(names) == 0 {
			t.Errorf("%s: %s: it reads no metric: %s", q.Dashboard, q.Panel, q.Expr)
		}
		for _, name := range names {
			if !isKnown(name) {
				t.Errorf("%s: %s: it reads %s, which docs/reference/metrics.md does not have", q.Dashboard, q.Panel, name)
			}
		}
	}
}

func TestDashboardsHaveNoVariableThatTheTestsOfTheFleetDoNotKnow(t *testing.T) {
	for _, q := range panels(t) {
		if expr := q.With(map[string]string{"service": "order", "instance": "order-1", "__rate_interval": "1m"}); strings.Contains(expr, "$") {
			t.Errorf("%s: %s: a variable is left in %s", q.Dashboard, q.Panel, expr)
		}
	}
}

func TestEveryPanelSaysWhatItShows(t *testing.T) {
	sentence := regexp.MustCompile(`^[A-Z].*\.$`)
	for _, q := range panels(t) {
		if !sentence.MatchString(q.About) {
			t.Errorf("%s: %s is described as %q; want a sentence", q.Dashboard, q.Panel, q.About)
		}
	}
}
