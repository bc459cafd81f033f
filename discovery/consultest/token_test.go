package consultest_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

const (
	tokenA = "aaaaaaaa-0000-4000-8000-00000000000a" // deleted in the course of a test
	tokenB = "bbbbbbbb-0000-4000-8000-00000000000b" // which takes its place
	tokenS = "cccccccc-0000-4000-8000-00000000000c" // without node:read
)

// guarded is one of two Consuls with ACLs.
type guarded struct {
	all, a, b, s, none *api.Client
	add, del           func(token string)
}

func guard(t *testing.T) (theirs, ours guarded) {
	t.Helper()
	server, agent := consultest.RealWithACLs(t), consultest.New(t)
	acl := server.Client().ACL()
	for name, rules := range map[string]string{
		"watching":    `service_prefix "" { policy = "write" } node_prefix "" { policy = "read" }`,
		"registering": `service_prefix "" { policy = "write" }`,
	} {
		if _, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil); err != nil {
			t.Fatal(err)
		}
	}
	accessor := map[string]string{}
	create := func(token, policy string) {
		made, _, err := acl.TokenCreate(&api.ACLToken{SecretID: token, Policies: []*api.ACLLink{{Name: policy}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		accessor[token] = made.AccessorID
	}
	create(tokenS, "registering")
	agent.Token(tokenS, "service:write")
	theirs = guarded{
		server.Client(), server.ClientWith(tokenA), server.ClientWith(tokenB), server.ClientWith(tokenS), server.ClientWith(""),
		func(token string) { create(token, "watching") },
		func(token string) {
			if _, err := acl.TokenDelete(accessor[token], nil); err != nil {
				t.Fatal(err)
			}
		},
	}
	ours = guarded{
		agent.Client(), agent.ClientWith(tokenA), agent.ClientWith(tokenB), agent.ClientWith(tokenS), agent.ClientWith(""),
		func(token string) { agent.Tokens(token) }, agent.DeleteToken,
	}
	for _, g := range []guarded{theirs, ours} {
		g.add(tokenA)
		g.add(tokenB)
	}
	return theirs, ours
}

var accessorShape = regexp.MustCompile(`AccessorID '[^']*'`)

// answers is what a client with some token hears of everything that it may ask.
func answers(c *api.Client) any {
	var out []string
	tell := func(what string, n int, meta *api.QueryMeta, err error) {
		filtered := meta != nil && meta.ResultsFilteredByACLs
		out = append(out, accessorShape.ReplaceAllString(fmt.Sprintf("%s: %d, filtered %v, %s", what, n, filtered, said(err)), "AccessorID"))
	}
	_, err := c.Agent().Self()
	tell("self", 0, nil, err)
	services, err := c.Agent().Services()
	tell("the agent's services", len(services), nil, err)
	checks, err := c.Agent().Checks()
	tell("the agent's checks", len(checks), nil, err)
	entries, meta, err := c.Health().Service("order", "", false, nil)
	tell("health", len(entries), meta, err)
	list, meta, err := c.Catalog().NodeServiceList(consultest.NodeName, nil)
	n := 0
	if list != nil {
		n = len(list.Services)
		out = append(out, fmt.Sprint("a node: ", list.Node != nil))
	}
	tell("the node's services", n, meta, err)
	of, meta, err := c.Health().Node(consultest.NodeName, nil)
	tell("the node's checks", len(of), meta, err)
	instances, meta, err := c.Catalog().Service("order", "", nil)
	tell("the catalog's instances", len(instances), meta, err)
	of, meta, err = c.Health().Checks("order", nil)
	tell("the service's checks", len(of), meta, err)
	of, meta, err = c.Health().State("any", nil)
	tell("all checks", len(of), meta, err)
	leader, err := c.Status().Leader()
	out = append(out, fmt.Sprint("a leader: ", leader != "", " ", said(err)))
	tell("register", 0, nil, c.Agent().ServiceRegister(order("order-9", 9, ttl("order-9:t", "passing"))))
	tell("update", 0, nil, c.Agent().UpdateTTL("order-9:t", "", "pass"))
	tell("update of nobody", 0, nil, c.Agent().UpdateTTL("nobody", "", "pass"))
	tell("maintenance", 0, nil, c.Agent().EnableServiceMaintenance("order-9", "x"))
	tell("maintenance of the node", 0, nil, c.Agent().EnableNodeMaintenance("x"))
	tell("deregister a check", 0, nil, c.Agent().CheckDeregister("order-9:t"))
	tell("deregister of nobody", 0, nil, c.Agent().ServiceDeregister("nobody"))
	return out
}

func TestTokensOpenWhatConsulsDo(t *testing.T) {
	t.Parallel()
	theirs, ours := guard(t)
	for _, g := range []guarded{theirs, ours} {
		register(t, g.a, order("order-9", 9, ttl("order-9:t", "passing")))
		g.del(tokenA)
	}
	for _, c := range []struct {
		name         string
		theirs, ours *api.Client
	}{
		{"no token", theirs.none, ours.none},
		{"a deleted token", theirs.a, ours.a},
		{"a token without node:read", theirs.s, ours.s},
		{"a token that may watch", theirs.b, ours.b},
	} {
		if diff := differ(answers(c.theirs), answers(c.ours)); diff != "" {
			t.Errorf("%s: the fake's answers differ from Consul's (-consul +fake):\n%s", c.name, diff)
		}
	}
}

func TestEntryKeepsTheTokenThatRegisteredItAsInConsul(t *testing.T) {
	t.Parallel()
	theirs, ours := guard(t)
	update := func(output, status string) func(c *api.Client) error {
		return func(c *api.Client) error { return c.Agent().UpdateTTL("order-1:t", output, status) }
	}
	put := func(c *api.Client) error {
		return c.Agent().ServiceRegister(order("order-1", 9001, ttl("order-1:t", "passing")))
	}
	drop := func(c *api.Client) error { return c.Agent().ServiceDeregister("order-1") }
	with := func(token string, do func(*api.Client) error) func(g guarded) any {
		return func(g guarded) any {
			c := map[string]*api.Client{"a": g.a, "b": g.b}[token]
			return said(do(c))
		}
	}
	for _, st := range []struct {
		name string
		do   func(g guarded) any
	}{
		{"register with the old token", with("a", put)},
		{"the old token is deleted", func(g guarded) any { g.del(tokenA); return nil }},
		{"an update with it", with("a", update("down", "fail"))},
		{"an update with the new one", with("b", update("down", "fail"))},
		{"which the agent shows, and the catalog does not", func(g guarded) any {
			v, err := g.b.Agent().Checks()
			return both(v["order-1:t"].Status, err)
		}},
		{"register with the new token", with("b", put)},
		{"another status", with("b", update("hm", "warn"))},
		{"the old token again", func(g guarded) any { g.add(tokenA); return nil }},
		{"register with it", with("a", put)},
		{"it is deleted again", func(g guarded) any { g.del(tokenA); return nil }},
		{"deregister with the new one", with("b", drop)},
		{"once more", with("b", drop)},
	} {
		want, got := st.do(theirs), st.do(ours)
		if diff := differ(want, got); diff != "" {
			t.Errorf("%s: the fake's answer differs from Consul's (-consul +fake):\n%s", st.name, diff)
		}
		if st.name == "register with the new token" {
			continue // Consul's anti-entropy may be about to write what was given up
		}
		catalog := func(g guarded) any {
			v, _, err := g.all.Health().Service("order", "", false, nil)
			return both(v, err)
		}
		var diff string
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if diff = differ(catalog(theirs), catalog(ours)); diff == "" {
				break
			}
		}
		if diff != "" {
			t.Errorf("%s: the fake's catalog differs from Consul's (-consul +fake):\n%s", st.name, diff)
		}
	}
}

func TestHeldQueriesEndAsConsulsDoWhenTheirTokenIsDeleted(t *testing.T) {
	t.Parallel()
	theirs, ours := guard(t)
	play := func(g guarded) string {
		if err := g.b.Agent().ServiceRegister(order("order-1", 9001, ttl("order-1:t", "passing"))); err != nil {
			return err.Error()
		}
		var out []chan string
		hold := func(wait time.Duration, ask func(q *api.QueryOptions) (*api.QueryMeta, error)) {
			meta, err := ask(nil)
			if err != nil {
				out = append(out, make(chan string, 1))
				out[len(out)-1] <- said(err)
				return
			}
			back := make(chan string, 1)
			out = append(out, back)
			go func() {
				later, err := ask(&api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: wait})
				same := later != nil && later.LastIndex == meta.LastIndex
				back <- fmt.Sprint(same, " ", said(err))
			}()
		}
		hold(time.Minute, func(q *api.QueryOptions) (*api.QueryMeta, error) {
			_, meta, err := g.a.Health().Service("order", "", false, q)
			return meta, err
		})
		hold(time.Minute, func(q *api.QueryOptions) (*api.QueryMeta, error) {
			_, meta, err := g.a.Health().Node(consultest.NodeName, q)
			return meta, err
		})
		hold(3*time.Second, func(q *api.QueryOptions) (*api.QueryMeta, error) {
			_, meta, err := g.a.Catalog().NodeServiceList(consultest.NodeName, q)
			return meta, err
		})
		time.Sleep(500 * time.Millisecond) // so that they wait
		g.del(tokenA)
		answers := []string{<-out[0]} // before anything changes
		if err := g.b.Agent().UpdateTTL("order-1:t", "", "fail"); err != nil {
			answers = append(answers, err.Error())
		}
		return strings.Join(append(answers, <-out[1], <-out[2]), "; ")
	}
	want := make(chan string, 1)
	go func() { want <- play(theirs) }()
	got := play(ours)
	if diff := differ(<-want, got); diff != "" {
		t.Errorf("the fake's answers differ from Consul's (-consul +fake):\n%s", diff)
	}
}

