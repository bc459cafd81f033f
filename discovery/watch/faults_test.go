package watch_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// Each fault of Consul by its name; those that answer nothing, or nonsense, for
// a minute are in TestConsulAwayForAMinuteChangesNothing.

// two is a lab with two instances in use.
func two(t *testing.T, cfg watch.Config, test func(t *testing.T, agent *consultest.Agent, l *lab)) {
	t.Helper()
	bubble(t, cfg, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.register(t, "1")
		l.register(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing")
		time.Sleep(7 * time.Second)
		test(t, agent, l)
	})
}

func TestSlowAnswerThatComesInTimeIsUsed(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		agent.Break("/v1/health/", consultest.Slow(100, 10*time.Millisecond))
		l.register(t, "3")
		l.becomes(t, 45*time.Second, "1:passing 2:passing 3:passing")
	})
}

func TestAnswerThatTricklesForEverIsGivenUpAndTheSetStays(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		agent.Break("/v1/health/", consultest.Slow(1, time.Second))
		l.register(t, "3")
		time.Sleep(3 * time.Minute)
		s := l.becomes(t, time.Second, "1:passing 2:passing")
		if _, err := s.Freshness(); err == nil {
			t.Error("no trouble is told of")
		}
		agent.Mend()
		l.becomes(t, 45*time.Second, "1:passing 2:passing 3:passing")
	})
}

func TestIndexAboveTheServersOwnIsFoundByTheAudit(t *testing.T) {
	// A restored snapshot: the catalog is as it was, its index far below ours.
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		agent.SetIndex(1 << 40)
		l.register(t, "3")
		l.becomes(t, 15*time.Second, "1:passing 2:passing 3:passing")
		agent.SetIndex(5)
		if n := l.count("regressed"); n != 0 {
			t.Errorf("told of %d regressions before there was one", n)
		}
		restored := time.Now()
		l.register(t, "4")
		l.becomes(t, 15*time.Second, "1:passing 2:passing 3:passing 4:passing")
		if late := time.Since(restored); late > 13*time.Second {
			t.Errorf("seen after %s; want one audit's time", late)
		}
		if n := l.count("regressed"); n != 1 {
			t.Errorf("told of %d regressions; want 1", n)
		}
	})
}

func TestIndexThatWentBackwardsWhileConsulWasAwayIsToldOf(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*consultest.Agent)
		want   int
	}{
		"wiped": {(*consultest.Agent).Wipe, 1}, "with its data": {(*consultest.Agent).Restart, 0},
	} {
		t.Run(name, func(t *testing.T) {
			two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
				for range 20 { // so that a catalog that begins anew is behind
					l.beat(t, "1", "", api.HealthWarning)
					l.beat(t, "1", "", api.HealthPassing)
				}
				time.Sleep(10 * time.Second)
				agent.Break("", consultest.Refuse())
				c.change(agent)
				time.Sleep(10 * time.Second)
				agent.Mend()
				time.Sleep(2 * time.Second)
				if n := l.count("regressed"); n != c.want {
					t.Errorf("told of %d regressions; want %d", n, c.want)
				}
				if n := l.count("recovered"); n != 1 {
					t.Errorf("told of %d recoveries; want 1", n)
				}
			})
		})
	}
}

func TestAnswersWithoutAnIndexAreUsedAndAskedForAFewTimesAMinute(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		agent.Break("/v1/health/", consultest.DropIndexHeader())
		l.register(t, "3")
		l.becomes(t, 45*time.Second, "1:passing 2:passing 3:passing")
		before := asked(agent)
		time.Sleep(5 * time.Minute)
		if n := asked(agent) - before; n > 100 {
			t.Errorf("%d questions in 5 minutes; want about one in 5 seconds", n)
		}
		l.becomes(t, time.Second, "1:passing 2:passing 3:passing")
		agent.Mend()
		l.register(t, "4")
		l.becomes(t, 15*time.Second, "1:passing 2:passing 3:passing 4:passing")
	})
}

