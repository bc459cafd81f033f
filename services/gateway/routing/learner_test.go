package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is the learner of one gateway.
type door struct {
	t *testing.T
	*Learner
	log  *logtest.Buffer
	stop func()
}

// learn starts a gateway's learner, which asks Consul with this client.
func learn(t *testing.T, client *api.Client, cfg Config) *door {
	t.Helper()
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Client: client}})
	if err != nil {
		t.Fatal(err)
	}
	d := &door{t: t, log: &logtest.Buffer{}}
	cfg.Catalog, cfg.Source, cfg.Log, cfg.Self = mesh, mesh.Source(""), slog.New(slog.NewTextHandler(d.log, nil)), "gateway"
	if d.Learner, err = NewLearner(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v; want the end of its context", err)
		}
		if err := mesh.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(d.stop)
	return d
}

// routes are the routes of the table, by their keys.
func (d *door) routes() string {
	var all []string
	for _, r := range d.Table().Routes {
		all = append(all, r.Key()+"="+r.Service)
	}
	return strings.Join(all, " ")
}

// eventually waits for routes.
func (d *door) eventually(want string) {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); d.routes() != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			d.t.Fatalf("the routes are %q; want %q\n%+v\n%s", d.routes(), want, d.Table(), d.log)
		}
	}
}

// always sees that the routes stay as they are.
func (d *door) always(want string, during time.Duration) {
	d.t.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if d.routes() != want {
			d.t.Fatalf("the routes are %q; want %q\n%+v", d.routes(), want, d.Table())
		}
	}
}

func claim(t *testing.T, c *api.Client, service, routes string) {
	t.Helper()
	entry(t, c, service, []string{Tag}, routes)
}

func entry(t *testing.T, c *api.Client, service string, tags []string, routes string) {
	t.Helper()
	if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		Name: service, Address: "127.0.0.1", Port: 80, Tags: tags, Meta: map[string]string{MetaKey: routes},
	}); err != nil {
		t.Fatal(err)
	}
}

// leave is in order: one that vanishes in good health would be missing for a while.
func leave(t *testing.T, c *api.Client, service string) {
	t.Helper()
	if err := c.Agent().EnableServiceMaintenance(service, "leaving"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if err := c.Agent().ServiceDeregister(service); err != nil {
		t.Fatal(err)
	}
}

func inBubble(t *testing.T, body func(t *testing.T, agent *consultest.Agent, c *api.Client)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		body(t, agent, agent.Client())
	})
}

func TestMarkedServiceHasItsRoutesAndOnlySuchAreFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, c *api.Client) {
		entry(t, c, "shy", nil, "/shy")
		d := learn(t, c, Config{})
		if err := d.Ready(); err == nil {
			t.Error("it is ready before anything was answered")
		}
		claim(t, c, "greeter", "/greet, h.example/x strip")
		d.eventually("/greet=greeter h.example/x=greeter")
		if err := d.Ready(); err != nil {
			t.Errorf("it is not ready: %v", err)
		}
		claim(t, c, "greeter", "/hello")
		d.eventually("/hello=greeter")
		if n := len(agent.Requests("/v1/health/service/shy")); n != 0 {
			t.Errorf("%d questions about a service without the tag; want none", n)
		}
	})
}

func TestRouteIsGoneAtOnceWhenItIsTakenBackAndTenSecondsAfterTheLastInstance(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		d := learn(t, c, Config{})
		claim(t, c, "greeter", "/greet")
		d.eventually("/greet=greeter")
		entry(t, c, "greeter", nil, "/greet")
		began := time.Now()
		d.eventually("")
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("a route that was taken back was there for %v more", took)
		}
		claim(t, c, "greeter", "/greet")
		d.eventually("/greet=greeter")
		leave(t, c, "greeter")
		began = time.Now()
		d.always("/greet=greeter", 9*time.Second)
		d.eventually("")
		if took := time.Since(began); took > HoldFor+2*time.Second {
			t.Errorf("without an instance it was there for %v; want %v", took, HoldFor)
		}
		time.Sleep(time.Minute)
		d.mu.Lock()
		left := len(d.followed)
		d.mu.Unlock()
		if left > 0 {
			t.Errorf("%d services are followed still; want none", left)
		}
	})
}

func TestFirstThatClaimsARouteKeepsItAndEveryGatewayAgreesEvenOneStartedLater(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		agree(t, c)
	})
}