func TestWhatADeletedTokenWroteLastIsMendedByAnotherChangeOnly(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.Tokens(tokenA, tokenB)
		old, fresh := a.ClientWith(tokenA), a.ClientWith(tokenB)
		status := func(want string) {
			t.Helper()
			if got := check(t, c, "order-1:beat").Status; got != want {
				t.Errorf("the catalog says %s; want %s", got, want)
			}
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		register(t, old, beaten("order-1"))
		a.DeleteToken(tokenA)
		if _, err := old.Agent().Services(); said(err) != fmt.Sprint(http.StatusForbidden, " ACL not found") {
			t.Errorf("a deleted token: got %v; want 403", err)
		}
		do(fresh.Agent().UpdateTTL("order-1:beat", "", "fail"))
		status("passing")
		a.Sync()
		status("passing")
		register(t, fresh, beaten("order-1")) // the same entry: nothing to write
		status("passing")
		do(fresh.Agent().UpdateTTL("order-1:beat", "", "warn"))
		status("warning")

		a.Tokens(tokenA)
		register(t, old, beaten("order-1"))
		a.DeleteToken(tokenA)
		do(fresh.Agent().UpdateTTL("order-1:beat", "", "fail"))
		register(t, fresh, beaten("order-1"))
		status("warning")
		a.Sync() // anti-entropy finds it
		status("critical")

		a.Tokens(tokenA)
		register(t, old, beaten("order-1"))
		a.DeleteToken(tokenA)
		a.WipeServers()
		a.Sync()
		if got := nodesOf(t, c); len(got) != 0 {
			t.Errorf("a deleted token wrote %v into a wiped catalog", got)
		}
	})
}