func TestEmptyAnswerWhateverItsIndexKeepsTheSet(t *testing.T) {
	t.Run("index 1", func(t *testing.T) {
		two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
			agent.Break("/v1/health/", consultest.Empty(1))
			time.Sleep(time.Minute)
			l.becomes(t, time.Second, "1:passing 2:passing")
		})
	})
	t.Run("new", func(t *testing.T) {
		two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
			// The leader says so too: both are missing, and in use.
			agent.Break("/v1/health/", consultest.Empty(1<<30))
			l.becomes(t, 2*time.Second, "1:passing? 2:passing?")
			agent.Mend()
			l.becomes(t, 15*time.Second, "1:passing 2:passing")
		})
	})
	t.Run("same", func(t *testing.T) {
		two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
			agent.Break("/v1/health/", consultest.Filtered()) // streamed: the index that was asked for
			time.Sleep(time.Minute)
			l.becomes(t, time.Second, "1:passing 2:passing")
		})
	})
}

func TestLeaderElectionUnderTheQueryLosesNothing(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		for n := range 5 {
			agent.LoseLeader()
			time.Sleep(3 * time.Second)
			l.becomes(t, time.Second, strings.TrimSuffix("1:passing 2:passing "+passing(3, 3+n), " "))
			agent.ElectLeader()
			l.register(t, fmt.Sprint(3+n))
			l.becomes(t, 15*time.Second, strings.TrimSuffix("1:passing 2:passing "+passing(3, 4+n), " "))
		}
	})
}

func passing(from, to int) string {
	var out strings.Builder
	for n := from; n < to; n++ {
		fmt.Fprintf(&out, "%d:passing ", n)
	}
	return out.String()
}

func TestAgentRestartedWithItsDataBringsNobodyDown(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.beat(t, "1", "", api.HealthPassing)
		l.beat(t, "2", "", api.HealthPassing)
		agent.Restart()
		time.Sleep(time.Minute)
		l.becomes(t, time.Second, "1:passing 2:passing")
		if n := l.count("missing 1") + l.count("missing 2"); n != 0 {
			t.Errorf("%d instances went missing; want none", n)
		}
		l.register(t, "3")
		l.becomes(t, time.Second, "1:passing 2:passing 3:passing")
	})
}

func TestAgentRestartedWithoutItsDataMakesInstancesMissingAndThenTheyAreBack(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		agent.Wipe()
		l.becomes(t, 15*time.Second, "1:passing? 2:passing?")
		l.register(t, "1")
		l.register(t, "2")
		l.becomes(t, time.Second, "1:passing 2:passing")
	})
}

func TestConsulThatSleptForAMinuteAndFindsEveryTTLRunOutLeavesAllInUse(t *testing.T) {
	bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		short := func(r *api.AgentServiceRegistration) { r.Check.TTL = "30s" }
		l.register(t, "1", short)
		l.register(t, "2", short)
		l.becomes(t, time.Minute, "1:passing 2:passing")
		agent.Break("", consultest.Paused())
		time.Sleep(time.Minute)
		agent.Mend()
		// Its own words are no "draining": plain critical, and panic mode uses them.
		s := l.becomes(t, 45*time.Second, "1:critical 2:critical")
		b := balancer.New("order", balancer.Config{})
		b.Use(s, time.Now())
		if c := b.Counts(time.Now()); !c.Panic || c.Critical != 2 {
			t.Errorf("got %+v; want both in use, in panic mode", c)
		}
		l.beat(t, "1", "", api.HealthPassing)
		l.beat(t, "2", "", api.HealthPassing)
		l.becomes(t, time.Second, "1:passing 2:passing")
	})
}

