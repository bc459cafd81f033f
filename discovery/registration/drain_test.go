package registration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestDrainSettlesAfterDrainingWasSeen(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		// The readers' side is slow: draining is told at once, seen after 1s.
		agent.Break("/v1/health/", consultest.Paused())
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- r.Drain(t.Context()) }()
		time.Sleep(time.Second)
		select {
		case err := <-done:
			t.Fatalf("drain ended (%v) before draining was seen", err)
		default:
		}
		agent.Mend()
		if got := status(t, c, r); got != api.HealthCritical {
			t.Errorf("the check is %q; want critical", got)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 1500*time.Millisecond || took > 1600*time.Millisecond {
			t.Errorf("drained after %v; want 1s until it was seen and 500ms to settle", took)
		}
	})
}

func TestEachStepOfLeavingIsToldWithTheTimeThatItTook(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		var mu sync.Mutex
		told := map[string]time.Duration{}
		var order []string
		cfg.Trace = &Trace{Left: func(_, _, step string, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			told[step] = took
			order = append(order, step)
		}}
		r := begun(t, cfg)
		agent.Break("/v1/health/", consultest.Paused())
		done := make(chan error, 1)
		go func() { done <- r.Drain(t.Context()) }()
		time.Sleep(time.Second)
		agent.Mend()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(order, Steps[:]) {
			t.Errorf("told of %v; want %v, once each", order, Steps)
		}
		if seen := told[stepSeen]; seen < time.Second || seen > 1100*time.Millisecond {
			t.Errorf("seen after %v; want the second for which the catalog could not be read", seen)
		}
		if settled := told[stepSettled]; settled < 500*time.Millisecond || settled > 550*time.Millisecond {
			t.Errorf("settled after %v; want the 500ms of Settle", settled)
		}
		if gone := told[stepGone]; gone > absentWithin {
			t.Errorf("gone after %v; want %v at most", gone, absentWithin)
		}
	})
}

func TestDrainWaitsWhileRequestsArrive(t *testing.T) {
	for _, c := range []struct {
		name     string
		lasts    time.Duration // of the arrivals
		min, max time.Duration
	}{
		// That it drains is seen lookSpacing later where other answers have just come.
		{"none", 0, 500 * time.Millisecond, 550*time.Millisecond + lookSpacing},
		{"for 1.2s", 1200 * time.Millisecond, 1700 * time.Millisecond, 2100 * time.Millisecond},
		{"for ever", time.Hour, 3 * time.Second, 3050*time.Millisecond + lookSpacing},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, _ *consultest.Agent, cfg Config) {
				began := time.Now()
				var started atomic.Bool
				cfg.Arrivals = func() uint64 {
					if !started.Load() {
						return 0
					}
					return uint64(min(time.Since(began), c.lasts) / (100 * time.Millisecond))
				}
				r := begun(t, cfg)
				began = time.Now()
				started.Store(true)
				if err := r.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took < c.min || took > c.max {
					t.Errorf("drained after %v; want %v to %v", took, c.min, c.max)
				}
			})
		})
	}
}

func TestUnreachableConsulHoldsDrainAndCloseTwoSecondsTogether(t *testing.T) {
	faults := map[string]func(*consultest.Agent){
		"refuses connections": func(a *consultest.Agent) { a.Break("", consultest.Refuse()) },
		"is silent":           func(a *consultest.Agent) { a.Break("", consultest.Silent()) },
		"answers 500":         func(a *consultest.Agent) { a.Break("", consultest.Fail(http.StatusInternalServerError, "no")) },
		"answers 403":         func(a *consultest.Agent) { a.Break("", consultest.Fail(http.StatusForbidden, "no")) },
		"has no leader":       func(a *consultest.Agent) { a.LoseLeader() },
		"can't be read":       func(a *consultest.Agent) { a.Break("/v1/health/", consultest.Silent()) },
	}
	for name, fault := range faults {
		for _, ago := range []time.Duration{0, 2100 * time.Millisecond, 3 * time.Minute} {
			t.Run(fmt.Sprintf("%s since %v", name, ago), func(t *testing.T) {
				in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
					r := begun(t, cfg)
					fault(agent)
					time.Sleep(ago) // perhaps in the middle of a call
					began := time.Now()
					if err := r.Drain(t.Context()); err != nil {
						t.Fatal(err)
					}
					if took := time.Since(began); took != 2*time.Second {
						t.Errorf("drain held for %v; want 2s", took)
					}
					err := r.Close()
					if took := time.Since(began); took > 2250*time.Millisecond {
						t.Errorf("drain and close held for %v; want little more than 2s", took)
					}
					if name != "can't be read" && name != "has no leader" && err == nil {
						t.Error("close says that it deregistered; want an error")
					}
					if got := r.Status().State; got != StateDeregistered {
						t.Errorf("state is %v; want deregistered", got)
					}
				})
			})
		}
	}
}

