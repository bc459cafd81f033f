package watch_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// lab is a Watcher and a Consul, in memory or real.
type lab struct {
	*watch.Watcher
	consul *api.Client
	soon   time.Duration // within which a change is in use

	mu   sync.Mutex
	seen map[string]int // how often a Trace function was called
}

func newLab(t *testing.T, watching, registering *api.Client, cfg watch.Config) *lab {
	t.Helper()
	l := &lab{consul: registering, soon: time.Second, seen: map[string]int{}}
	count := func(what string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.seen[what]++
	}
	cfg.Client = watching
	cfg.Trace = &watch.Trace{
		Changed:   func(*catalog.Snapshot) { count("changed") },
		Failed:    func(string, error) { count("failed") },
		Refused:   func(string, *catalog.InvalidError) { count("refused") },
		Missing:   func(_ string, i catalog.Instance) { count("missing " + i.ID) },
		Forgot:    func(string) { count("forgot") },
		Regressed: func(string) { count("regressed") },
		Recovered: func(string) { count("recovered") },
	}
	w, err := watch.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.Watcher = w
	t.Cleanup(func() { _ = w.Close() })
	return l
}

func (l *lab) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[what]
}

func (l *lab) register(t *testing.T, id string, change ...func(*api.AgentServiceRegistration)) {
	t.Helper()
	r := &api.AgentServiceRegistration{
		ID: id, Name: "order", Address: "10.0.0." + id, Port: 8080,
		Check: &api.AgentServiceCheck{CheckID: id + ":rollcall", TTL: "10m", Status: api.HealthPassing},
	}
	for _, c := range change {
		c(r)
	}
	if err := l.consul.Agent().ServiceRegister(r); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) deregister(t *testing.T, id string) {
	t.Helper()
	if err := l.consul.Agent().ServiceDeregister(id); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) beat(t *testing.T, id, output, status string) {
	t.Helper()
	if err := l.consul.Agent().UpdateTTL(id+":rollcall", output, status); err != nil {
		t.Fatal(err)
	}
}

func show(s *catalog.Snapshot) string {
	var out []string
	for i := range s.All() {
		missing := ""
		if i.Missing() {
			missing = "?"
		}
		out = append(out, fmt.Sprintf("%s:%s%s", i.ID, i.State, missing))
	}
	return strings.Join(out, " ")
}

// becomes waits until the set in use is as told.
func (l *lab) becomes(t *testing.T, limit time.Duration, want string) *catalog.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		s, err := l.Latest(ctx, "order")
		if err != nil {
			t.Fatalf("want %q within %s: %v", want, limit, err)
		}
		if show(s) == want {
			return s
		}
		select {
		case <-s.Superseded():
		case <-ctx.Done():
			t.Fatalf("after %s: got %q; want %q", limit, show(s), want)
		}
	}
}

// acquainted is how long a service is followed before who vanishes is missing.
const acquainted = 1100 * time.Millisecond

