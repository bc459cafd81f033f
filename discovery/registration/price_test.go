package registration

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// TestRegistrationAtRestAsksFifteenTimesAMinuteAtMost counts for an hour.
func TestRegistrationAtRestAsksFifteenTimesAMinuteAtMost(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		begun(t, cfg)
		time.Sleep(time.Minute)
		before := len(agent.Requests(""))
		time.Sleep(time.Hour)
		asked := agent.Requests("")[before:]
		t.Logf("%.1f questions a minute", float64(len(asked))/60)
		if n := float64(len(asked)) / 60; n > 15 || n < 6 {
			kinds := map[string]int{}
			for _, r := range asked {
				kinds[r.Method+" "+r.Path]++
			}
			t.Errorf("asked %.1f times a minute; want at most 15, of which 6 are heartbeats: %v", n, kinds)
		}
	})
}
