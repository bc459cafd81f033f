package watch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestEntryBecomesAnInstance(t *testing.T) {
	e := entry("a", func(e *api.ServiceEntry) {
		e.Service.Tags, e.Service.Meta = []string{"blue"}, map[string]string{"version": "2"}
		e.Service.Locality = &api.Locality{Region: "eu", Zone: "eu-1"}
		e.Service.Weights = api.AgentWeights{Passing: 10, Warning: 3}
	}, check(api.HealthWarning, "hot"))
	got, err := instanceOf("order", e, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := catalog.Instance{
		ID: "a", Service: "order", Node: "node", Host: "host-a", Port: 80, Tags: []string{"blue"}, Meta: map[string]string{"version": "2"},
		Weight: 3, Region: "eu", Zone: "eu-1", State: catalog.StateWarning, Reason: "hot",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}

func TestEntryFieldsFallBack(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*api.ServiceEntry)
		got    func(catalog.Instance) any
		want   any
	}{
		"the node's address": {func(e *api.ServiceEntry) { e.Service.Address = "" }, func(i catalog.Instance) any { return i.Host }, "10.0.0.9"},
		"brackets":           {func(e *api.ServiceEntry) { e.Service.Address = "[2001:db8::1]" }, func(i catalog.Instance) any { return i.Addr() }, "[2001:db8::1]:80"},
		"bare IPv6":          {func(e *api.ServiceEntry) { e.Service.Address = "2001:db8::1" }, func(i catalog.Instance) any { return i.Addr() }, "[2001:db8::1]:80"},
		"the node's zone":    {func(e *api.ServiceEntry) { e.Node.Locality = &api.Locality{Zone: "z"} }, func(i catalog.Instance) any { return i.Zone }, "z"},
		"weight 0":           {func(e *api.ServiceEntry) { e.Service.Weights = api.AgentWeights{} }, func(i catalog.Instance) any { return i.Weight }, 1},
		"weight 0 for warnings": {func(e *api.ServiceEntry) {
			e.Service.Weights = api.AgentWeights{Passing: 10}
			e.Checks[0].Status = "warning"
		}, func(i catalog.Instance) any { return i.Weight }, 1},
		"weight when critical": {func(e *api.ServiceEntry) {
			e.Service.Weights = api.AgentWeights{Passing: 10, Warning: 5}
			e.Checks[0].Status = "critical"
		}, func(i catalog.Instance) any { return i.Weight }, 10},
		"another case of the name": {func(e *api.ServiceEntry) { e.Service.Service = "Order" }, func(i catalog.Instance) any { return i.Service }, "Order"},
		"a proxy":                  {func(e *api.ServiceEntry) { e.Service.Kind = api.ServiceKindConnectProxy }, func(i catalog.Instance) any { return i.Kind }, "connect-proxy"},
		"a named port": {func(e *api.ServiceEntry) {
			e.Service.Port = 0
			e.Service.Ports = api.ServicePorts{{Name: "admin", Port: 81}, {Name: "http", Port: 82, Default: true}}
		}, func(i catalog.Instance) any { return i.Port }, 82},
	} {
		i, err := instanceOf("order", entry("a", c.change), nil)
		if err != nil {
			t.Errorf("%s: got %v", name, err)
		} else if got := c.got(i); got != c.want {
			t.Errorf("%s: got %v; want %v", name, got, c.want)
		}
	}
}

func TestPreferredAddressOfAnEntryIsUsed(t *testing.T) {
	e := entry("a", func(e *api.ServiceEntry) {
		e.Service.TaggedAddresses = map[string]api.ServiceAddress{"lan": {Address: "10.0.0.7"}, "wan": {Address: "192.0.2.7", Port: 443}}
	})
	node := entry("b", func(e *api.ServiceEntry) {
		e.Service.Address, e.Node.TaggedAddresses = "", map[string]string{"wan": "192.0.2.9"}
	})
	both := entry("c", func(e *api.ServiceEntry) { e.Node.TaggedAddresses = map[string]string{"wan": "192.0.2.9"} })
	for _, c := range []struct {
		e      *api.ServiceEntry
		prefer []string
		want   string
	}{
		{e, nil, "host-a:80"},
		{e, []string{"lan"}, "10.0.0.7:80"},
		{e, []string{"wan_ipv6", "wan", "lan"}, "192.0.2.7:443"},
		{e, []string{"virtual"}, "host-a:80"},
		{node, []string{"wan"}, "192.0.2.9:80"},
		{node, nil, "10.0.0.9:80"},
		{both, []string{"wan"}, "host-c:80"}, // as Consul does: the entry's own is nearer than the node's
	} {
		i, err := instanceOf("order", c.e, c.prefer)
		if err != nil {
			t.Fatal(err)
		}
		if got := i.Addr(); got != c.want {
			t.Errorf("prefer %v: got %s; want %s", c.prefer, got, c.want)
		}
	}
	e.Service.TaggedAddresses["wan"] = api.ServiceAddress{Address: "::%x"}
	if _, err := instanceOf("order", e, []string{"wan"}); err == nil || err.Field != "Host" {
		t.Errorf("got %v; want the tagged address refused", err)
	}
}