// scenarios hold for the agent in memory and for the real Consul alike.
var scenarios = map[string]func(t *testing.T, l *lab){
	"a change is seen": func(t *testing.T, l *lab) {
		l.becomes(t, time.Minute, "")
		l.register(t, "1")
		l.becomes(t, l.soon, "1:passing")
		l.register(t, "2")
		l.becomes(t, l.soon, "1:passing 2:passing")
		l.beat(t, "1", "down", api.HealthCritical)
		s := l.becomes(t, l.soon, "1:critical 2:passing")
		if i := slices.Collect(s.All())[0]; i.Reason != "down" {
			t.Errorf("got reason %q; want down", i.Reason)
		}
		l.beat(t, "1", "", api.HealthPassing)
		l.becomes(t, l.soon, "1:passing 2:passing")
		if _, err := s.Freshness(); err != nil {
			t.Errorf("got trouble %v; want none", err)
		}
	},
	"maintenance is its own state and keeps its reason": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.becomes(t, time.Minute, "1:passing")
		if err := l.consul.Agent().EnableServiceMaintenance("1", "disk swap"); err != nil {
			t.Fatal(err)
		}
		s := l.becomes(t, l.soon, "1:maintenance")
		for i := range s.All() {
			if i.Reason != "disk swap" {
				t.Errorf("got reason %q; want the operator's", i.Reason)
			}
		}
		if err := l.consul.Agent().DisableServiceMaintenance("1"); err != nil {
			t.Fatal(err)
		}
		l.becomes(t, l.soon, "1:passing")
		if err := l.consul.Agent().EnableNodeMaintenance("kernel"); err != nil {
			t.Fatal(err)
		}
		l.becomes(t, l.soon, "1:maintenance")
		if err := l.consul.Agent().DisableNodeMaintenance(); err != nil {
			t.Fatal(err)
		}
		l.becomes(t, l.soon, "1:passing")
	},
	"draining goes at once": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.register(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing")
		l.beat(t, "1", "draining", api.HealthCritical)
		l.becomes(t, l.soon, "1:draining 2:passing")
		l.deregister(t, "1")
		l.becomes(t, l.soon, "2:passing")
		l.beat(t, "2", "draining", api.HealthCritical)
		l.becomes(t, l.soon, "2:draining")
		l.deregister(t, "2")
		l.becomes(t, l.soon, "")
	},
	"critical goes at once": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.register(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing")
		l.beat(t, "1", "down", api.HealthCritical)
		l.becomes(t, l.soon, "1:critical 2:passing")
		l.deregister(t, "1")
		l.becomes(t, l.soon, "2:passing")
	},
	"passing that vanishes is kept as missing and returns": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.register(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing")
		time.Sleep(acquainted)
		l.deregister(t, "1")
		l.becomes(t, l.soon, "1:passing? 2:passing")
		l.register(t, "1")
		l.becomes(t, l.soon, "1:passing 2:passing")
		if n := l.count("missing 1"); n != 1 {
			t.Errorf("told of it %d times; want once", n)
		}
	},
	"the true last leaver is gone after the bound": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.becomes(t, time.Minute, "1:passing")
		time.Sleep(acquainted)
		start := time.Now()
		l.deregister(t, "1")
		s := l.becomes(t, l.soon, "1:passing?")
		for i := range s.All() {
			if left := i.MissingUntil.Sub(start); left < 3*time.Second || left > 3*time.Second+l.soon {
				t.Errorf("kept for %s; want 3s from the time it vanished", left)
			}
		}
		l.becomes(t, 3*time.Second+l.soon, "")
		if took := time.Since(start); took < 3*time.Second {
			t.Errorf("gone after %s; want 3s", took)
		}
	},
	"an instance that moves leaves no missing one behind": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.becomes(t, time.Minute, "1:passing")
		l.register(t, "1", func(r *api.AgentServiceRegistration) { r.Address = "10.0.0.99" })
		s := l.becomes(t, l.soon, "1:passing")
		for i := range s.All() {
			for i.Host != "10.0.0.99" {
				<-s.Superseded()
				s = l.becomes(t, l.soon, "1:passing")
				i = slices.Collect(s.All())[0]
			}
		}
	},
	"one bad entry costs the good ones nothing": func(t *testing.T, l *lab) {
		l.register(t, "1")
		l.register(t, "2", func(r *api.AgentServiceRegistration) { r.Port = 70000 })
		l.register(t, "3", func(r *api.AgentServiceRegistration) { r.Address = "fe80::1%eth0" })
		l.becomes(t, time.Minute, "1:passing")
		l.register(t, "4")
		l.becomes(t, l.soon, "1:passing 4:passing")
		if n := l.count("refused"); n != 2 {
			t.Errorf("told of %d bad entries; want 2", n)
		}
	},
}

func TestScenariosInMemory(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				agent := consultest.New(t)
				scenarios[name](t, newLab(t, agent.Client(), agent.Client(), watch.Config{MissingFor: 3 * time.Second}))
			})
		})
	}
}

func bubble(t *testing.T, cfg watch.Config, test func(t *testing.T, agent *consultest.Agent, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		test(t, agent, newLab(t, agent.Client(), agent.Client(), cfg))
	})
}

func TestConsulAwayForAMinuteChangesNothing(t *testing.T) {
	for name, fault := range map[string]consultest.Fault{
		"refuses": consultest.Refuse(), "silent": consultest.Silent(), "paused": consultest.Paused(),
		"HTML": consultest.HTML(), "500": consultest.Fail(500, "No cluster leader"), "429": consultest.Fail(429, ""), "403": consultest.Fail(403, "Permission denied"),
		"truncates": consultest.Truncate(40), "empty with index 1": consultest.Empty(1), "filtered": consultest.Filtered(), "anonymous": consultest.Anonymous(),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
				l.register(t, "1")
				l.register(t, "2")
				first := l.becomes(t, time.Minute, "1:passing 2:passing")
				time.Sleep(7 * time.Second)
				agent.Break("", fault)
				time.Sleep(time.Minute)
				if s, err := l.Latest(t.Context(), "order"); err != nil || s != first {
					t.Errorf("got %q and %v; want the set untouched", show(s), err)
				}
				if _, err := first.Freshness(); err == nil {
					t.Error("no trouble is told of")
				}
				agent.Mend()
				l.register(t, "3")
				l.becomes(t, 45*time.Second, "1:passing 2:passing 3:passing")
				time.Sleep(15 * time.Second)
				if at, err := first.Freshness(); err != nil || time.Since(at) > 15*time.Second {
					t.Errorf("afterwards: got proof of %s ago and %v; want a fresh one and no trouble", time.Since(at), err)
				}
			})
		})
	}
}

