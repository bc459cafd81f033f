package registration

import (
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// whole reports whether the entry is there, as the settings want it, passing.
func whole(t *testing.T, c *api.Client, r *Registration) bool {
	t.Helper()
	e := seen(t, c, r)
	return e != nil && e.Service.Address == r.cfg.Host && slices.Equal(e.Service.Tags, r.cfg.Tags) && maps.Equal(userMeta(e), r.cfg.Meta) &&
		check(e, probeCheck(r.ID())) != nil && status(t, c, r) == api.HealthPassing
}

// userMeta is the entry's Meta without the keys that are ours.
func userMeta(e *api.ServiceEntry) map[string]string {
	own := maps.Clone(e.Service.Meta)
	delete(own, processKey)
	delete(own, writeKey)
	return own
}

// harms are what somebody else may do to an entry while Consul answers.
func harms() map[string]func(c *api.Client, r *Registration) error {
	register := func(c *api.Client, r *Registration, change func(*api.AgentServiceRegistration)) error {
		entry := r.cfg.entry(r.cfg.Host, word{api.HealthPassing, servingOutput}, false)
		if now, _, err := c.Agent().Service(r.ID(), nil); err == nil {
			entry.Meta = now.Meta // as one does who changes what is there
			for _, k := range entry.Checks {
				k.Notes = r.agent.notes()
			}
		}
		change(entry)
		return c.Agent().ServiceRegister(entry)
	}
	return map[string]func(c *api.Client, r *Registration) error{
		"an entry deregistered by an operator": func(c *api.Client, r *Registration) error { return c.Agent().ServiceDeregister(r.ID()) },
		"a lost TTL check":                     func(c *api.Client, r *Registration) error { return c.Agent().CheckDeregister(heartbeatCheck(r.ID())) },
		"a lost HTTP check":                    func(c *api.Client, r *Registration) error { return c.Agent().CheckDeregister(probeCheck(r.ID())) },
		"a TTL check that somebody failed": func(c *api.Client, r *Registration) error {
			return c.Agent().UpdateTTL(heartbeatCheck(r.ID()), "not so", api.HealthCritical)
		},
		"changed tags": func(c *api.Client, r *Registration) error {
			return register(c, r, func(e *api.AgentServiceRegistration) { e.Tags = []string{"wrong"} })
		},
		"a changed address": func(c *api.Client, r *Registration) error {
			return register(c, r, func(e *api.AgentServiceRegistration) { e.Address = "10.9.9.9" })
		},
		"an entry written by hand": func(c *api.Client, r *Registration) error {
			return register(c, r, func(e *api.AgentServiceRegistration) { e.Meta, e.Checks, e.Tags = nil, nil, nil })
		},
		"changed meta": func(c *api.Client, r *Registration) error {
			return register(c, r, func(e *api.AgentServiceRegistration) { e.Meta["version"] = "0" })
		},
	}
}

// TestWhatIsLostIsMendedWithinASecond does harm at different times after the last
// pulse.
func TestWhatIsLostIsMendedWithinASecond(t *testing.T) {
	for name, harm := range harms() {
		t.Run(name, func(t *testing.T) {
			for _, after := range []time.Duration{1001, 1250, 1503, 1990, 9000, 31000} {
				in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
					c := agent.Client()
					cfg.Tags, cfg.Meta = []string{"prometheus"}, map[string]string{"version": "1"}
					r := begun(t, cfg)
					time.Sleep(after * time.Millisecond)
					if err := harm(c, r); err != nil {
						t.Fatal(err)
					}
					within(t, time.Second, "mended", func() bool { return whole(t, c, r) })
					time.Sleep(20 * time.Second)
					if !whole(t, c, r) || r.Status().State != StateRegistered {
						t.Errorf("20s later the entry is %+v, state %v; want it whole and registered", seen(t, c, r), r.Status().State)
					}
				})
			}
		})
	}
}

func TestOperatorsDeregisterIsSeenAtOnce(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		cfg.HeartbeatInterval, cfg.TTL = time.Hour, 2*time.Hour
		r := begun(t, cfg)
		for range 5 {
			time.Sleep(40 * time.Second) // longer than a question is held
			if err := c.Agent().ServiceDeregister(r.ID()); err != nil {
				t.Fatal(err)
			}
			within(t, 100*time.Millisecond, "back", func() bool { return whole(t, c, r) })
			inState(t, r, StateRegistered)
		}
	})
}

// TestAnEmptyCatalogIsFilledWithinASecondOfConsulsReturn is a single Consul that
// was recreated without its data between two questions of ours.
func TestAnEmptyCatalogIsFilledWithinASecondOfConsulsReturn(t *testing.T) {
	for _, away := range []time.Duration{0, 300 * time.Millisecond, 3 * time.Second, time.Minute} {
		for range 8 { // the back-off is random
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				c := agent.Client()
				r := begun(t, cfg)
				time.Sleep(1700 * time.Millisecond)
				agent.Break("", consultest.Refuse())
				agent.LoseLeader()
				time.Sleep(away)
				agent.Wipe()
				agent.Mend()
				time.Sleep(1200 * time.Millisecond) // an election
				agent.ElectLeader()
				within(t, time.Second, "back", func() bool { return whole(t, c, r) })
			})
		}
	}
}

