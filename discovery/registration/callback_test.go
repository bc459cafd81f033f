package registration

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// TestCallbackThatHangsOrPanicsHoldsUpNeitherDrainNorClose lets each of them do so
// from some moment on.
func TestCallbackThatHangsOrPanicsHoldsUpNeitherDrainNorClose(t *testing.T) {
	for _, how := range []string{"hangs", "panics"} {
		for _, what := range []string{"Ready", "Arrivals", "Changed", "Attempted"} {
			for _, from := range []string{"the start", "later"} {
				t.Run(what+" "+how+" from "+from, func(t *testing.T) {
					in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
						release := make(chan struct{})
						defer func() { close(release); synctest.Wait() }()
						bad := from == "the start"
						var misbehaves switchable
						if bad {
							misbehaves.set(errors.New("on"))
						}
						do := func(name string) {
							if name != what || misbehaves.ready() == nil {
								return
							}
							if how == "panics" {
								panic("a callback's own")
							}
							<-release
						}
						cfg.Ready = func() error { do("Ready"); return nil }
						cfg.Arrivals = func() uint64 { do("Arrivals"); return 0 }
						cfg.Trace = &Trace{
							Changed:   func(_, _ string, _, _ State, _ string) { do("Changed") },
							Attempted: func(_, _, _ string, _ error) { do("Attempted") },
						}
						r := begun(t, cfg)
						misbehaves.set(errors.New("on"))
						time.Sleep(time.Minute)
						if what == "Ready" {
							if got := status(t, agent.Client(), r); got != api.HealthCritical {
								t.Errorf("the check is %q while Ready %s; want critical", got, how)
							}
							if k := check(seen(t, agent.Client(), r), heartbeatCheck(r.ID())); !strings.HasPrefix(k.Output, "not ready: Ready ") {
								t.Errorf("the output is %q; want what Ready does", k.Output)
							}
						}
						r.Refresh()
						began := time.Now()
						if err := r.Drain(t.Context()); err != nil {
							t.Error(err)
						}
						if took := time.Since(began); took > 2500*time.Millisecond || r.exhausted.Load() {
							t.Errorf("drained in %v, given up: %t; want it told and seen", took, r.exhausted.Load())
						}
						began = time.Now()
						if err := r.Close(); err != nil {
							t.Error(err)
						}
						if took := time.Since(began); took > time.Second {
							t.Errorf("closed in %v; want it at once", took)
						}
						if seen(t, agent.Client(), r) != nil {
							t.Error("the entry is there still")
						}
					})
				})
			}
		}
	}
}
