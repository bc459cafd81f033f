package metricstest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const labels = `# Metrics

| label | meaning | values at most |
| --- | --- | --- |
| service | whose | 1 |
| peer | asked | peers + 1 |
| outcome, reason | of the table | 25 |

`

const page = `# HELP go_goroutines Number of goroutines that currently exist.
# TYPE go_goroutines gauge
go_goroutines 9
# HELP rollcall_client_tries_total Tries, by a|b.
# TYPE rollcall_client_tries_total counter
rollcall_client_tries_total{outcome="ok",peer="a \"b\",le=\"1\"",service="order"} 1
# HELP rollcall_client_up Up.
# TYPE rollcall_client_up gauge
rollcall_client_up{peer="a",service="order"} 1
# HELP rollcall_client_wait_seconds Time.
# TYPE rollcall_client_wait_seconds histogram
rollcall_client_wait_seconds_bucket{service="order",le="0.1"} 1
rollcall_client_wait_seconds_bucket{service="order",le="+Inf"} 1
rollcall_client_wait_seconds_sum{service="order"} 0.01
rollcall_client_wait_seconds_count{service="order"} 1
`

func TestTablesAreWrittenFromThePage(t *testing.T) {
	got, err := rewrite(labels+"<!-- metrics: rollcall_client_ -->\nold\n<!-- end -->\nand\n<!-- metrics: rollcall_gateway_ -->\nanother's\n<!-- end -->\nso on\n", page)
	if err != nil {
		t.Fatal(err)
	}
	want := labels + "<!-- metrics: rollcall_client_ -->\n" + `
| metric | type | labels | series at most | meaning |
| --- | --- | --- | --- | --- |
| ` + "`rollcall_client_tries_total`" + ` | counter | service, peer, outcome | (peers + 1) × 25 | Tries, by a\|b |
| ` + "`rollcall_client_up`" + ` | gauge | service, peer | peers + 1 | Up |
| ` + "`rollcall_client_wait_seconds`" + ` | histogram | service | 1 | Time |

` + "<!-- end -->\nand\n<!-- metrics: rollcall_gateway_ -->\nanother's\n<!-- end -->\nso on\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if again, err := rewrite(got, page); err != nil || again != got {
		t.Errorf("written again it is another: %v\n%s", err, cmp.Diff(got, again))
	}
}

func TestWhatTheReferenceHasNoPlaceForIsNamed(t *testing.T) {
	const table = "<!-- metrics: rollcall_client_ -->\n<!-- end -->\n"
	for name, c := range map[string]struct{ text, page, want string }{
		"no table":         {labels, page, "rollcall_client_tries_total is in 0 tables"},
		"two tables":       {labels + table + table, page, "rollcall_client_tries_total is in 2 tables"},
		"a label unknown":  {strings.ReplaceAll(labels, "outcome, ", "") + table, page, "rollcall_client_tries_total; want one row for each"},
		"no end":           {labels + "<!-- metrics: rollcall_client_ -->\n", page, "has no <!-- end -->"},
		"a page of others": {labels + table, "# HELP go_goroutines Goroutines.\n", "has none of the metrics"},
	} {
		if _, err := rewrite(c.text, c.page); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v; want %q", name, err, c.want)
		}
	}
}

func TestDifferenceShowsTheLinesThatDiffer(t *testing.T) {
	if got, want := difference("a\nb\nc\n", "a\nB\nc\n"), "-b\n+B\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}