func TestUnreachableConsulHoldsCloseTwoSeconds(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		r := begun(t, cfg)
		agent.Break("", consultest.Silent())
		time.Sleep(2100 * time.Millisecond)
		began := time.Now()
		if err := r.Close(); err == nil {
			t.Error("close says that it deregistered; want an error")
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("close held for %v; want 2s", took)
		}
	})
}

func TestConsulThatHangsDuringTheSettleTimeDoesNotProlongIt(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		cfg.HeartbeatInterval = 200 * time.Millisecond
		cfg.Settle, cfg.SettleMax = time.Second, time.Second
		r := begun(t, cfg)
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- r.Drain(t.Context()) }()
		time.Sleep(100 * time.Millisecond)
		agent.Break("", consultest.Silent())
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("drained after %v; want about 1s", took)
		}
	})
}

func TestWipeDuringTheSettleTimeBringsNobodyBack(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		cfg.HeartbeatInterval = 200 * time.Millisecond
		cfg.Settle, cfg.SettleMax = 2*time.Second, 2*time.Second
		r := begun(t, cfg)
		done := make(chan error, 1)
		go func() { done <- r.Drain(t.Context()) }()
		time.Sleep(100 * time.Millisecond)
		before := len(agent.Requests(""))
		agent.Wipe()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := len(agent.Requests("")) - before; n > 40 {
			t.Errorf("%d requests in a settle time of 2s; want a few", n)
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if e := seen(t, c, r); e != nil && e.Checks.AggregatedStatus() != api.HealthCritical {
				t.Fatalf("an instance that drains is %s", e.Checks.AggregatedStatus())
			}
		}
	})
}

func TestDrainBeforeTheFirstRegistrationReturnsAtOnce(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		agent.Break("", consultest.Silent())
		r := start(t, cfg)
		time.Sleep(time.Second)
		began := time.Now()
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("held for %v; want not at all: nobody knows the instance", took)
		}
		agent.Mend()
		time.Sleep(time.Minute)
		if n := len(agent.Requests(registerPath)); n != 0 {
			t.Errorf("registered %d times; want never", n)
		}
	})
}

func TestDrainsWaitForTheSameDrain(t *testing.T) {
	in(t, func(t *testing.T, _ *consultest.Agent, cfg Config) {
		r := begun(t, cfg)
		began := time.Now()
		short, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("second signal"))
		defer cancel()
		if err := r.Drain(short); err == nil || err.Error() != "drain "+r.ID()+": second signal" {
			t.Errorf("cut drain says %v; want the cause", err)
		}
		if took := time.Since(began); took != 100*time.Millisecond {
			t.Errorf("cut drain took %v; want 100ms", took)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := r.Drain(t.Context()); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > 600*time.Millisecond {
					t.Errorf("drained after %v; want the first drain's end", took)
				}
			})
		}
		wg.Wait()
		if err := r.Drain(short); err != nil {
			t.Errorf("a drain that is over says %v; want nil, whatever the context", err)
		}
	})
}

func TestCloseEndsADrain(t *testing.T) {
	in(t, func(t *testing.T, _ *consultest.Agent, cfg Config) {
		cfg.Settle, cfg.SettleMax = time.Minute, time.Minute
		r := begun(t, cfg)
		done := make(chan error, 1)
		go func() { done <- r.Drain(t.Context()) }()
		time.Sleep(time.Second)
		began := time.Now()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || time.Since(began) != 0 {
			t.Errorf("drain ended with %v, %v after Close; want at once", err, time.Since(began))
		}
	})
}