func TestWipedCatalogIsBridged(t *testing.T) {
	for name, wipe := range map[string]func(*consultest.Agent){"all": (*consultest.Agent).Wipe, "servers": (*consultest.Agent).WipeServers} {
		t.Run(name, func(t *testing.T) {
			bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
				for n := range 20 {
					l.register(t, fmt.Sprint(10+n))
				}
				l.register(t, "1")
				l.register(t, "2")
				for n := range 20 {
					l.beat(t, fmt.Sprint(10+n), "draining", api.HealthCritical)
					l.deregister(t, fmt.Sprint(10+n))
				}
				l.becomes(t, time.Minute, "1:passing 2:passing")
				wipe(agent)
				l.becomes(t, 15*time.Second, "1:passing? 2:passing?")
				_ = l.consul.Agent().ServiceDeregister("1") // an agent that was wiped too does not know it
				l.register(t, "1")
				l.becomes(t, 15*time.Second, "1:passing 2:passing?")
				l.becomes(t, 31*time.Second, "1:passing")
			})
		})
	}
}

func TestNoLeaderKeepsTheSetAndItsFreshnessStandsStill(t *testing.T) {
	bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.register(t, "1")
		s := l.becomes(t, time.Minute, "1:passing")
		agent.LoseLeader()
		lost := time.Now()
		time.Sleep(5 * time.Minute)
		if at, err := s.Freshness(); err == nil || at.After(lost.Add(3*time.Second)) {
			t.Errorf("got proof %s after the loss and %v; want none, and trouble", at.Sub(lost), err)
		}
		agent.ElectLeader()
		time.Sleep(15 * time.Second)
		if at, err := s.Freshness(); err != nil || !at.After(lost.Add(5*time.Minute)) {
			t.Errorf("got proof %s after the loss and %v; want a fresh one", at.Sub(lost), err)
		}
		l.becomes(t, time.Second, "1:passing")
	})
}

func TestIdleServiceAsksEightTimesAMinuteAndCausesNoErrorInAnHour(t *testing.T) {
	bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		l.register(t, "1", func(r *api.AgentServiceRegistration) { r.Check = nil })
		if err := l.Pin("order"); err != nil {
			t.Fatal(err)
		}
		l.becomes(t, time.Minute, "1:passing")
		agent.Requests("")
		before := len(agent.Requests("/v1/health/"))
		time.Sleep(time.Hour)
		if n := l.count("failed"); n != 0 {
			t.Errorf("%d failures; want none", n)
		}
		if n := l.count("changed"); n != 1 {
			t.Errorf("%d changes; want 1", n)
		}
		if n := len(agent.Requests("/v1/health/")) - before; n > 480 {
			t.Errorf("%d requests in an hour; want at most 8 a minute", n)
		}
		for _, r := range agent.Requests("/v1/health/") {
			if r.Query.Has("filter") {
				t.Fatalf("%v scans the whole service, and nothing was missing", r.Query)
			}
		}
	})
}