func TestNamedPortsAreTakenAsOneEntryForEachProtocol(t *testing.T) {
	port := func(name string, port int) api.ServicePort { return api.ServicePort{Name: name, Port: port} }
	main := func(name string, port int) api.ServicePort {
		return api.ServicePort{Name: name, Port: port, Default: true}
	}
	for name, c := range map[string]struct {
		tags  string
		ports api.ServicePorts
		want  string
	}{
		"none":                                     {"v1", nil, "80 v1"},
		"no protocol's":                            {"v1", api.ServicePorts{main("main", 81), port("admin", 82)}, "81 v1"},
		"both":                                     {"v1", api.ServicePorts{main("http", 81), port("grpc", 82)}, "81 v1 http, 82 v1 grpc"},
		"both, and the default is neither":         {"v1 grpc", api.ServicePorts{main("admin", 81), port("grpc", 82), port("http", 83)}, "82 v1 grpc, 83 v1 http"},
		"gRPC alone, as the default":               {"http", api.ServicePorts{main("grpc", 81), port("admin", 82)}, "81 grpc"},
		"gRPC, beside a default for HTTP":          {"v1 grpc", api.ServicePorts{main("main", 81), port("grpc", 82)}, "82 v1 grpc, 81 v1"},
		"HTTP, beside a default":                   {"v1", api.ServicePorts{main("main", 81), port("http", 82)}, "82 v1 http"},
		"HTTP, beside a default tagged as gRPC":    {"http grpc", api.ServicePorts{main("main", 81), port("http", 82)}, "82 http, 81 grpc"},
		"a name twice, which Consul does not take": {"", api.ServicePorts{main("http", 81), port("http", 82)}, "81 http"},
	} {
		e := entry("a", func(e *api.ServiceEntry) {
			e.Service.Tags, e.Service.Ports = strings.Fields(c.tags), c.ports
		})
		u := inUse{service: "order", cfg: &Config{Trace: &Trace{}}}
		var got []string
		for _, i := range u.convert(answer{entries: []*api.ServiceEntry{e}}) {
			got = append(got, strings.TrimSpace(fmt.Sprint(i.Port, " ", strings.Join(i.Tags, " "))))
		}
		if s := strings.Join(got, ", "); s != c.want {
			t.Errorf("%s: got %q; want %q", name, s, c.want)
		}
		if !slices.Equal(e.Service.Tags, strings.Fields(c.tags)) {
			t.Errorf("%s: the entry's own tags are %v by now", name, e.Service.Tags)
		}
	}
	bad := entry("a", func(e *api.ServiceEntry) { e.Service.Ports = api.ServicePorts{main("http", 81), port("grpc", 70000)} })
	if _, err := instanceOf("order", bad, nil); err == nil || err.Field != "Ports" {
		t.Errorf("got %v; want a port that is none refused", err)
	}
}