func TestGatewaysAgreeOverARealConsul(t *testing.T) {
	t.Parallel()
	agree(t, consultest.Real(t).Client())
}

func agree(t *testing.T, c *api.Client) {
	one, two := learn(t, c, Config{}), learn(t, c, Config{})
	claim(t, c, "zebra", "/x")
	one.eventually("/x=zebra")
	two.eventually("/x=zebra")
	recorded(t, c, `"/x": "zebra"`)
	claim(t, c, "ant", "/x, /y")
	one.eventually("/x=zebra /y=ant")
	two.eventually("/x=zebra /y=ant")
	one.stop()
	three := learn(t, c, Config{})
	three.eventually("/x=zebra /y=ant")
	for _, d := range []*door{two, three} {
		if got := fmt.Sprint(d.Table().Conflicts); got != "[{/x zebra [ant zebra]}]" {
			t.Errorf("conflicts %s; want that zebra has /x", got)
		}
		if log := d.log.String(); strings.Count(log, "several services claim one route") != 1 {
			t.Errorf("the log is %q; want the conflict once", log)
		}
	}
	// It takes its claim back: the next one has it, everywhere.
	claim(t, c, "zebra", "/z")
	two.eventually("/x=ant /y=ant /z=zebra")
	three.eventually("/x=ant /y=ant /z=zebra")
	recorded(t, c, `"/x": "ant"`)
	time.Sleep(2 * time.Second) // until all have heard of it
	claim(t, c, "zebra", "/x, /z")
	two.always("/x=ant /y=ant /z=zebra", 2*time.Second)
	three.always("/x=ant /y=ant /z=zebra", 0)
}

// recorded waits until an owner stands in Consul.
func recorded(t *testing.T, c *api.Client, want string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if pair, _, err := c.KV().Get("rollcall/gateway/owners", nil); err == nil && pair != nil && strings.Contains(string(pair.Value), want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is never recorded", want)
		}
	}
}

func TestGatewaysThatSeeTwoClaimsAtOnceAgreeOnOneOwner(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		claim(t, c, "zebra", "/x")
		claim(t, c, "ant", "/x")
		one, two := learn(t, c, Config{}), learn(t, c, Config{})
		one.eventually("/x=ant")
		two.eventually("/x=ant")
		one.always("/x=ant", time.Minute)
		two.always("/x=ant", 0)
	})
}

func TestWithoutTheRightToRecordOwnersTheNameThatSortsFirstHasARoute(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, c *api.Client) {
		agent.Token("reader", "service:read", "node:read", "key:read")
		agent.Token("blind", "service:read", "node:read")
		for _, token := range []string{"reader", "blind"} {
			d := learn(t, agent.ClientWith(token), Config{})
			claim(t, c, "zebra", "/x")
			d.eventually("/x=zebra")
			time.Sleep(5 * time.Second)
			claim(t, c, "ant", "/x")
			d.eventually("/x=ant")
			d.always("/x=ant", 3*time.Minute)
			if log := d.log.String(); len(d.Table().Trouble) != 1 || strings.Count(log, "trouble with routes") != 1 {
				t.Errorf("%s: trouble %v, log %q; want that it lacks a right, once", token, d.Table().Trouble, log)
			}
			if err := d.Ready(); err != nil {
				t.Errorf("%s: %v; want that it is ready", token, err)
			}
			d.stop()
			entry(t, c, "ant", nil, "")
			entry(t, c, "zebra", nil, "")
			time.Sleep(time.Second)
		}
	})
}

func TestOwnerThatWasAwayForTenSecondsAtAGatewaysStartHasLostItsRoute(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		if _, err := c.KV().Put(&api.KVPair{Key: "k", Value: []byte(`{"/x": "zebra", "/gone": "nobody"}`)}, nil); err != nil {
			t.Fatal(err)
		}
		claim(t, c, "ant", "/x")
		d := learn(t, c, Config{Key: "k"})
		d.eventually("/x=zebra") // which has no instance: 503, and nobody gets its requests by a restart
		d.always("/x=zebra", 9*time.Second)
		d.eventually("/x=ant")
		time.Sleep(5 * time.Second)
		pair, _, err := c.KV().Get("k", nil)
		if want := "{\n \"/x\": \"ant\"\n}\n"; err != nil || string(pair.Value) != want {
			t.Errorf("recorded is %q, %v; want %q", pair.Value, err, want)
		}
	})
}