func TestManyServicesConvergeUnderConsulsLimitOfConnections(t *testing.T) {
	const services = 250
	name := func(n int) string { return fmt.Sprintf("service-%d", n) }
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		// As internal/consul builds it: 100 connections, and Consul takes no
		// more (the 101st registers).
		pool := &http.Transport{DialContext: agent.DialContext, MaxConnsPerHost: 100, MaxIdleConnsPerHost: 100}
		client, err := api.NewClient(&api.Config{Address: consultest.Address, Scheme: "http", HttpClient: &http.Client{Transport: pool}})
		if err != nil {
			t.Fatal(err)
		}
		defer pool.CloseIdleConnections()
		l := newLab(t, client, agent.Client(), watch.Config{})
		defer l.Close()
		agent.LimitConnections(101)
		set := func(r *api.AgentServiceRegistration) { r.Check = nil }
		for n := range services {
			l.register(t, fmt.Sprint(n), set, func(r *api.AgentServiceRegistration) { r.Name, r.Address = name(n), "10.0.0.1" })
		}
		var all sync.WaitGroup
		for n := range services {
			all.Go(func() {
				if s, err := l.Latest(t.Context(), name(n)); err != nil || s.Len() != 1 {
					t.Errorf("%s: got %v; want one instance", name(n), err)
				}
			})
		}
		all.Wait()
		time.Sleep(5 * time.Second)
		for n := 0; n < services; n += 5 {
			l.register(t, fmt.Sprint(services+n), set, func(r *api.AgentServiceRegistration) { r.Name, r.Address = name(n), "10.0.0.2" })
		}
		changed := time.Now()
		for n := 0; n < services; n += 5 {
			for {
				s, err := l.Latest(t.Context(), name(n))
				if err != nil {
					t.Fatal(err)
				}
				if s.Len() == 2 {
					break
				}
				<-s.Superseded()
			}
		}
		if late := time.Since(changed); late > 8*time.Second {
			t.Errorf("the last change was in use after %s; want about 5s", late)
		}
		if n := l.count("failed"); n != 0 {
			t.Errorf("%d queries failed; want none", n)
		}
		before := len(agent.Requests("/v1/health/"))
		time.Sleep(20 * time.Second)
		if n := len(agent.Requests("/v1/health/")) - before; n > services*8 {
			t.Errorf("%d requests in 20s for %d services; want about 4 blocking ones and 2 audits each", n, services)
		}
	})
}

func TestConsulThatRefusesConnectionsLetsEveryServiceInAtLast(t *testing.T) {
	const services = 40
	bubble(t, watch.Config{}, func(t *testing.T, agent *consultest.Agent, l *lab) {
		for n := range services {
			l.register(t, fmt.Sprint(n), func(r *api.AgentServiceRegistration) {
				r.Name, r.Address, r.Check = fmt.Sprint("s", n), "10.0.0.1", nil
			})
		}
		agent.LimitConnections(30) // others have taken the rest
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var all sync.WaitGroup
		for n := range services {
			all.Go(func() {
				if s, err := l.Latest(ctx, fmt.Sprint("s", n)); err != nil || s.Len() != 1 {
					t.Errorf("s%d: got %v; want one instance", n, err)
				}
			})
		}
		all.Wait()
		agent.LimitConnections(0)
		time.Sleep(5 * time.Minute)
		for _, s := range l.Snapshots() {
			if at, err := s.Freshness(); err != nil || time.Since(at) > 20*time.Second {
				t.Errorf("%s: proven %s ago, trouble %v; want it fresh when the crowd is gone", s.Service(), time.Since(at), err)
			}
		}
	})
}

