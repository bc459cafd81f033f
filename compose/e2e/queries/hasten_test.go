package queries

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHastenedRulesWaitAndLookBackShorter(t *testing.T) {
	got := Hasten(`groups:
  - name: a
    interval: 30s
    rules:
      - record: job:b:rate5m
        expr: avg_over_time(job:b:rate5m[1d]) / rate(c[5m]) / rate(c[1m]) / max_over_time(d[10s]) unless c offset 5m
      - alert: E
        expr: job:b:rate5m > 30
        for: 2m
        annotations:
          description: for 30s or longer, in 5m
`, 10)
	want := `groups:
  - name: a
    interval: 3000ms
    rules:
      - record: job:b:rate5m
        expr: avg_over_time(job:b:rate5m[8640000ms]) / rate(c[30000ms]) / rate(c[15000ms]) / max_over_time(d[10000ms]) unless c offset 30000ms
      - alert: E
        expr: job:b:rate5m > 30
        for: 12000ms
        annotations:
          description: for 30s or longer, in 5m
`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
}

// TestHastenedRulesOfTheFleetAreRules has promtool read them.
func TestHastenedRulesOfTheFleetAreRules(t *testing.T) {
	binary := os.Getenv("PROMETHEUS_BIN")
	if binary == "" {
		t.Skip("needs a real promtool, beside Prometheus: PROMETHEUS_BIN is not set")
	}
	files, err := Files(prometheus)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for _, file := range append(files, "prometheus.yml") {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(read(t, "observability/prometheus/"+file)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := HastenFiles(folder, 10); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(binary), "promtool"), "check", "config", filepath.Join(folder, "prometheus.yml")).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("%d rule files found", len(files))) {
		t.Errorf("promtool finds fault with them: %v\n%s", err, out)
	}
	before, err := Rules(prometheus)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Rules(folder)
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range before {
		if strings.Contains(r.Expr, "m]") && r.Expr == after[n].Expr || r.For != "" && r.For == after[n].For {
			t.Errorf("%s%s is as slow as it was: %+v", r.Alert, r.Record, after[n])
		}
	}
}

func TestHastenedFilesAreTheRulesAndNoOthers(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const rules = "groups:\n  - name: a\n    interval: 20s\n"
	write("prometheus.yml", "global:\n  scrape_interval: 5s\n  evaluation_interval: 5s\nrule_files: [a.yml]\n")
	write("a.yml", rules)
	write("a_test.yml", rules)
	if err := HastenFiles(folder, 10); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"prometheus.yml": "global:\n  scrape_interval: 5s\n  evaluation_interval: 1000ms\nrule_files: [a.yml]\n",
		"a.yml":          "groups:\n  - name: a\n    interval: 2000ms\n",
		"a_test.yml":     rules,
	} {
		got, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
}
