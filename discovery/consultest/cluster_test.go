package consultest_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// nodesOf returns the nodes that have an instance of order, as node/ID.
func nodesOf(t *testing.T, c *api.Client) []string {
	t.Helper()
	v, _ := entries(t, c, nil)
	var out []string
	for _, e := range v {
		out = append(out, e.Node.Node+"/"+e.Service.ID)
	}
	slices.Sort(out)
	return out
}

func TestAgentsOfAClusterKeepTheirOwnServicesAsConsulsDo(t *testing.T) {
	t.Parallel()
	server := consultest.Real(t)
	first := consultest.New(t)
	theirs := [2]*api.Client{server.Client(), server.Agent().Client()}
	ours := [2]*api.Client{first.Client(), first.AddAgent(t, consultest.AgentNodeName).Client()}

	text := func(err error) any { return said(err) }
	steps := []struct {
		name string
		do   func(c [2]*api.Client) any
	}{
		{"names", func(c [2]*api.Client) any {
			a, err := c[0].Agent().NodeName()
			b, err2 := c[1].Agent().NodeName()
			return fmt.Sprint(a, b, err, err2)
		}},
		{"addresses", func(c [2]*api.Client) any {
			var out []any
			for _, c := range c {
				v, err := c.Agent().Self()
				out = append(out, v["Member"]["Addr"], v["Member"]["Name"], v["Config"]["Datacenter"], v["Config"]["Server"], v["DebugConfig"]["AdvertiseAddrLAN"], said(err))
			}
			return out
		}},
		{"register at the second", func(c [2]*api.Client) any {
			return text(c[1].Agent().ServiceRegister(order("order-1", 9001, ttl("order-1:t", "passing"))))
		}},
		{"the first has no such service", func(c [2]*api.Client) any { return both(c[0].Agent().Services()) }},
		{"nor such a check", func(c [2]*api.Client) any { return text(c[0].Agent().UpdateTTL("order-1:t", "", "pass")) }},
		{"nor can it deregister it", func(c [2]*api.Client) any { return text(c[0].Agent().ServiceDeregister("order-1")) }},
		{"the second has it", func(c [2]*api.Client) any { return both(c[1].Agent().Services()) }},
		{"both see it in the catalog", func(c [2]*api.Client) any {
			a, _, err := c[0].Health().Service("order", "", false, nil)
			b, _, err2 := c[1].Health().Service("order", "", false, nil)
			return []any{a, b, said(err), said(err2)}
		}},
		{"the same ID at the first too", func(c [2]*api.Client) any {
			return text(c[0].Agent().ServiceRegister(order("order-1", 9002, ttl("order-1:t", "passing"))))
		}},
		{"is another entry", func(c [2]*api.Client) any {
			a, _, err := c[1].Health().Service("order", "", false, nil)
			return both(a, err)
		}},
		{"of the node", func(c [2]*api.Client) any {
			a, _, err := c[1].Catalog().NodeServiceList(consultest.AgentNodeName, nil)
			return both(a, err)
		}},
		{"fails at the second only", func(c [2]*api.Client) any { return text(c[1].Agent().UpdateTTL("order-1:t", "down", "fail")) }},
		{"health then", func(c [2]*api.Client) any {
			a, _, err := c[0].Health().Service("order", "", false, nil)
			return both(a, err)
		}},
		{"goes from the second only", func(c [2]*api.Client) any { return text(c[1].Agent().ServiceDeregister("order-1")) }},
		{"the first's is left", func(c [2]*api.Client) any {
			a, _, err := c[1].Health().Service("order", "", false, nil)
			return both(a, err)
		}},
	}
	for _, st := range steps {
		// A write by way of a client agent shows a moment later.
		var diff string
		ours := st.do(ours)
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if diff = differ(st.do(theirs), ours); diff == "" {
				break
			}
		}
		if diff != "" {
			t.Errorf("%s: the fake's answer differs from Consul's (-consul +fake):\n%s", st.name, diff)
		}
	}
}