func TestTenThousandInstancesAreFollowed(t *testing.T) {
	const count = 10_000
	bubble(t, watch.Config{}, func(t *testing.T, _ *consultest.Agent, l *lab) {
		put := func(n int) {
			_, err := l.consul.Catalog().Register(&api.CatalogRegistration{
				Node: fmt.Sprint("node-", n), Address: "10.0.0.1",
				Service: &api.AgentService{ID: fmt.Sprint("order-", n), Service: "order", Address: fmt.Sprintf("10.1.%d.%d", n/250, n%250+1), Port: 80},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
		}
		for n := range count {
			put(n)
		}
		s, err := l.Latest(t.Context(), "order")
		if err != nil || s.Len() != count {
			t.Fatalf("got %d and %v; want %d", s.Len(), err, count)
		}
		time.Sleep(2 * time.Second)
		put(count)
		<-s.Superseded()
		if s, err = l.Latest(t.Context(), "order"); err != nil || s.Len() != count+1 {
			t.Errorf("got %d and %v; want %d", s.Len(), err, count+1)
		}
	})
}

func TestGarbageInEachFieldOfAnEntryCostsTheGoodOnesNothing(t *testing.T) {
	garbage := map[string]func(*api.CatalogRegistration){
		"no ID but the name":  func(r *api.CatalogRegistration) { r.Service.ID = "" },
		"long ID":             func(r *api.CatalogRegistration) { r.Service.ID = strings.Repeat("x", 300) },
		"no address":          func(r *api.CatalogRegistration) { r.Service.Address, r.Address = "", "300.1.1.1" },
		"junk address":        func(r *api.CatalogRegistration) { r.Service.Address = "http://evil/?x" },
		"unspecified address": func(r *api.CatalogRegistration) { r.Service.Address = "0.0.0.0" },
		"zone":                func(r *api.CatalogRegistration) { r.Service.Address = "fe80::1%eth0" },
		"no port":             func(r *api.CatalogRegistration) { r.Service.Port = 0 },
		"port 99999":          func(r *api.CatalogRegistration) { r.Service.Port = 99999 },
		"port -1":             func(r *api.CatalogRegistration) { r.Service.Port = -1 },
		"weight -1":           func(r *api.CatalogRegistration) { r.Service.Weights = api.AgentWeights{Passing: -1, Warning: -1} },
		"huge weight":         func(r *api.CatalogRegistration) { r.Service.Weights = api.AgentWeights{Passing: 1 << 20, Warning: 1} },
		"100 kB of meta": func(r *api.CatalogRegistration) {
			r.Service.Meta = map[string]string{"k": strings.Repeat("x", 100_000)}
		},
	}
	two(t, watch.Config{}, func(t *testing.T, _ *consultest.Agent, l *lab) {
		for name, spoil := range garbage {
			id := strings.ReplaceAll(name, " ", "-")
			r := &api.CatalogRegistration{Node: "bad-" + id, Address: "10.9.9.9", Service: &api.AgentService{ID: id, Service: "order", Address: "10.8.8.8", Port: 80}}
			spoil(r)
			if _, err := l.consul.Catalog().Register(r, nil); err != nil {
				t.Fatal(err)
			}
		}
		l.register(t, "3")
		time.Sleep(time.Second)
		s, err := l.Latest(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		got := show(s)
		for _, want := range []string{"1:passing", "2:passing", "3:passing"} {
			if !strings.Contains(got, want) {
				t.Errorf("got %q; want the good ones in it", got)
			}
		}
		for i := range s.All() {
			if err := i.Validate(); err != nil {
				t.Errorf("in use: %v", err)
			}
		}
		// Consul gives an entry without ID the service's name: that one is used.
		if n := l.count("refused"); n != len(garbage)-1 || s.Len() != 4 {
			t.Errorf("told of %d bad entries, %d in use; want %d and 4", n, s.Len(), len(garbage)-1)
		}
	})
}

func TestAgentKilledForAMinuteUnderReadersGivesNoErrorAndTheSameSet(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		first := l.becomes(t, time.Second, "1:passing 2:passing")
		agent.Break("", consultest.Refuse())
		for range 6000 {
			if s, err := l.Latest(t.Context(), "order"); err != nil || s != first {
				t.Fatalf("got %v and %v; want the set unchanged", s, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestOneServicesTroubleLeavesItsSiblingsAlone(t *testing.T) {
	two(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		if err := l.Pin("user"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		agent.Break("/v1/health/service/user", consultest.Fail(http.StatusInternalServerError, "no"))
		time.Sleep(time.Minute)
		l.register(t, "3")
		s := l.becomes(t, time.Second, "1:passing 2:passing 3:passing")
		if at, err := s.Freshness(); err != nil || time.Since(at) > 15*time.Second {
			t.Errorf("order: proven %s ago, trouble %v; want none of user's", time.Since(at), err)
		}
	})
}