// TestServersWipedInSilenceBehindTheAgentAreFoundWithinTwelveSeconds is an agent that
// goes on answering, and a question of ours with an index above the new servers'.
func TestServersWipedInSilenceBehindTheAgentAreFoundWithinTwelveSeconds(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{0, time.Second, 1700 * time.Millisecond, 9 * time.Second, time.Minute} {
		for range 8 {
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				c := agent.Client()
				r := begun(t, cfg)
				time.Sleep(1700 * time.Millisecond)
				agent.LoseLeader()
				time.Sleep(away)
				agent.WipeServers()
				agent.ElectLeader()
				within(t, 12*time.Second, "back", func() bool { return whole(t, c, r) })
			})
		}
	}
}

// TestCatalogLostInSilenceIsFoundByALookOrTheAudit is a restored snapshot: no question fails. A watch that
// sees its index go backwards asks for a look; else it is found by the next one.
func TestCatalogLostInSilenceIsFoundByALookOrTheAudit(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		time.Sleep(1700 * time.Millisecond)
		agent.WipeServers()
		r.agent.Look()
		within(t, 100*time.Millisecond, "back after a look", func() bool { return whole(t, c, r) })
		inState(t, r, StateRegistered)

		time.Sleep(1700 * time.Millisecond)
		agent.WipeServers()
		within(t, 12*time.Second+100*time.Millisecond, "back after the audit", func() bool { return whole(t, c, r) })
	})
}

func TestManyCallsOfLookAreFewLooks(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		r := begun(t, cfg)
		before := len(agent.Requests("/v1/status/leader"))
		for range 10_000 { // 10s
			r.agent.Look()
			time.Sleep(time.Millisecond)
		}
		if n := len(agent.Requests("/v1/status/leader")) - before; n < 10 || n > 105 {
			t.Errorf("%d looks in 10s; want at most 10 a second", n)
		}
	})
}

// TestEmptyAnswerOfAnAgentThatDoesNotKnowYetIs is peers' bug 2.
func TestEmptyAnswerOfAnAgentThatDoesNotKnowYetIsNoLostEntry(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		begun(t, cfg)
		agent.Break("/v1/health/", consultest.Empty(1))
		time.Sleep(time.Minute)
		if n := len(agent.Requests(registerPath)); n != 1 {
			t.Errorf("registered %d times; want once: an answer with index 1 means nothing", n)
		}
	})
}

// TestQuestionThatIsNotHeldIsNotAskedInALoop is a proxy in between that answers
// from a cache, or has no right to.
func TestQuestionThatIsNotHeldIsNotAskedInALoop(t *testing.T) {
	for name, fault := range map[string]consultest.Fault{
		"answered from a cache": consultest.Fail(http.StatusNotModified, ""),
		"refused":               consultest.Fail(http.StatusForbidden, "Permission denied"),
		"a web page":            consultest.HTML(),
		"a broken connection":   consultest.Refuse(),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				r := begun(t, cfg)
				agent.Break("/v1/agent/service/"+r.ID(), fault)
				time.Sleep(time.Minute)
				before, looks := len(agent.Requests("/v1/agent/service/"+r.ID())), len(agent.Requests("/v1/health/"))
				time.Sleep(time.Minute)
				if n := len(agent.Requests("/v1/agent/service/"+r.ID())) - before; n > 600 { // net/http repeats a GET on a connection that broke
					t.Errorf("asked %d times in a minute; want it spaced", n)
				}
				if n := len(agent.Requests("/v1/health/")) - looks; n > 300 {
					t.Errorf("looked %d times in a minute; want it spaced", n)
				}
				if n := len(agent.Requests(registerPath)); n != 1 || r.Status().State != StateRegistered {
					t.Errorf("registered %d times, state %v; want once, and registered still: the entry is in the catalog", n, r.Status().State)
				}
			})
		})
	}
}

// TestAgentsRestartIsFollowedByAWholeEntryWithinASecond is an agent that keeps its
// services, and takes up their checks as Consul does: its HTTP checks begin as
// critical, and the TTL check as what it was.
func TestAgentsRestartIsFollowedByAWholeEntryWithinASecond(t *testing.T) {
	for _, after := range []time.Duration{1250, 9000, 31000} {
		in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
			c := agent.Client()
			r := begun(t, cfg)
			if err := c.Agent().EnableServiceMaintenance(r.ID(), "new disk"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(after * time.Millisecond)
			agent.Restart()
			within(t, time.Second, "whole", func() bool { return whole(t, c, r) })
			inState(t, r, StateRegistered)
			if m := check(seen(t, c, r), api.ServiceMaintPrefix+r.ID()); m == nil || m.Notes != "new disk" {
				t.Errorf("maintenance is %+v; want it as it was", m)
			}
			if n := len(agent.Requests("/v1/agent/service/maintenance/")); n != 1 {
				t.Errorf("maintenance was set %d times; want once, by the operator", n)
			}
		})
	}
}