func TestCloseTwiceAndByManyIsOneDeregistration(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if seen(t, c, r) != nil {
					t.Error("Close returned before the entry was deregistered")
				}
			})
		}
		wg.Wait()
		if err := errors.Join(r.Close(), r.Drain(t.Context())); err != nil {
			t.Error(err)
		}
		r.Refresh()
		if n := len(agent.Requests("/v1/agent/service/deregister/")); n != 1 {
			t.Errorf("deregistered %d times; want once", n)
		}
		if got := r.Status().State; got != StateDeregistered {
			t.Errorf("state is %v; want deregistered", got)
		}
	})
}

func TestCloseRetriesADeregistration(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		agent.Break("", consultest.Refuse())
		time.AfterFunc(time.Second, func() { agent.Mend() })
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if seen(t, c, r) != nil {
			t.Error("the entry is still there")
		}
	})
}

func TestCloseOfAnEntryThatIsGoneIsNoError(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		r := begun(t, cfg)
		agent.Wipe()
		if err := r.Close(); err != nil {
			t.Errorf("close says %v; want nil for an entry that is not there", err)
		}
	})
}

// TestDeregisteredStaysGone closes in the middle of whatever is going on.
func TestDeregisteredStaysGone(t *testing.T) {
	stays := func(t *testing.T, agent *consultest.Agent, c *api.Client, r *Registration) {
		t.Helper()
		for range 10 {
			if seen(t, c, r) != nil {
				t.Fatal("the entry came back")
			}
			time.Sleep(10 * time.Second)
		}
	}
	for name, path := range map[string]string{
		"a beat": updatePath, "a registration": registerPath, "a look": "/v1/health/", "a read": "/v1/agent/checks",
	} {
		t.Run(name+" in flight", func(t *testing.T) {
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				c := agent.Client()
				r := begun(t, cfg)
				agent.Break(path, consultest.Paused())
				if path == registerPath || path == "/v1/agent/checks" {
					agent.WipeServers()
				}
				before := len(agent.Requests(path))
				r.Refresh()
				r.agent.Look()
				eventually(t, "in flight", func() bool { return len(agent.Requests(path)) > before })
				time.AfterFunc(500*time.Millisecond, func() { agent.Mend() })
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				agent.Mend()
				stays(t, agent, c, r)
			})
		})
	}
	t.Run("at any time", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for range 60 {
			upset, after := rng.IntN(4), time.Duration(rng.IntN(5000))*time.Millisecond
			synctest.Test(t, func(t *testing.T) {
				agent := consultest.New(t)
				c := agent.Client()
				cfg := settings(t, agent)
				cfg.HeartbeatInterval = 100 * time.Millisecond
				r := start(t, cfg)
				time.Sleep(time.Duration(rng.IntN(20)) * time.Millisecond)
				switch upset {
				case 0:
					agent.WipeServers()
				case 1:
					agent.Wipe()
				case 2:
					agent.Break(registerPath, consultest.Paused())
					agent.WipeServers()
					time.AfterFunc(after+time.Second, func() { agent.Mend() })
				}
				time.Sleep(after)
				if err := r.Close(); err != nil {
					t.Fatalf("upset %d, closed after %v: %v", upset, after, err)
				}
				agent.Mend()
				stays(t, agent, c, r)
			})
		}
	})
}

// TestLeavingWaitsUntilTheCatalogLacksTheEntry has a catalog that is told of the
// deregistration later than the agent, or not at all.
func TestLeavingWaitsUntilTheCatalogLacksTheEntry(t *testing.T) {
	for _, c := range []struct{ told, want time.Duration }{
		{300 * time.Millisecond, 300 * time.Millisecond},
		{time.Hour, absentWithin},
	} {
		synctest.Test(t, func(t *testing.T) {
			news := make(chan struct{}, 1)
			agent := &Agent{lives: map[string]chan<- struct{}{"a": news}}
			agent.publish(sight{entries: map[string]*api.AgentService{"a": {}, "b": {}}})
			timer := time.AfterFunc(c.told, func() { agent.publish(sight{entries: map[string]*api.AgentService{"b": {}}}) })
			defer timer.Stop()
			l := &life{Registration: &Registration{cfg: Config{ID: "a"}, agent: agent, news: news}}
			began := time.Now()
			l.awaitAbsence(t.Context())
			if took := time.Since(began); took != c.want {
				t.Errorf("told after %v: waited %v; want %v", c.told, took, c.want)
			}
		})
	}
}
