package discovery_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// seen is what FollowCatalog told last.
type seen struct {
	mu    sync.Mutex // guards what follows
	all   map[string][]catalog.Entry
	err   error
	times int
}

func (s *seen) told(all map[string][]catalog.Entry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.err = all, err
	s.times++
}

// taken returns how often something was told since it was called last.
func (s *seen) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.times
	s.times = 0
	return n
}

// String is a word for each instance with its state, and those of its checks.
func (s *seen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	for _, service := range slices.Sorted(maps.Keys(s.all)) {
		for _, e := range s.all[service] {
			var checks []string
			for _, c := range e.Checks {
				checks = append(checks, c.ID+" "+c.Status+" "+c.Output)
			}
			words = append(words, e.ID+" "+e.State.String()+fmt.Sprint(checks))
		}
	}
	if s.err != nil {
		words = append(words, "trouble")
	}
	return strings.Join(words, ", ")
}

func TestCatalogIsToldWithItsChecksAndEachChangeWithinTwoSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, mesh *discovery.Mesh) {
		c := agent.Client()
		join := func(id string) {
			t.Helper()
			if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{
				ID: id, Name: "order", Port: 80, Check: &api.AgentServiceCheck{CheckID: id + ":ttl", TTL: "1h", Status: "passing"},
			}); err != nil {
				t.Fatal(err)
			}
		}
		join("a")
		var s seen
		following(t, func(ctx context.Context) error { return mesh.FollowCatalog(ctx, s.told) })
		want := func(text string) {
			t.Helper()
			time.Sleep(2 * time.Second)
			if got := strings.ReplaceAll(s.String(), "serfHealth passing Agent alive and reachable", "node"); !strings.HasSuffix(got, text) {
				t.Errorf("it told %q; want it to end with %q", got, text)
			}
		}
		want("a passing[a:ttl passing  node]")
		join("b")
		want("a passing[a:ttl passing  node], b passing[b:ttl passing  node]")
		if err := c.Agent().UpdateTTL("b:ttl", "disk <full>", api.HealthCritical); err != nil {
			t.Fatal(err)
		}
		want("b critical[b:ttl critical disk <full> node]")
		if err := c.Agent().ServiceDeregister("b"); err != nil {
			t.Fatal(err)
		}
		enter(t, c, "bare") // without a check
		want("bare passing[node], consul passing[node], a passing[a:ttl passing  node]")
		agent.Break("/v1/", consultest.Refuse())
		want("a passing[a:ttl passing  node], trouble")
		agent.Mend()
		want("a passing[a:ttl passing  node]")
	})
}

func TestCatalogAtRestCostsSixteenSmallQuestionsAMinute(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, mesh *discovery.Mesh) {
		for n := range 20 {
			enter(t, agent.Client(), fmt.Sprint("s", n))
		}
		var s seen
		following(t, func(ctx context.Context) error { return mesh.FollowCatalog(ctx, s.told) })
		time.Sleep(time.Minute)
		before := len(agent.Requests(""))
		s.taken()
		time.Sleep(time.Hour)
		if n := s.taken(); n != 0 {
			t.Errorf("told %d times in an hour at rest; want never", n)
		}
		if n := len(agent.Requests("")) - before; n > 242+720 {
			t.Errorf("%d questions in an hour at rest; want 16 a minute", n)
		}
		before = len(agent.Requests(""))
		for range 100 {
			if err := agent.Client().Agent().EnableServiceMaintenance("s1", "now"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
			if err := agent.Client().Agent().DisableServiceMaintenance("s1"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		asked, told := len(agent.Requests("/v1/health/service/")), s.taken()
		if n := len(agent.Requests("")) - before - 200; n > 50 || told > 22 {
			t.Errorf("%d questions (%d about services in all) and %d times told while one service changed ten times a second for 20s; want two questions a second, and once told", n, asked, told)
		}
	})
}

func TestConsulThatSwallowsQuestionsIsToldWithinTenSeconds(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, mesh *discovery.Mesh) {
		enter(t, agent.Client(), "order")
		var s seen
		following(t, func(ctx context.Context) error { return mesh.FollowCatalog(ctx, s.told) })
		time.Sleep(7 * time.Second)
		if got := s.String(); strings.Contains(got, "trouble") {
			t.Errorf("it told %q with Consul there", got)
		}
		for _, fault := range []struct {
			name string
			do   func()
		}{
			{"swallows questions", func() { agent.Break("/v1/", consultest.Silent()) }},
			{"has no leader", agent.LoseLeader},
		} {
			fault.do()
			time.Sleep(10 * time.Second)
			if got := s.String(); !strings.Contains(got, "order passing") || !strings.HasSuffix(got, "trouble") {
				t.Errorf("%s: it told %q; want what was, and trouble", fault.name, got)
			}
			agent.Mend()
			agent.ElectLeader()
			time.Sleep(time.Minute)
			if got := s.String(); strings.Contains(got, "trouble") {
				t.Errorf("%s: it told %q a minute later", fault.name, got)
			}
		}
	})
}

func TestCatalogIsFollowedAtARealConsul(t *testing.T) {
	t.Parallel()
	server, mesh := atRealConsul(t)
	c := server.Client()
	var s seen
	following(t, func(ctx context.Context) error { return mesh.FollowCatalog(ctx, s.told) })
	until := func(want string) {
		t.Helper()
		for end := time.Now().Add(30 * time.Second); !strings.Contains(s.String(), want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it told %q last; want %q in it", s.String(), want)
			}
		}
	}
	until("consul passing[serfHealth passing")
	enter(t, c, "bare")
	until("bare passing[serfHealth passing")
	if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "a", Name: "order", Port: 80, Check: &api.AgentServiceCheck{CheckID: "a:ttl", TTL: "1h", Status: "passing"},
	}); err != nil {
		t.Fatal(err)
	}
	until("a passing[a:ttl passing ")
	if err := c.Agent().UpdateTTL("a:ttl", "disk full", api.HealthWarning); err != nil {
		t.Fatal(err)
	}
	until("a warning[a:ttl warning disk full")
	if err := c.Agent().EnableServiceMaintenance("a", "a new disk"); err != nil {
		t.Fatal(err)
	}
	until("critical a new disk")
	if err := c.Agent().ServiceDeregister("a"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); strings.Contains(s.String(), "a warning"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it told %q last; want no a", s.String())
		}
	}
}

func TestOnlyAMeshWithConsulFollowsTheCatalog(t *testing.T) {
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &catalog.Fixed{}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if err := mesh.FollowCatalog(t.Context(), nil); err == nil {
		t.Error("the catalog of no Consul is followed")
	}
}

func TestCatalogWithoutAnyServiceIsToldToo(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, _ *discovery.Mesh) {
		agent.Token("nobody")
		mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Client: agent.ClientWith("nobody")}})
		if err != nil {
			t.Fatal(err)
		}
		defer mesh.Close()
		var s seen
		following(t, func(ctx context.Context) error { return mesh.FollowCatalog(ctx, s.told) })
		time.Sleep(time.Second)
		if got, n := s.String(), s.taken(); got != "" || n == 0 {
			t.Errorf("told %q in %d times; want an empty catalog, once", got, n)
		}
	})
}
