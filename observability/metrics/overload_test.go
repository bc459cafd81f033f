package metrics_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestLimitIsAskedForAtEachScrapeAndWhatIsShedIsCounted(t *testing.T) {
	m := newOrder(t)
	limit, atWork := 48, 3
	m.Limiter("read", func() (int, int) { return limit, atWork })()
	m.Limiter("write", func() (int, int) { return 48, 0 })
	limit, atWork = 7, 7
	for series, want := range map[string]float64{
		`http_server_requests_limit{kind="read",service="order"}`:       7,
		`http_server_requests_at_work{kind="read",service="order"}`:     7,
		`http_server_requests_shed_total{kind="read",service="order"}`:  1,
		`http_server_requests_limit{kind="write",service="order"}`:      48,
		`http_server_requests_shed_total{kind="write",service="order"}`: 0,
	} {
		if got := value(t, m, series); got != want {
			t.Errorf("%s is %v; want %v", series, got, want)
		}
	}
	problems, err := testutil.GatherAndLint(m.reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestReplaysAreCounted(t *testing.T) {
	m := newOrder(t)
	replayed := m.Replays()
	replayed()
	replayed()
	if got := value(t, m, `rollcall_replayed_answers_total{service="order"}`); got != 2 {
		t.Errorf("rollcall_replayed_answers_total is %v; want 2", got)
	}
}
