package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const folder = "../dashboards"

func TestDashboardsAreThoseOfTheDescription(t *testing.T) {
	files, err := filepath.Glob(folder + "/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, ok := all[strings.TrimSuffix(filepath.Base(file), ".json")]; !ok {
			t.Errorf("%s is no dashboard that is described here", file)
		}
	}
	for name, d := range all {
		want, err := d.json(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(folder, name+".json"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s.json is not what its description makes (%v); go run ./observability/grafana/generate observability/grafana/dashboards", name, err)
		}
	}
}

func TestPanelsStandBesideEachOtherAndFillTheirRows(t *testing.T) {
	for name, d := range all {
		for _, r := range d.rows {
			if n := len(r.panels); n == 0 || width%n != 0 {
				t.Errorf("%s: %s has %d panels; want a number that divides %d", name, r.title, n, width)
			}
			numbers := slices.IndexFunc(r.panels, func(p panel) bool { return p.number != r.panels[0].number })
			if numbers >= 0 {
				t.Errorf("%s: %s has graphs and numbers; want the one or the other", name, r.title)
			}
		}
	}
}

// TestEveryQueryParses has promtool read them all, as rules of which it checks the expressions.
func TestEveryQueryParses(t *testing.T) {
	binary := os.Getenv("PROMETHEUS_BIN")
	if binary == "" {
		t.Skip("needs a real promtool, beside Prometheus: PROMETHEUS_BIN is not set")
	}
	var rules strings.Builder
	rules.WriteString("groups:\n  - name: dashboards\n    rules:\n")
	n := 0
	for _, d := range all {
		for _, r := range d.rows {
			for _, p := range r.panels {
				for _, q := range p.queries {
					expr := strings.NewReplacer("$__rate_interval", "1m", "$service", "order", "$instance", "order-1").Replace(q.expr)
					fmt.Fprintf(&rules, "      - record: query%d\n        expr: '%s'\n", n, expr)
					n++
				}
			}
		}
	}
	file := filepath.Join(t.TempDir(), "dashboards.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(binary), "promtool"), "check", "rules", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d rules found", n)) {
		t.Errorf("promtool finds fault with the %d queries: %v\n%s", n, err, out)
	}
}
