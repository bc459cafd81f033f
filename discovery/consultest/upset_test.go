package consultest_test

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestIndexThatWentBackwardsBlindsTheWatcher(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.SetIndex(1000)
		register(t, c, beaten("order-1"))
		_, meta := entries(t, c, nil)
		if meta.LastIndex <= 1000 {
			t.Fatalf("got index %d; want more than 1000", meta.LastIndex)
		}
		waits := ask(t.Context(), a.Client(), meta.LastIndex, 30*time.Second)
		a.SetIndex(10)
		register(t, c, beaten("order-2"))
		waiting(t, waits)
		got := <-waits
		if got.err != nil || got.took < 30*time.Second || len(got.entries) != 2 || got.meta.LastIndex > 12 {
			t.Errorf("got %d entries with index %v after %v, %v; want both, a low index, and the whole wait", len(got.entries), got.meta, got.took, got.err)
		}
	})
}

func TestWipeForgetsEverything(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.SetIndex(500)
		register(t, c, beaten("order-1"))
		waits := ask(t.Context(), a.Client(), a.Index(), time.Minute)
		a.Wipe()
		if got := <-waits; got.err == nil {
			t.Error("a waiting query survived the wipe")
		}
		v, meta := entries(t, c, nil)
		if len(v) != 0 || meta.LastIndex > 10 {
			t.Errorf("got %d entries, index %d; want none and an index that begins anew", len(v), meta.LastIndex)
		}
		if s, err := c.Agent().Services(); err != nil || len(s) != 0 {
			t.Errorf("the agent has %d services, %v; want none", len(s), err)
		}
		register(t, c, beaten("order-1"))
		if v, _ := entries(t, c, nil); len(v) != 1 || len(v[0].Checks) != 2 {
			t.Error("the entry did not come back whole")
		}
	})
}

func TestAgentBelievesThatWipedServersKnow(t *testing.T) {
	repairs := []struct {
		name    string
		do      func(a *consultest.Agent, c *api.Client) error
		entries int
		checks  int // Serf's included
	}{
		{"the same registration repairs nothing", func(_ *consultest.Agent, c *api.Client) error {
			return c.Agent().ServiceRegister(beaten("order-1"))
		}, 0, 0},
		{"the same beat repairs nothing", func(_ *consultest.Agent, c *api.Client) error {
			return c.Agent().UpdateTTL("order-1:beat", "", "pass")
		}, 0, 0},
		{"a changed registration comes back without its checks", func(_ *consultest.Agent, c *api.Client) error {
			r := beaten("order-1")
			r.Meta = map[string]string{"version": "2"}
			return c.Agent().ServiceRegister(r)
		}, 1, 1},
		{"another status brings service and check", func(_ *consultest.Agent, c *api.Client) error {
			return c.Agent().UpdateTTL("order-1:beat", "", "fail")
		}, 1, 2},
		{"deregister, then register brings both", func(_ *consultest.Agent, c *api.Client) error {
			return errors.Join(c.Agent().ServiceDeregister("order-1"), c.Agent().ServiceRegister(beaten("order-1")))
		}, 1, 2},
		{"anti-entropy brings both", func(a *consultest.Agent, _ *api.Client) error {
			a.Sync()
			return nil
		}, 1, 2},
	}
	for _, tt := range repairs {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
				register(t, c, beaten("order-1"))
				a.WipeServers()
				if v, _ := entries(t, c, nil); len(v) != 0 {
					t.Fatalf("got %d entries after the wipe; want none", len(v))
				}
				if err := tt.do(a, c); err != nil {
					t.Fatal(err)
				}
				v, _ := entries(t, c, nil)
				if len(v) != tt.entries {
					t.Fatalf("got %d entries; want %d", len(v), tt.entries)
				}
				if len(v) > 0 && len(v[0].Checks) != tt.checks {
					t.Errorf("got %d checks; want %d", len(v[0].Checks), tt.checks)
				}
			})
		})
	}
}

func TestRestartKeepsDataAndDoubtsItsChecks(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1, probe("passing"),
			&api.AgentServiceCheck{CheckID: "heard", TTL: "1m", Status: "passing"},
			&api.AgentServiceCheck{CheckID: "silent", TTL: "1m", Status: "passing"}))
		if err := c.Agent().EnableServiceMaintenance("order-1", "disk swap"); err != nil {
			t.Fatal(err)
		}
		if err := c.Agent().UpdateTTL("heard", "fine", "pass"); err != nil {
			t.Fatal(err)
		}
		index := a.Index()
		a.Restart()
		if a.Index() <= index {
			t.Errorf("index went from %d to %d; want it to go on", index, a.Index())
		}
		for id, want := range map[string]string{
			"heard": "passing", "silent": "critical", "service:order-1:1": "critical", "_service_maintenance:order-1": "critical",
		} {
			if k := check(t, c, id); k == nil || k.Status != want {
				t.Errorf("check %s is %+v; want %s", id, k, want)
			}
		}
		time.Sleep(61 * time.Second)
		if k := check(t, c, "heard"); k.Status != "critical" {
			t.Errorf("got %s a TTL after the restart; want the TTL to run on", k.Status)
		}
	})
}

func TestWithoutALeaderNothingReachesTheCatalog(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, beaten("order-1"))
		waits := ask(t.Context(), a.Client(), a.Index(), time.Minute)
		a.LoseLeader()
		if l, err := c.Status().Leader(); l != "" || err != nil {
			t.Errorf("got leader %q, %v; want none and no error", l, err)
		}
		begin := time.Now()
		register(t, c, beaten("order-2"))
		if err := c.Agent().ServiceDeregister("order-1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 14*time.Second {
			t.Errorf("two writes took %v; want 7s each", took)
		}
		_, _, err := c.Health().Service("order", "", false, nil)
		if status, ok := errors.AsType[api.StatusError](err); !ok || status.Code != 500 || status.Body != "No cluster leader" {
			t.Errorf("got %v; want 500 No cluster leader", err)
		}
		v, meta := entries(t, c, &api.QueryOptions{AllowStale: true})
		if len(v) != 1 || v[0].Service.ID != "order-1" || meta.KnownLeader || meta.LastContact != 21*time.Second {
			t.Errorf("a stale query got %d entries, %+v; want the old one, no leader, 21s", len(v), meta)
		}
		waiting(t, waits)
		a.ElectLeader()
		if got := <-waits; got.err != nil || len(got.entries) != 1 || got.entries[0].Service.ID != "order-2" {
			t.Errorf("the waiting query got %d entries, %v; want order-2 only", len(got.entries), got.err)
		}
	})
}