func TestWorstCheckDecides(t *testing.T) {
	type checks = api.HealthChecks
	c := func(id, status, output string) *api.HealthCheck {
		return &api.HealthCheck{CheckID: id, Status: status, Output: output, Notes: "notes of " + id}
	}
	serf := c("serfHealth", "passing", "Agent alive and reachable")
	for name, k := range map[string]struct {
		checks checks
		state  catalog.State
		reason string
	}{
		"none":                     {nil, catalog.StatePassing, ""},
		"all passing":              {checks{serf, c("http", "passing", "200")}, catalog.StatePassing, ""},
		"a warning":                {checks{serf, c("http", "warning", "429")}, catalog.StateWarning, "429"},
		"critical beats a warning": {checks{c("x", "critical", "down"), serf, c("http", "warning", "429")}, catalog.StateCritical, "down"},
		"the least ID speaks":      {checks{c("b", "critical", "of b"), c("a", "critical", "of a"), c("c", "critical", "of c")}, catalog.StateCritical, "of a"},
		"unknown status":           {checks{c("x", "sleepy", "zzz")}, catalog.StateCritical, "zzz"},
		"no status":                {checks{c("x", "", "zzz")}, catalog.StateCritical, "zzz"},
		"the node is lost":         {checks{c("serfHealth", "critical", "Agent not live or unreachable")}, catalog.StateCritical, "Agent not live or unreachable"},
		"draining":                 {checks{c("order-1:rollcall", "critical", "draining: SIGTERM")}, catalog.StateDraining, "draining: SIGTERM"},
		"draining beats critical":  {checks{c("a", "critical", "down"), c("order-1:rollcall", "critical", "draining")}, catalog.StateDraining, "draining"},
		"TTL expired":              {checks{c("order-1:rollcall", "critical", "TTL expired")}, catalog.StateCritical, "TTL expired"},
		"another's draining":       {checks{c("http", "critical", "draining")}, catalog.StateCritical, "draining"},
		"passing with the word":    {checks{c("order-1:rollcall", "passing", "draining no more")}, catalog.StatePassing, ""},
		"maintenance":              {checks{c("order-1:rollcall", "critical", "draining"), c("_service_maintenance:order-1", "critical", "")}, catalog.StateMaintenance, "notes of _service_maintenance:order-1"},
		"maintenance of the node":  {checks{c("_node_maintenance", "critical", ""), serf}, catalog.StateMaintenance, "notes of _node_maintenance"},
		"nil among them":           {checks{nil, c("x", "warning", "hot")}, catalog.StateWarning, "hot"},
	} {
		state, reason := judge(k.checks)
		if state != k.state || reason != k.reason {
			t.Errorf("%s: got %s %q; want %s %q", name, state, reason, k.state, k.reason)
		}
	}
}

func TestReasonIsBoundedAndValid(t *testing.T) {
	for _, output := range []string{strings.Repeat("é", 10_000), strings.Repeat("\xff", 10_000), "x" + strings.Repeat("世", 400)} {
		_, reason := judge(api.HealthChecks{{CheckID: "x", Status: "critical", Output: output}})
		if len(reason) > maxReason || reason == "" || !utf8.ValidString(reason) {
			t.Errorf("got %d bytes, valid %v; want 1 to %d", len(reason), utf8.ValidString(reason), maxReason)
		}
	}
}

func TestBadEntryIsRefusedOnceAndCostsTheGoodOnesNothing(t *testing.T) {
	bad := map[string]func(*api.ServiceEntry){
		"Port":      func(e *api.ServiceEntry) { e.Service.Port = 70000 },
		"Host":      func(e *api.ServiceEntry) { e.Service.Address = "fe80::1%eth0" },
		"Weight":    func(e *api.ServiceEntry) { e.Service.Weights.Passing = -1 },
		"Meta":      func(e *api.ServiceEntry) { e.Service.Meta = map[string]string{"k": strings.Repeat("v", 70_000)} },
		"ID":        func(e *api.ServiceEntry) { e.Service.ID = "" },
		"Service":   func(e *api.ServiceEntry) { e.Service.Service = "user" },
		"Node":      func(e *api.ServiceEntry) { e.Node = nil },
		"Service/2": func(e *api.ServiceEntry) { e.Service = nil },
	}
	for field, change := range bad {
		t.Run(field, func(t *testing.T) {
			var mu sync.Mutex
			var refused []*catalog.InvalidError
			told := func() []*catalog.InvalidError {
				mu.Lock()
				defer mu.Unlock()
				return slices.Clone(refused)
			}
			trace := &Trace{Refused: func(service string, err *catalog.InvalidError) {
				if service != "order" {
					t.Errorf("told of %q; want order", service)
				}
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, err)
			}}
			n := 0
			follow(t, Config{Trace: trace, AuditEvery: time.Hour}, func(c call) reply {
				n++
				a := reply{index: index(n), leader: true, body: body(entry("a"), entry("bad", change), entry("c"))}
				if n == 7 { // mended
					a.body = body(entry("a"), entry("c"))
				}
				if c.kind == block {
					a.after = 25 * time.Second
				}
				return a
			}, func(t *testing.T, w *Watcher, _ *script) {
				wantLatest(t, w, "a:passing c:passing")
				settle(2 * time.Minute)
				wantLatest(t, w, "a:passing c:passing")
				if got := told(); len(got) != 1 || got[0].Field != strings.TrimSuffix(field, "/2") {
					t.Fatalf("told %v; want once, about %s", got, field)
				}
				settle(2 * time.Minute)
				if got := told(); len(got) != 2 {
					t.Errorf("mended and broken again: told %d times; want 2", len(got))
				}
			})
		})
	}
}

