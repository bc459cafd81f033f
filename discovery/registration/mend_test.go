package registration

import (
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestEntryThatIsNotVisibleYetGetsTime(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		agent.Break("/v1/health/", consultest.Empty(5))
		r := start(t, cfg)
		time.Sleep(4 * time.Second)
		if n := len(agent.Requests(registerPath)); n != 1 {
			t.Errorf("registered %d times in 4s; want once, and patience", n)
		}
		time.Sleep(56 * time.Second)
		if n := len(agent.Requests(registerPath)); n < 5 || n > 12 {
			t.Errorf("registered %d times in a minute; want about once in 5s", n)
		}
		if got := r.Status().State; got != StateStarting {
			t.Errorf("state is %v; want starting", got)
		}
		agent.Mend()
		inState(t, r, StateRegistered)
	})
}

func TestSomebodyWhoKeepsDeregisteringIsNotRaced(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		for range 1500 { // 30s
			_ = c.Agent().ServiceDeregister(r.ID()) // it may not be there
			time.Sleep(20 * time.Millisecond)
		}
		if n := len(agent.Requests(registerPath)); n < 3 || n > 40 {
			t.Errorf("registered %d times in 30s; want 3 to 40", n)
		}
		inState(t, r, StateRegistered)
	})
}

func TestShortOutageIsFollowedByALook(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		time.Sleep(time.Second)
		agent.Break("", consultest.Refuse())
		r.Refresh() // a beat notices
		time.Sleep(50 * time.Millisecond)
		agent.WipeServers()
		agent.Mend()
		mended := time.Now()
		eventually(t, "back", func() bool { return status(t, c, r) == api.HealthPassing })
		if took := time.Since(mended); took > 1100*time.Millisecond {
			t.Errorf("back after %v; want 1s at most", took)
		}
	})
}

func TestStatusThatSomebodyElseChangedIsPutRightByALook(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		cfg.HeartbeatInterval, cfg.TTL = time.Hour, 2*time.Hour
		r := begun(t, cfg)
		if err := c.Agent().UpdateTTL(heartbeatCheck(r.ID()), "not so", api.HealthCritical); err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		eventually(t, "passing again", func() bool { return status(t, c, r) == api.HealthPassing })
		if took := time.Since(changed); took > 3*time.Second {
			t.Errorf("passing after %v; want a look or two", took)
		}
	})
}

func TestSameIDOnAnotherNodeIsNotOurEntry(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		_, err := c.Catalog().Register(&api.CatalogRegistration{
			Node: "of-old", Address: "10.9.9.9",
			Service: &api.AgentService{ID: r.ID(), Service: cfg.Service, Address: cfg.Host, Port: cfg.Port},
			Checks: api.HealthChecks{
				{Node: "of-old", CheckID: heartbeatCheck(r.ID()), ServiceID: r.ID(), Status: api.HealthPassing},
				{Node: "of-old", CheckID: probeCheck(r.ID()), ServiceID: r.ID(), Status: api.HealthPassing},
			},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: consultest.NodeName, ServiceID: r.ID()}, nil); err != nil {
			t.Fatal(err)
		}
		eventually(t, "back on its own node", func() bool {
			entries, _, err := c.Health().Service(cfg.Service, "", false, nil)
			return err == nil && len(entries) == 2
		})
	})
}

func TestCloseInTheMiddleOfAMendRegistersNoMore(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		const path = "/v1/agent/service/deregister/"
		r := begun(t, cfg)
		agent.Break(path, consultest.Paused())
		agent.WipeServers()
		eventually(t, "mending", func() bool { return len(agent.Requests(path)) == 1 })
		time.AfterFunc(time.Second, func() { agent.Mend() })
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if n := len(agent.Requests(registerPath)); n != 1 {
			t.Errorf("registered %d times; want once, before Close", n)
		}
	})
}

func TestDrainOfAMendedConsulDoesNotWaitForTheBackOff(t *testing.T) {
	for range 8 { // the back-off is random, up to 10s
		in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
			r := begun(t, cfg)
			agent.Break("", consultest.Fail(500, "no"))
			time.Sleep(5 * time.Minute)
			agent.Mend()
			began := time.Now()
			if err := r.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); r.exhausted.Load() || took > time.Second {
				t.Errorf("drained in %v, given up: %t; want it told at once", took, r.exhausted.Load())
			}
		})
	}
}

