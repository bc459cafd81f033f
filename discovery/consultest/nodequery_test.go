package consultest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// nodeQuery asks about a node, and returns the index of the answer.
type nodeQuery func(s side, node string, q *api.QueryOptions) (uint64, error)

func servicesOf(s side, node string, q *api.QueryOptions) (uint64, error) {
	_, meta, err := s.Catalog().NodeServiceList(node, q)
	if err != nil {
		return 0, err
	}
	return meta.LastIndex, nil
}

func checksOf(s side, node string, q *api.QueryOptions) (uint64, error) {
	_, meta, err := s.Health().Node(node, q)
	if err != nil {
		return 0, err
	}
	return meta.LastIndex, nil
}

// hold asks with the index of now, and returns what says whether the answer
// came with a higher one.
func (s side) hold(t *testing.T, ask nodeQuery, wait time.Duration) func() bool {
	t.Helper()
	index, err := ask(s, consultest.NodeName, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool, 1)
	go func() {
		got, err := ask(s, consultest.NodeName, &api.QueryOptions{WaitIndex: index, WaitTime: wait})
		if err != nil {
			t.Errorf("a blocking query: %v", err)
		}
		done <- got > index
	}()
	return func() bool { return <-done }
}

// nodeChange is a change, and whether it wakes the queries about the services
// and about the checks of the agent's node.
type nodeChange struct {
	name             string
	services, checks bool
	do               func(s side) error
}

func nodeChanges() []nodeChange {
	far := func(r *api.CatalogRegistration) func(s side) error {
		return func(s side) error {
			r.Node, r.Address = "far", "10.9.9.9"
			_, err := s.Catalog().Register(r, nil)
			return err
		}
	}
	own := func(r *api.AgentServiceRegistration) func(s side) error {
		return func(s side) error { return s.Agent().ServiceRegister(r) }
	}
	changed := order("order-1", 9001, ttl("order-1:rollcall", "passing"))
	changed.Meta = map[string]string{"version": "2"}
	tagged := order("order-1", 9001, ttl("order-1:rollcall", "passing"))
	tagged.Meta, tagged.Tags = changed.Meta, []string{"v2"}
	beat := func(output, status string) func(s side) error {
		return func(s side) error { return s.Agent().UpdateTTL("order-1:rollcall", output, status) }
	}
	return []nodeChange{
		{"a service comes", true, true, own(order("order-1", 9001, ttl("order-1:rollcall", "passing")))},
		{"another service comes, without a check", true, false, own(&api.AgentServiceRegistration{ID: "plain", Name: "plain", Port: 1})},
		{"the same is registered again", false, false, own(order("order-1", 9001, ttl("order-1:rollcall", "passing")))},
		{"its meta changes", true, false, own(changed)},
		{"its tags change, which its check has too", true, true, own(tagged)},
		{"its check fails", false, true, beat("down", "fail")},
		{"its check passes", false, true, beat("up", "pass")},
		{"the same beat", false, false, beat("up", "pass")},
		{"another output", false, false, beat("up, really", "pass")},
		{"maintenance begins", false, true, func(s side) error { return s.Agent().EnableServiceMaintenance("order-1", "disk") }},
		{"maintenance ends", false, true, func(s side) error { return s.Agent().DisableServiceMaintenance("order-1") }},
		{"a service of another node changes", false, false, far(&api.CatalogRegistration{Service: &api.AgentService{ID: "order-far", Service: "order", Port: 8}})},
		{"a check of another node changes", false, false, far(&api.CatalogRegistration{Check: &api.AgentCheck{CheckID: "far:1", Name: "one", Status: "critical", ServiceID: "order-far"}})},
		{"the node's meta changes", true, false, func(s side) error {
			_, err := s.Catalog().Register(&api.CatalogRegistration{Node: consultest.NodeName, Address: "127.0.0.1", NodeMeta: map[string]string{"a": "b"}}, nil)
			return err
		}},
		{"its check goes", false, true, func(s side) error { return s.Agent().CheckDeregister("order-1:rollcall") }},
		{"a service without a check goes", true, false, func(s side) error { return s.Agent().ServiceDeregister("plain") }},
		{"its check comes back", false, true, own(tagged)},
		{"a service is taken out of the catalog", true, true, func(s side) error {
			_, err := s.Catalog().Deregister(&api.CatalogDeregistration{Node: consultest.NodeName, ServiceID: "order-1"}, nil)
			return err
		}},
	}
}