func TestEntryThatComesTwiceCountsOnce(t *testing.T) {
	follow(t, Config{}, func(c call) reply {
		return reply{index: "7", leader: true, hang: c.kind == block, body: body(entry("a"), entry("b"), entry("a"))}
	}, func(t *testing.T, w *Watcher, _ *script) { wantLatest(t, w, "a:passing b:passing") })
}

func TestInvalidErrorOfTheCatalogIsPassedOn(t *testing.T) {
	_, err := instanceOf("order", entry("a", func(e *api.ServiceEntry) { e.Service.Port = 0 }), nil)
	var invalid *catalog.InvalidError
	if !errors.As(fmt.Errorf("x: %w", err), &invalid) || invalid.Field != "Port" || invalid.ID != "a" {
		t.Errorf("got %v; want the catalog's error about Port", err)
	}
}

// TestInstanceUnderTwoNodesIsOneAsItWasWrittenLast is a process that has moved from one
// agent to another: the entry at the first is not beaten any more.
func TestInstanceUnderTwoNodesIsOneAsItWasWrittenLast(t *testing.T) {
	under := func(node string, index uint64, status string) *api.ServiceEntry {
		return entry("order-1", func(e *api.ServiceEntry) {
			e.Node, e.Service.ModifyIndex = &api.Node{Node: node, Address: "10.0.0.1"}, index
			e.Checks = api.HealthChecks{{CheckID: "order-1:rollcall", Status: status}}
		})
	}
	elsewhere := entry("order-1", func(e *api.ServiceEntry) { e.Service.Address = "10.0.0.9" })
	old, fresh := under("first", 7, api.HealthCritical), under("second", 9, api.HealthPassing)
	for _, entries := range [][]*api.ServiceEntry{{old, fresh, elsewhere}, {elsewhere, fresh, old}} {
		u := inUse{service: "order", cfg: &Config{Trace: &Trace{}}}
		set := u.convert(answer{entries: entries})
		if len(set) != 2 {
			t.Fatalf("%d instances; want the one that has moved, and its namesake at another address: %+v", len(set), set)
		}
		for _, i := range set {
			if i.Host != "10.0.0.9" && (i.Node != "second" || i.State != catalog.StatePassing) {
				t.Errorf("got %+v; want it as it was written last", i)
			}
		}
	}
}

func TestInstanceOfAnotherDatacenterHasItsWANAddress(t *testing.T) {
	for want, change := range map[string]func(*api.ServiceEntry){
		"198.51.100.7:8443": func(e *api.ServiceEntry) {
			e.Service.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "198.51.100.7", Port: 8443}}
		},
		"198.51.100.7:80": func(e *api.ServiceEntry) {
			e.Service.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "198.51.100.7"}}
		},
		"198.51.100.9:80": func(e *api.ServiceEntry) {
			e.Service.Address, e.Node.TaggedAddresses = "", map[string]string{"wan": "198.51.100.9"}
		},
		"host-a:80": func(e *api.ServiceEntry) { e.Node.TaggedAddresses = map[string]string{"wan": "198.51.100.9"} },
	} {
		i, err := instanceOf("order", entry("a", change), []string{"wan"})
		if err != nil {
			t.Fatal(err)
		}
		if i.Addr() != want {
			t.Errorf("got %s; want %s", i.Addr(), want)
		}
		if near, _ := instanceOf("order", entry("a", change), nil); near.Addr() == i.Addr() && want != "host-a:80" {
			t.Errorf("in its own datacenter: got %s too", near.Addr())
		}
	}
}