func TestRealConsul(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a real Consul")
	}
	server := consultest.Real(t)
	for _, name := range slices.Sorted(maps.Keys(scenarios)) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, server.Client(), server.Client(), watch.Config{MissingFor: 3 * time.Second})
			l.soon = time.Minute
			scenarios[name](t, l)
			services, err := l.consul.Agent().Services()
			if err != nil {
				t.Fatal(err)
			}
			for id := range services {
				l.deregister(t, id)
			}
		})
	}
	t.Run("a restart and a wiped catalog are bridged", func(t *testing.T) {
		l := newLab(t, server.Client(), server.Client(), watch.Config{MissingFor: 10 * time.Minute})
		l.register(t, "1")
		l.register(t, "2")
		l.becomes(t, time.Minute, "1:passing 2:passing")
		server.Wipe()
		l.becomes(t, time.Minute, "1:passing? 2:passing?")
		l.register(t, "1")
		l.register(t, "2")
		s := l.becomes(t, time.Minute, "1:passing 2:passing")
		server.Restart()
		if now, err := l.Latest(t.Context(), "order"); err != nil || now.Len() != 2 {
			t.Errorf("after a restart: got %v and %v; want both", now, err)
		}
		for {
			if at, err := s.Freshness(); err == nil && time.Since(at) < 15*time.Second {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		_, err := l.Latest(t.Context(), "..")
		if err == nil || errors.Is(err, catalog.ErrClosed) {
			t.Errorf("got %v; want an error about the name", err)
		}
	})
}

// A token can lose its rights in three ways: it is deleted, its policy is
// changed, or its policy is deleted. Consul answers them with 403, with an empty
// list, or with a filtered one, by way of the stream or of the leader.
func TestRealConsulThatTakesATokensRightsAwayLeavesTheSetAsItIs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a real Consul")
	}
	const rights = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
	for name, c := range map[string]struct {
		take, restore func(acl *api.ACL, policy *api.ACLPolicy, token *api.ACLToken) error
	}{
		"the policy is changed": {
			take: func(acl *api.ACL, policy *api.ACLPolicy, _ *api.ACLToken) error {
				policy.Rules = `key_prefix "" { policy = "read" }`
				_, _, err := acl.PolicyUpdate(policy, nil)
				return err
			},
			restore: func(acl *api.ACL, policy *api.ACLPolicy, _ *api.ACLToken) error {
				policy.Rules = rights
				_, _, err := acl.PolicyUpdate(policy, nil)
				return err
			},
		},
		"the policy is deleted": {
			take: func(acl *api.ACL, policy *api.ACLPolicy, _ *api.ACLToken) error {
				_, err := acl.PolicyDelete(policy.ID, nil)
				return err
			},
			restore: func(acl *api.ACL, policy *api.ACLPolicy, token *api.ACLToken) error {
				again, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: policy.Name, Rules: rights}, nil)
				if err != nil {
					return err
				}
				token.Policies = []*api.ACLLink{{ID: again.ID}}
				_, _, err = acl.TokenUpdate(token, nil)
				return err
			},
		},
		"the token is deleted": {
			take: func(acl *api.ACL, _ *api.ACLPolicy, token *api.ACLToken) error {
				_, err := acl.TokenDelete(token.AccessorID, nil)
				return err
			},
			restore: func(acl *api.ACL, _ *api.ACLPolicy, token *api.ACLToken) error {
				token.CreateIndex, token.ModifyIndex, token.Hash = 0, 0, nil
				_, _, err := acl.TokenCreate(token, nil)
				return err
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := consultest.RealWithACLs(t)
			acl := server.Client().ACL()
			policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: strings.ReplaceAll(name, " ", "-"), Rules: rights}, nil)
			if err != nil {
				t.Fatal(err)
			}
			token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			l := newLab(t, server.ClientWith(token.SecretID), server.Client(), watch.Config{MissingFor: 2 * time.Second, AuditEvery: time.Second})
			l.soon = time.Minute
			l.register(t, "1")
			l.register(t, "2")
			s := l.becomes(t, l.soon, "1:passing 2:passing")
			if err := c.take(acl, policy, token); err != nil {
				t.Fatal(err)
			}
			within(t, "its trouble is told", func() bool { _, trouble := s.Freshness(); return trouble != nil })
			// A change makes a blocking query return: now the answer is without rights.
			l.register(t, "3")
			time.Sleep(5 * time.Second) // longer than anybody would be missing
			if s, err = l.Latest(t.Context(), "order"); err != nil || !strings.HasPrefix(show(s), "1:passing 2:passing") {
				t.Errorf("got %q and %v; want the set that is known, none of it missing", show(s), err)
			}
			if _, trouble := s.Freshness(); trouble == nil {
				t.Error("got no trouble; want what Consul said")
			} else {
				t.Log(trouble)
			}
			if err := c.restore(acl, policy, token); err != nil {
				t.Fatal(err)
			}
			s = l.becomes(t, l.soon, "1:passing 2:passing 3:passing")
			within(t, "its trouble is over", func() bool { _, trouble := s.Freshness(); return trouble == nil })
		})
	}
}

// The token may read one of two nodes from then on: the stream shows one instance
// less, and says nothing of a filter.
func TestRealConsulThatHidesANodeFromTheTokenLeavesItsInstanceInUse(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a real Consul")
	}
	server := consultest.RealWithACLs(t)
	acl := server.Client().ACL()
	policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: "reader", Rules: `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(node, id string) {
		t.Helper()
		_, err := server.Client().Catalog().Register(&api.CatalogRegistration{
			Node: node, Address: "10.0.0.1", Service: &api.AgentService{ID: id, Service: "order", Address: "10.1.0." + id, Port: 80},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	put("near", "1")
	put("far", "2")
	l := newLab(t, server.ClientWith(token.SecretID), server.Client(), watch.Config{MissingFor: 2 * time.Second, AuditEvery: time.Second})
	s := l.becomes(t, time.Minute, "1:passing 2:passing")
	time.Sleep(acquainted)
	policy.Rules = `service_prefix "" { policy = "read" } node "near" { policy = "read" }`
	if _, _, err := acl.PolicyUpdate(policy, nil); err != nil {
		t.Fatal(err)
	}
	put("near", "3")
	within(t, "its trouble is told", func() bool {
		_, trouble := s.Freshness()
		return trouble != nil && strings.Contains(trouble.Error(), "may not read")
	})
	time.Sleep(6 * time.Second) // three times as long as anything is missing
	if s, err := l.Latest(t.Context(), "order"); err != nil || show(s) != "1:passing 2:passing? 3:passing" {
		t.Errorf("got %q and %v; want the hidden instance in use", show(s), err)
	}
}

func within(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute in vain until %s", what)
		}
	}
}
