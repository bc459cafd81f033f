package watch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// outages are ways in which Consul says nothing that can be believed.
var outages = map[string]consultest.Fault{
	"refuses": consultest.Refuse(), "silent": consultest.Silent(), "fails": consultest.Fail(500, "No cluster leader"), "HTML": consultest.HTML(),
}

// away has the second of two instances vanish, then Consul fall silent for five
// minutes, and leaves it so.
func away(t *testing.T, fault consultest.Fault, test func(t *testing.T, agent *consultest.Agent, l *lab)) {
	two(t, watch.Config{MissingFor: modelMissing}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.becomes(t, time.Minute, "1:passing 2:passing")
		l.deregister(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing?")
		time.Sleep(5 * time.Second)
		agent.Break("/v1/health/", fault)
		for range 300 {
			time.Sleep(time.Second)
			stays(t, l, "1:passing 2:passing?")
		}
		test(t, agent, l)
	})
}

func stays(t *testing.T, l *lab, want string) {
	t.Helper()
	s, err := l.Latest(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	if got := show(s); got != want {
		t.Fatalf("got %q; want %q", got, want)
	}
}

func TestNobodyIsGivenUpWhileConsulIsSilent(t *testing.T) {
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			away(t, fault, func(t *testing.T, _ *consultest.Agent, l *lab) {
				s, err := l.Latest(t.Context(), "order")
				if err != nil {
					t.Fatal(err)
				}
				for i := range s.All() {
					// Its time is given anew at each audit that fails.
					if over := time.Since(i.MissingUntil); i.Missing() && over > noticed {
						t.Errorf("%s is said to be kept until %v ago; want a time to come, or just over", i.ID, over)
					}
				}
			})
		})
	}
}

func TestMissingOnesHaveTheirFullTimeAnewAfterAnOutage(t *testing.T) {
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			away(t, fault, func(t *testing.T, agent *consultest.Agent, l *lab) {
				agent.Mend()
				for range 29 {
					time.Sleep(time.Second)
					stays(t, l, "1:passing 2:passing?")
				}
				l.register(t, "2")
				l.becomes(t, noticed, "1:passing 2:passing")
			})
		})
	}
}

func TestMissingOneIsGivenUpAfterItsTimeWhenConsulStillLacksIt(t *testing.T) {
	two(t, watch.Config{MissingFor: modelMissing}, func(t *testing.T, _ *consultest.Agent, l *lab) {
		l.becomes(t, time.Minute, "1:passing 2:passing")
		l.deregister(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing?")
		time.Sleep(modelMissing - 2*time.Second)
		stays(t, l, "1:passing 2:passing?")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		stays(t, l, "1:passing")
	})
}

func TestMissingOneIsGivenUpAfterAnOutageWhenConsulStillLacksIt(t *testing.T) {
	for name, fault := range outages {
		t.Run(name, func(t *testing.T) {
			away(t, fault, func(t *testing.T, agent *consultest.Agent, l *lab) {
				agent.Mend()
				l.becomes(t, noticed+modelMissing, "1:passing")
			})
		})
	}
}

func TestWhoDrainedIsNotMissing(t *testing.T) {
	two(t, watch.Config{MissingFor: modelMissing}, func(t *testing.T, _ *consultest.Agent, l *lab) {
		l.becomes(t, time.Minute, "1:passing 2:passing")
		l.beat(t, "2", "draining", api.HealthCritical)
		l.becomes(t, time.Minute, "1:passing 2:draining")
		l.deregister(t, "2")
		l.becomes(t, time.Second, "1:passing")
	})
}

func TestNobodyIsGivenUpOnAnEmptyAnswerWithIndexOneWhenAllAreMissing(t *testing.T) {
	two(t, watch.Config{MissingFor: modelMissing}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		agent.WipeServers()
		l.becomes(t, time.Minute, "1:passing? 2:passing?")
		agent.Break("/v1/health/", consultest.Empty(1))
		for range 180 {
			time.Sleep(time.Second)
			stays(t, l, "1:passing? 2:passing?")
		}
	})
}