func TestWipedServersForgetTheServicesOfEachAgent(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		b := a.AddAgent(t, "second")
		far := b.Client()
		register(t, c, beaten("order-1"))
		register(t, far, beaten("order-2"))
		a.WipeServers()
		if got := nodesOf(t, c); len(got) != 0 {
			t.Errorf("got %v after the wipe; want none", got)
		}
		b.Sync()
		if got, want := nodesOf(t, c), []string{"second/order-2"}; !slices.Equal(got, want) {
			t.Errorf("got %v after one agent's anti-entropy; want %v", got, want)
		}
		a.Sync()
		b.Wipe()
		if got, want := nodesOf(t, far), []string{"consul/order-1"}; !slices.Equal(got, want) {
			t.Errorf("got %v after one agent was wiped; want %v", got, want)
		}
		a.LoseLeader()
		done := make(chan error, 1)
		go func() { done <- far.Agent().ServiceRegister(beaten("order-3")) }()
		synctest.Wait()
		a.ElectLeader()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got, want := nodesOf(t, c), []string{"consul/order-1", "second/order-3"}; !slices.Equal(got, want) {
			t.Errorf("got %v after a leader was elected; want %v", got, want)
		}
		b.Break("", consultest.Refuse())
		if _, err := far.Status().Leader(); err == nil {
			t.Error("a broken agent answered")
		}
		if _, err := c.Status().Leader(); err != nil {
			t.Errorf("the other agent: %v", err)
		}
	})
}

func TestNodeAddressIsSeenInSelfAndCatalog(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.SetNodeAddress("10.0.0.5")
		for range 2 {
			v, err := c.Agent().Self()
			if err != nil {
				t.Fatal(err)
			}
			if got := v["Member"]["Addr"]; got != "10.0.0.5" {
				t.Errorf("got the address %v; want 10.0.0.5", got)
			}
			n, _, err := c.Catalog().NodeServiceList(consultest.NodeName, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n.Node.Address != "10.0.0.5" {
				t.Errorf("got the catalog's address %s; want 10.0.0.5", n.Node.Address)
			}
			a.WipeServers() // keeps it
		}
	})
}

func TestBalancerLeadsNewConnectionsWhereItIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, _ *api.Client) {
		b := a.AddAgent(t, "second")
		lb := consultest.NewBalancer(a, b)
		name := func(c *api.Client) string {
			t.Helper()
			v, err := c.Agent().Self() // NodeName remembers
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(v["Config"]["NodeName"])
		}
		expect := func(c *api.Client, want string) {
			t.Helper()
			if got := name(c); got != want {
				t.Errorf("the connection leads to %s; want %s", got, want)
			}
		}
		c1, c2, c3 := lb.Client(), lb.Client(), lb.Client()
		for range 2 { // a connection stays where it is
			expect(c1, "consul")
			expect(c2, "second")
			expect(c3, "consul")
		}
		if n, m := lb.Connections(a), lb.Connections(b); n != 2 || m != 1 {
			t.Errorf("got %d and %d connections; want 2 and 1", n, m)
		}
		lb.LeadTo(b)
		expect(c1, "consul")
		expect(lb.Client(), "second")
		lb.Cut()
		synctest.Wait() // until the clients know
		expect(c1, "second")
		expect(c3, "second")
		if n := lb.Connections(a); n != 0 {
			t.Errorf("got %d connections to the first; want 0", n)
		}
		lb.LeadTo()
		expect(lb.Client(), "consul")
		expect(lb.Client(), "second")

		b.Break("", consultest.Refuse())
		lb.LeadTo(b)
		if res, err := lb.HTTPClient().Get("http://" + consultest.Address + "/v1/status/leader"); err == nil {
			res.Body.Close()
			t.Errorf("an agent that refuses answered %s through the balancer", http.StatusText(res.StatusCode))
		}
	})
}