func TestNodeQueriesWakeAsConsulsDo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	wait := map[bool]time.Duration{true: time.Minute, false: 1500 * time.Millisecond}
	for _, s := range []side{p.theirs, p.ours} {
		// It is there from the start: a node that comes or goes may wake a real
		// query for the checks of another.
		if _, err := s.Catalog().Register(&api.CatalogRegistration{
			Node: "far", Address: "10.9.9.9",
			Service: &api.AgentService{ID: "order-far", Service: "order", Port: 7},
			Checks:  api.HealthChecks{{CheckID: "far:1", Name: "one", Status: "passing", ServiceID: "order-far"}},
		}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range nodeChanges() {
		var results [2]func() string
		for i, s := range []side{p.theirs, p.ours} {
			services, checks := s.hold(t, servicesOf, wait[c.services]), s.hold(t, checksOf, wait[c.checks])
			results[i] = func() string { return fmt.Sprintf("services %v, checks %v", services(), checks()) }
		}
		time.Sleep(300 * time.Millisecond) // so that they wait
		for _, s := range []side{p.theirs, p.ours} {
			if err := c.do(s); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		want := fmt.Sprintf("services %v, checks %v", c.services, c.checks)
		for i, who := range []string{"Consul", "the fake"} {
			if got := results[i](); got != want {
				t.Errorf("%s: %s woke %s; want %s", c.name, who, got, want)
			}
		}
	}
}

func TestNodeQueriesAnswerAsConsulsDo(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, s := range []side{p.theirs, p.ours} {
		register(t, s.Client, order("order-1", 9001, ttl("order-1:rollcall", "passing")))
		register(t, s.Client, order("order-2", 9002, ttl("order-2:rollcall", "passing")))
	}
	services := func(node, filter string) func(side) any {
		return func(s side) any {
			v, _, err := s.Catalog().NodeServiceList(node, &api.QueryOptions{Filter: filter})
			if v != nil {
				for _, k := range v.Services {
					if k.ID == "consul" {
						k.Port, k.Meta = 0, nil // of the machine
					}
				}
			}
			return both(v, err)
		}
	}
	checks := func(node, filter string) func(side) any {
		return func(s side) any {
			v, _, err := s.Health().Node(node, &api.QueryOptions{Filter: filter})
			return both(v, err)
		}
	}
	headers := func(path string) func(side) any {
		return func(s side) any {
			res, body := s.get(path)
			out := map[string]string{"status": res.Status}
			if res.StatusCode != 200 || len(body) < 60 {
				out["body"] = body
			}
			for _, h := range []string{"Content-Type", "X-Consul-Knownleader", "X-Consul-Lastcontact", "X-Consul-Effective-Consistency", "X-Consul-Query-Backend", "X-Consul-Results-Filtered-By-Acls", "X-Consul-Default-Acl-Policy"} {
				out[h] = res.Header.Get(h)
			}
			out["index"] = fmt.Sprint(res.Header.Get("X-Consul-Index") != "")
			return out
		}
	}
	for _, st := range []step{
		{"services", services("consul", "")},
		{"one service", services("consul", `ID == "order-2"`)},
		{"two services", services("consul", `ID == "order-2" or ID == "order-1" or ID == "nobody"`)},
		{"no service", services("consul", `ID == "nobody"`)},
		{"services of an unknown node", services("nowhere", "")},
		{"filtered services of an unknown node", services("nowhere", `ID == "order-1"`)},
		{"checks", checks("consul", "")},
		{"checks of a service", checks("consul", `ServiceID == "order-2"`)},
		{"checks of two services", checks("consul", `ServiceID == "order-2" or ServiceID == "order-1"`)},
		{"checks by ID or status", checks("consul", `CheckID == "serfHealth" or Status == "critical"`)},
		{"checks of an unknown node", checks("nowhere", "")},
		{"headers of services", headers("/v1/catalog/node-services/consul")},
		{"headers of checks", headers("/v1/health/node/consul")},
		{"headers of stale services", headers("/v1/catalog/node-services/consul?stale")},
		{"headers of a blocking query for services", headers("/v1/catalog/node-services/consul?index=1&stale&wait=1s")},
		{"headers of a blocking query for checks", headers("/v1/health/node/consul?index=1&wait=1s")},
		{"services of no node", headers("/v1/catalog/node-services/")},
		{"checks of no node", headers("/v1/health/node/")},
		{"an unknown node in full", headers("/v1/catalog/node-services/nowhere")},
		{"an unknown node in full, filtered", headers("/v1/catalog/node-services/nowhere?filter=ID+==+%22x%22")},
		{"an unknown node's checks in full", headers("/v1/health/node/nowhere")},
		{"a filter by what is no field", func(s side) any {
			_, _, err := s.Catalog().NodeServiceList("consul", &api.QueryOptions{Filter: `ServiceID == "x"`})
			_, _, err2 := s.Health().Node("consul", &api.QueryOptions{Filter: `ID == "x"`})
			return []string{said(err), said(err2)}
		}},
		{"the index told after another node's check has changed", func(s side) any {
			far := func(status string) error {
				_, err := s.Catalog().Register(&api.CatalogRegistration{Node: "far", Address: "10.9.9.9", Check: &api.AgentCheck{CheckID: "c", Name: "c", Status: status}}, nil)
				return err
			}
			err1 := far("passing") // a node that comes may wake a real query
			index, err := checksOf(s, "consul", nil)
			back := make(chan uint64, 1)
			go func() {
				got, err := checksOf(s, "consul", &api.QueryOptions{WaitIndex: index, WaitTime: 1500 * time.Millisecond})
				if err != nil {
					t.Error(err)
				}
				back <- got
			}()
			time.Sleep(300 * time.Millisecond)
			err2 := far("critical")
			first := <-back
			again, err3 := checksOf(s, "consul", &api.QueryOptions{WaitIndex: index, WaitTime: time.Minute})
			return fmt.Sprint(err1, err, err2, err3, first == index, again > index)
		}},
		{"a node that comes", func(s side) any {
			back := make(chan string, 1)
			go func() {
				v, _, err := s.Catalog().NodeServiceList("late", &api.QueryOptions{WaitIndex: 1, WaitTime: time.Minute})
				back <- fmt.Sprint(err == nil && v != nil && v.Node != nil)
			}()
			time.Sleep(300 * time.Millisecond)
			_, err := s.Catalog().Register(&api.CatalogRegistration{Node: "late", Address: "10.9.9.9"}, nil)
			return fmt.Sprint(<-back, err)
		}},
	} {
		want := make(chan any, 1)
		go func() { want <- st.do(p.theirs) }()
		got := st.do(p.ours)
		if diff := differ(<-want, got); diff != "" {
			t.Errorf("%s: the fake's answer differs from Consul's (-consul +fake):\n%s", st.name, diff)
		}
	}
}