func TestDrainThatDidNotArriveIsToldAgain(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		cfg.ConsulTimeout = 10 * time.Second // the telling and the mending may meet
		r := begun(t, cfg)
		agent.Break(updatePath, consultest.HTML()) // 200, and nothing happens
		began := time.Now()
		time.AfterFunc(time.Second, func() { agent.Mend() })
		if err := r.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 1500*time.Millisecond || r.exhausted.Load() {
			t.Errorf("drained in %v, given up: %t; want 1s until it arrived, and 500ms", took, r.exhausted.Load())
		}
	})
}

func TestWhatAnOperatorAddsToAnEntryIsLeftAlone(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		cfg.Tags, cfg.Meta = []string{"prometheus"}, map[string]string{"version": "1"}
		r := begun(t, cfg)
		entry := r.cfg.entry(cfg.Host, word{api.HealthPassing, servingOutput}, false)
		now, _, err := c.Agent().Service(r.ID(), nil)
		if err != nil {
			t.Fatal(err)
		}
		entry.Meta = now.Meta
		entry.Meta["note"], entry.Tags = "of an operator", []string{"canary", "prometheus"}
		for _, k := range entry.Checks {
			k.Notes = r.agent.notes()
		}
		if err := c.Agent().ServiceRegister(entry); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := len(agent.Requests(registerPath)); n != 2 {
			t.Errorf("registered %d times; want ours and the operator's", n)
		}
		if e := seen(t, c, r); e.Service.Meta["note"] == "" || len(e.Service.Tags) != 2 {
			t.Errorf("the entry is %+v; want what the operator added", e.Service)
		}
		if s := r.Status(); s.State != StateRegistered {
			t.Errorf("status is %+v; want registered", s)
		}
	})
}

// TestMaintenanceThatHasEndedStaysEnded ends it while a mend can't get through.
func TestMaintenanceThatHasEndedStaysEnded(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		if err := c.Agent().EnableServiceMaintenance(r.ID(), "new disk"); err != nil {
			t.Fatal(err)
		}
		agent.Break("/v1/agent/service/deregister/", consultest.Fail(http.StatusInternalServerError, "no"))
		if _, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: consultest.NodeName, ServiceID: r.ID()}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if err := c.Agent().DisableServiceMaintenance(r.ID()); err != nil {
			t.Fatal(err)
		}
		agent.Mend()
		inState(t, r, StateRegistered)
		eventually(t, "passing", func() bool { return status(t, c, r) == api.HealthPassing })
		if m := check(seen(t, c, r), api.ServiceMaintPrefix+r.ID()); m != nil {
			t.Errorf("maintenance is %+v; want it ended, as the operator said", m)
		}
	})
}

// TestAnswersThatCanNotBeReadAreTroubleAndNoPanic gives each kind of nonsense to each
// question, from the start and later.
func TestAnswersThatCanNotBeReadAreTroubleAndNoPanic(t *testing.T) {
	for _, body := range []string{
		"", "null", "[]", "{}", "[null]", `"x"`, "1", "<html>", `{"Config":null,"Member":null}`, `{"Config":{"NodeName":1}}`,
		`{"Node":{},"Services":[null,{"ID":"x","Meta":null}]}`, `{"Node":null,"Services":null}`, `[{"CheckID":1}]`, `[{"Definition":null}]`, `{"a":null}`,
	} {
		for _, path := range []string{
			"/v1/status/leader", "/v1/agent/self", "/v1/agent/checks", "/v1/agent/service/", "/v1/agent/services",
			"/v1/catalog/node-services/", "/v1/health/node/", "/v1/",
		} {
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				bad := consultest.Answer(http.StatusOK, body)
				agent.Break(path, bad)
				r := start(t, cfg)
				time.Sleep(20 * time.Second)
				agent.Mend()
				inState(t, r, StateRegistered)
				agent.Break(path, bad)
				r.Refresh()
				r.agent.Look()
				time.Sleep(20 * time.Second)
				agent.Mend()
				inState(t, r, StateRegistered)
				if got := status(t, agent.Client(), r); got != api.HealthPassing {
					t.Errorf("%s answered %q: the check is %q after it was mended; want passing", path, body, got)
				}
			})
		}
	}
}
