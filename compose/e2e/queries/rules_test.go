package queries

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	root       = "../../.."
	prometheus = root + "/observability/prometheus"
	repository = "https://github.com/rollcall-mesh/rollcall/blob/main/"
)

func rules(t *testing.T) []Rule {
	t.Helper()
	all, err := Rules(prometheus)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 30 {
		t.Fatalf("found %d rules; want 30 and more, else this looks in vain", len(all))
	}
	return all
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// cases are those of `promtool test rules`.
type cases struct {
	Tests []struct {
		Alerts []struct {
			Name string `yaml:"alertname"`
			Want []any  `yaml:"exp_alerts"`
		} `yaml:"alert_rule_test"`
		Queries []struct{ Expr string } `yaml:"promql_expr_test"`
	}
}

func testCases(t *testing.T) []cases {
	t.Helper()
	files, err := Files(prometheus)
	if err != nil {
		t.Fatal(err)
	}
	var all []cases
	for _, file := range files {
		var c cases
		if err := decode(filepath.Join(prometheus, strings.TrimSuffix(file, ".yml")+"_test.yml"), &c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func TestEveryAlertIsSeenToFireAndNotToFire(t *testing.T) {
	fires, keepsQuiet := map[string]bool{}, map[string]bool{}
	for _, c := range testCases(t) {
		for _, test := range c.Tests {
			for _, a := range test.Alerts {
				if len(a.Want) > 0 {
					fires[a.Name] = true
				} else {
					keepsQuiet[a.Name] = true
				}
			}
		}
	}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if !fires[r.Alert] {
			t.Errorf("no case has %s fire", r.Alert)
		}
		if !keepsQuiet[r.Alert] {
			t.Errorf("no case has %s not fire", r.Alert)
		}
	}
}

func TestEveryRecordedSeriesIsComparedWithWhatItShouldBe(t *testing.T) {
	asked := map[string]bool{}
	for _, c := range testCases(t) {
		for _, test := range c.Tests {
			for _, q := range test.Queries {
				for _, name := range Names(q.Expr) {
					asked[name] = true
				}
			}
		}
	}
	for _, r := range rules(t) {
		if r.Record != "" && !asked[r.Record] {
			t.Errorf("no case asks for %s", r.Record)
		}
	}
}

func TestEveryAlertSaysWhatIsWrongByHowMuchAndWhereToReadOn(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if names[r.Alert] {
			t.Errorf("there are two alerts %s", r.Alert)
		}
		names[r.Alert] = true
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has the severity %q; want critical or warning", r.Alert, s)
		}
		if r.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", r.Alert)
		}
		if !strings.Contains(r.Annotations["description"], "$value") {
			t.Errorf("%s has the description %q; want one with {{ $value }}", r.Alert, r.Annotations["description"])
		}
		page, ok := strings.CutPrefix(r.Annotations["runbook_url"], repository)
		if !ok || !strings.HasPrefix(page, "docs/runbooks/") {
			t.Errorf("%s has the runbook_url %q; want a page of docs/runbooks at %s", r.Alert, r.Annotations["runbook_url"], repository)
			continue
		}
		if text := read(t, page); !strings.Contains(text, r.Alert) {
			t.Errorf("%s does not name %s", page, r.Alert)
		}
	}
	reference := read(t, "docs/reference/metrics.md")
	for name := range names {
		if !strings.Contains(reference, "`"+name+"`") {
			t.Errorf("docs/reference/metrics.md does not name the alert %s", name)
		}
	}
}

func TestEveryRunbookHasItsPartsAndAnAlert(t *testing.T) {
	pages, err := filepath.Glob(root + "/docs/runbooks/[A-Z]*.md")
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, r := range rules(t) {
		used = append(used, strings.TrimPrefix(r.Annotations["runbook_url"], repository))
	}
	for _, page := range pages {
		page = strings.TrimPrefix(page, root+"/")
		if page == "docs/runbooks/README.md" {
			continue
		}
		if !slices.Contains(used, page) {
			t.Errorf("no alert leads to %s", page)
		}
		text := read(t, page)
		for _, part := range []string{"## What it means", "## What the mesh does about it", "## Look at", "## Do"} {
			if !strings.Contains(text, "\n"+part+"\n") {
				t.Errorf("%s has no part %q", page, part)
			}
		}
	}
}

// known are the metrics that there are: those of the reference, of Go's runtime and the process, of Prometheus itself,
// and the recorded ones.
func known(t *testing.T) func(name string) bool {
	t.Helper()
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z]+_[a-zA-Z_]+)[`{]").FindAllStringSubmatch(read(t, "docs/reference/metrics.md"), -1) {
		documented[m[1]] = true
	}
	if len(documented) < 50 {
		t.Fatalf("found %d metrics in the reference; want 50 and more, else this looks in vain", len(documented))
	}
	for _, r := range rules(t) {
		documented[r.Record] = true
	}
	for _, name := range []string{"up", "ALERTS"} {
		documented[name] = true
	}
	return func(name string) bool {
		for _, part := range []string{"_bucket", "_count", "_sum"} { // of a histogram
			if base, ok := strings.CutSuffix(name, part); ok && documented[base] {
				return true
			}
		}
		return documented[name] || strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_")
	}
}

func TestRulesReadMetricsThatThereAre(t *testing.T) {
	isKnown := known(t)
	for _, r := range rules(t) {
		names := Names(r.Expr)
		if len(names) == 0 && !strings.Contains(r.Expr, "vector(") {
			t.Errorf("%s%s reads no metric: %s", r.Alert, r.Record, r.Expr)
		}
		for _, name := range names {
			if !isKnown(name) {
				t.Errorf("%s%s reads %s, which docs/reference/metrics.md does not have", r.Alert, r.Record, name)
			}
		}
	}
}

func TestNamesAreThoseOfTheMetrics(t *testing.T) {
	for _, c := range []struct {
		expr string
		want []string
	}{
		{`up == 0`, []string{"up"}},
		{`vector(0.001)`, nil},
		{`sum by (job, le) (rate(a_bucket{code=~"5..", b="c or d"}[5m])) / on (job) group_left () c:d:rate5m`, []string{"a_bucket", "c:d:rate5m"}},
		{`a offset 5m unless b or (max without (x) (b) > bool 3e2) and 0 * a`, []string{"a", "b"}},
		{`label_replace(rate(a[$__rate_interval]), "kind", "read", "job", ".*")`, []string{"a"}},
	} {
		if got := Names(c.expr); !slices.Equal(got, c.want) {
			t.Errorf("Names(%q) is %q; want %q", c.expr, got, c.want)
		}
	}
}