func TestDocumentThatCanNotBeReadIsNotWrittenOverAndNamesDecide(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		put := func(text string) {
			t.Helper()
			if _, err := c.KV().Put(&api.KVPair{Key: "k", Value: []byte(text)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		claim(t, c, "zebra", "/x")
		claim(t, c, "ant", "/x")
		put(`{"/x": "zebra"}`)
		d := learn(t, c, Config{Key: "k"})
		d.eventually("/x=zebra")
		for _, text := range []string{`[]`, `{"/x": 1}`, `{"x": "ant"}`, `{"/x": "a b"}`, `{} {}`, "{"} {
			put(text)
			d.eventually("/x=ant")
			d.always("/x=ant", 5*time.Second)
			if pair, _, err := c.KV().Get("k", nil); err != nil || string(pair.Value) != text {
				t.Errorf("%s was written over with %s (%v)", text, pair.Value, err)
			}
			if trouble := fmt.Sprint(d.Table().Trouble); !strings.Contains(trouble, "want it deleted") {
				t.Errorf("%s: trouble %s; want what to do", text, trouble)
			}
			put(`{"/x": "zebra"}`)
			d.eventually("/x=zebra")
		}
	})
}

func TestNoClaimTakesAnythingFromAPinnedRouteOrTheGateway(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		d := learn(t, c, Config{Pinned: []Route{{Prefix: "/users", Service: "user"}, {Host: "api.example.com", Prefix: "/", Service: "api"}}})
		claim(t, c, "thief", "/users, /users/1, h.example/users/x, api.example.com/v1, /userspace, /, h.example/")
		claim(t, c, "gateway", "/loop")
		d.eventually("/=thief /userspace=thief h.example/=thief")
		time.Sleep(5 * time.Second)
		if n := d.Table().Refusals; n != 5 {
			t.Errorf("%d are refused: %v; want 5", n, d.Table().Refused)
		}
		for _, r := range d.Table().Refused {
			if !strings.Contains(r.Why, "settings have") && !strings.Contains(r.Why, "the gateway itself") {
				t.Errorf("%s is refused for %q", r.Claim, r.Why)
			}
		}
	})
}

func TestRoutesHoldWhileConsulIsAwayAndAfterItWasWiped(t *testing.T) {
	inBubble(t, func(t *testing.T, agent *consultest.Agent, c *api.Client) {
		d := learn(t, c, Config{})
		claim(t, c, "greeter", "/greet")
		d.eventually("/greet=greeter")
		agent.Break("", consultest.Refuse())
		d.always("/greet=greeter", 5*time.Minute)
		if len(d.Table().Trouble) == 0 {
			t.Error("no trouble is told of")
		}
		agent.Mend()
		agent.Wipe()
		d.always("/greet=greeter", 20*time.Second)
		claim(t, c, "greeter", "/greet")
		d.always("/greet=greeter", 5*time.Minute)
		if trouble := d.Table().Trouble; len(trouble) > 0 {
			t.Errorf("trouble %v; want none any more", trouble)
		}
	})
}

func TestServicesAndRoutesAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		var routes []string
		for n := range 20 {
			routes = append(routes, fmt.Sprintf("%%s/r%02d", n))
		}
		for n := range maxServices + 3 {
			name := fmt.Sprintf("s%03d", n)
			claim(t, c, name, strings.ReplaceAll(strings.Join(routes[:6], ","), "%s", "/"+name))
		}
		d := learn(t, c, Config{})
		for end := time.Now().Add(time.Minute); len(d.Table().Routes) < maxOwners; time.Sleep(time.Second) {
			if time.Now().After(end) {
				t.Fatalf("%d routes; want %d", len(d.Table().Routes), maxOwners)
			}
		}
		time.Sleep(10 * time.Second)
		table := d.Table()
		if want := 3 + 6*maxServices - maxOwners; len(table.Routes) != maxOwners || table.Refusals != want || len(table.Refused) != shown {
			t.Errorf("%d routes, %d refused, %d shown; want %d, %d, %d", len(table.Routes), table.Refusals, len(table.Refused), maxOwners, want, shown)
		}
		if !slices.ContainsFunc(table.Refused, func(r Refusal) bool {
			return r.Service == "s202" && strings.Contains(r.Why, "at most 200 services")
		}) {
			t.Errorf("refused are %v; want s202 for being one too many", table.Refused[:5])
		}
	})
}
