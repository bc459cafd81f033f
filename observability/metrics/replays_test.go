package metrics_test

import (
	"testing"

	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

func TestReplaysAreCounted(t *testing.T) {
	m := metrics.New(metrics.Config{Service: "order"})
	replayed := m.Replays()
	replayed()
	replayed()
	if got := value(t, m, "rollcall_replayed_answers_total"); got != 2 {
		t.Errorf("rollcall_replayed_answers_total is %v; want 2", got)
	}
}
