package consultest_test

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

type step struct {
	name string
	do   func(s side) any
}

func script() []step {
	agent := func(s side) *api.Agent { return s.Agent() }
	health := func(s side) any { return s.health(nil) }
	checks := func(s side) any { return both(agent(s).Checks()) }
	services := func(s side) any { return both(agent(s).Services()) }
	errOf := func(do func(s side) error) func(side) any {
		return func(s side) any { return said(do(s)) }
	}
	register := func(r *api.AgentServiceRegistration) func(side) any {
		return errOf(func(s side) error { return agent(s).ServiceRegister(r) })
	}
	headers := func(path string) func(side) any {
		return func(s side) any {
			res, body := s.get(path)
			out := map[string]string{"status": res.Status}
			if strings.HasPrefix(path, "/v1/agent/service/") || res.StatusCode != http.StatusOK {
				out["body"] = strings.TrimSpace(body)
			}
			for _, h := range []string{"Content-Type", "X-Consul-Knownleader", "X-Consul-Lastcontact", "X-Consul-Effective-Consistency", "X-Consul-Query-Backend", "X-Consul-Results-Filtered-By-Acls", "X-Consul-Default-Acl-Policy"} {
				out[h] = res.Header.Get(h)
			}
			out["index"] = fmt.Sprint(res.Header.Get("X-Consul-Index") != "")
			return out
		}
	}
	key := func(s side) any {
		pair, _, err := s.KV().Get("rollcall/x", nil)
		if pair == nil {
			return both(nil, err)
		}
		return both(pair.Key+"="+string(pair.Value), err)
	}
	put := func(value string, index uint64) func(side) any {
		return func(s side) any {
			written, _, err := s.KV().CAS(&api.KVPair{Key: "rollcall/x", Value: []byte(value), ModifyIndex: index}, nil)
			return both(written, err)
		}
	}
	wokenByKey := func(changed string, wait time.Duration) func(side) any {
		return func(s side) any {
			pair, _, err := s.KV().Get("rollcall/x", nil)
			if err != nil {
				return said(err)
			}
			done := make(chan bool, 1)
			go func() {
				now, _, err := s.KV().Get("rollcall/x", &api.QueryOptions{WaitIndex: pair.ModifyIndex, WaitTime: wait})
				done <- err == nil && now.ModifyIndex > pair.ModifyIndex
			}()
			time.Sleep(200 * time.Millisecond) // so that the query waits
			_, err = s.KV().Put(&api.KVPair{Key: changed, Value: []byte("news")}, nil)
			return both(<-done, err)
		}
	}
	return []step{
		{"health of what nobody offers", health},
		{"leader", func(s side) any { l, err := s.Status().Leader(); return both(l != "", err) }},
		{"register with two checks", register(order("order-1", 9001, probe("passing"), ttl("order-1:rollcall", "passing")))},
		{"health", health},
		{"services of the agent", services},
		{"checks of the agent", checks},
		{"one check by filter", func(s side) any { return both(agent(s).ChecksWithFilter(`CheckID == "order-1:rollcall"`)) }},
		{"services by filter", func(s side) any { return both(agent(s).ServicesWithFilter(`ID == "nobody"`)) }},
		{"one service of the agent", func(s side) any {
			v, _, err := agent(s).Service("order-1", nil)
			if v != nil {
				v.ContentHash = fmt.Sprint(v.ContentHash != "")
			}
			return both(v, err)
		}},
		{"unknown service of the agent", func(s side) any { _, _, err := agent(s).Service("nobody", nil); return said(err) }},
		{"register a second", register(order("order-2", 9002, ttl("order-2:rollcall", "")))},
		{"health of two", health},
		{"only passing", func(s side) any { v, _, err := s.Health().Service("order", "", true, nil); return both(v, err) }},
		{"by tag", func(s side) any { return s.health(nil, "BLUE") }},
		{"by two tags", func(s side) any { return s.health(nil, "v1", "green") }},
		{"by ID", func(s side) any { return s.health(&api.QueryOptions{Filter: `Service.ID == "order-2"`}) }},
		{"audit", func(s side) any {
			return s.health(&api.QueryOptions{Filter: `Service.ID == "~"`, AllowStale: true})
		}},
		{"bad filter", func(s side) any {
			_, _, err := s.Health().Service("order", "", false, &api.QueryOptions{Filter: `Nonsense == "x"`})
			return strings.Contains(said(err), "Selector \"Nonsense\" is not valid") && strings.HasPrefix(said(err), "500")
		}},
		{"headers", headers("/v1/health/service/order")},
		{"headers of a stale query", headers("/v1/health/service/order?stale")},
		{"headers of a consistent query", headers("/v1/health/service/order?consistent")},
		{"headers of a blocking query", headers("/v1/health/service/order?index=1&wait=1s")},
		{"headers of a stale blocking query", headers("/v1/health/service/order?index=1&wait=1s&stale")},
		{"headers of what nobody offers", headers("/v1/health/service/nobody")},
		{"headers of the leader", headers("/v1/status/leader")},
		{"headers of the agent's services", headers("/v1/agent/services")},
		{"headers of the catalog's services", headers("/v1/catalog/services")},
		{"a wait that is no wait", headers("/v1/health/service/order?index=1&wait=soon")},
		{"an index that is no index", headers("/v1/health/service/order?index=x")},
		{"an unknown path", headers("/v1/nonsense")},

		{"pass", errOf(func(s side) error { return agent(s).UpdateTTL("order-2:rollcall", "ready", "pass") })},
		{"health after pass", health},
		{"the same beat moves no index", func(s side) any {
			return s.moved("order", func() error { return agent(s).UpdateTTL("order-2:rollcall", "ready", "pass") })
		}},
		{"nor does another output", func(s side) any {
			return s.moved("order", func() error { return agent(s).UpdateTTL("order-2:rollcall", "ready, really", "pass") })
		}},
		{"health is unchanged then", health},
		{"but the agent knows", checks},
		{"another status moves it", func(s side) any {
			return s.moved("order", func() error { return agent(s).UpdateTTL("order-2:rollcall", "draining", "fail") })
		}},
		{"health after fail", health},
		{"update of an unknown check", errOf(func(s side) error { return agent(s).UpdateTTL("nobody", "", "pass") })},
		{"update of a check that is no TTL check", errOf(func(s side) error { return agent(s).UpdateTTL("service:order-1:1", "", "pass") })},
		{"warn by the old way", errOf(func(s side) error { return agent(s).WarnTTL("order-2:rollcall", "hm") })},
		{"pass by the old way", errOf(func(s side) error { return agent(s).PassTTL("order-2:rollcall", "good") })},
		{"health after those", health},

		{"registering the same moves no index", func(s side) any {
			return s.moved("order", func() error {
				return agent(s).ServiceRegister(order("order-2", 9002, ttl("order-2:rollcall", "critical")))
			})
		}},
		{"and keeps the status", health},
		{"another port moves it", func(s side) any {
			return s.moved("order", func() error {
				return agent(s).ServiceRegister(order("order-2", 9003, ttl("order-2:rollcall", "critical")))
			})
		}},
		{"with fewer checks", register(order("order-2", 9003))},
		{"keeps the old ones", health},
		{"one check without an ID", func(s side) any {
			r := order("order-3", 9004)
			r.Check = &api.AgentServiceCheck{TTL: "1h", Name: "beat"}
			return said(agent(s).ServiceRegister(r))
		}},
		{"its check has the service's ID", checks},

		{"maintenance", errOf(func(s side) error { return agent(s).EnableServiceMaintenance("order-2", "disk swap") })},
		{"health in maintenance", health},
		{"a second reason is not heard", errOf(func(s side) error { return agent(s).EnableServiceMaintenance("order-2", "again") })},
		{"plain register keeps it", register(order("order-2", 9003))},
		{"health still in maintenance", health},
		{"replacing checks ends it", errOf(func(s side) error {
			return agent(s).ServiceRegisterOpts(order("order-2", 9003, ttl("order-2:other", "passing")), api.ServiceRegisterOpts{ReplaceExistingChecks: true})
		})},
		{"health out of maintenance", health},
		{"maintenance without a reason", errOf(func(s side) error { return agent(s).EnableServiceMaintenance("order-2", "") })},
		{"maintenance of the node", errOf(func(s side) error { return agent(s).EnableNodeMaintenance("reboot") })},
		{"health in both", health},
		{"checks in both", checks},
		{"end of the node's", errOf(func(s side) error { return agent(s).DisableNodeMaintenance() })},
		{"maintenance of nobody", errOf(func(s side) error { return agent(s).EnableServiceMaintenance("nobody", "") })},

		{"a check of its own", errOf(func(s side) error {
			return agent(s).CheckRegister(&api.AgentCheckRegistration{ID: "order-2:late", Name: "late", Notes: "n", ServiceID: "order-2", AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: "warning"}})
		})},
		{"health with it", health},
		{"a check of nobody", errOf(func(s side) error {
			return agent(s).CheckRegister(&api.AgentCheckRegistration{Name: "late", ServiceID: "nobody", AgentServiceCheck: api.AgentServiceCheck{TTL: "1h"}})
		})},
		{"a check without a name", errOf(func(s side) error {
			return agent(s).CheckRegister(&api.AgentCheckRegistration{ServiceID: "order-2", AgentServiceCheck: api.AgentServiceCheck{TTL: "1h"}})
		})},
		{"all kinds of checks", register(order("order-4", 9005,
			&api.AgentServiceCheck{CheckID: "a", Name: "a", HTTP: "https://127.0.0.1:1/", Method: "POST", Header: map[string][]string{"X": {"y"}}, Interval: "1h", TLSServerName: "x", Status: "passing"},
			&api.AgentServiceCheck{CheckID: "b", Name: "b", GRPC: "127.0.0.1:1/x", GRPCUseTLS: true, Interval: "1h", Status: "passing"},
			&api.AgentServiceCheck{CheckID: "c", Name: "c", TCP: "127.0.0.1:1", Interval: "1h", Status: "passing"}))},
		{"health with those", health},
		{"and away", errOf(func(s side) error { return agent(s).ServiceDeregister("order-4") })},
		{"named ports and tagged addresses", func(s side) any {
			r := order("order-5", 0)
			r.Ports = api.ServicePorts{{Name: "http", Port: 9006, Default: true}, {Name: "grpc", Port: 9007}}
			r.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1", Port: 1}, "lan_ipv4": {Address: "10.0.0.1", Port: 2}}
			r.EnableTagOverride = true
			return said(agent(s).ServiceRegister(r))
		}},
		{"health with them", health},
		{"services with them", services},
		{"the node's services with them", func(s side) any {
			v, _, err := s.Catalog().NodeServiceList("consul", &api.QueryOptions{Filter: `ID == "order-5"`})
			if v != nil {
				v.Node = nil
			}
			return both(v, err)
		}},
		{"the catalog with them", func(s side) any { v, _, err := s.Catalog().Service("order", "", nil); return both(v, err) }},
		{"they go", errOf(func(s side) error { return agent(s).ServiceDeregister("order-5") })},
		{"port and ports", func(s side) any {
			r := order("order-5", 9006)
			r.Ports = api.ServicePorts{{Name: "http", Port: 9006, Default: true}}
			return said(agent(s).ServiceRegister(r))
		}},
		{"ports without a default", func(s side) any {
			r := order("order-5", 0)
			r.Ports = api.ServicePorts{{Name: "http", Port: 9006}}
			return said(agent(s).ServiceRegister(r))
		}},
		{"a key that is not there", key},
		{"headers of it", headers("/v1/kv/rollcall/x")},
		{"a key is not replaced before it is there", put("one", 7)},
		{"a key is made", put("one", 0)},
		{"and read", key},
		{"headers of a key", headers("/v1/kv/rollcall/x")},
		{"it is made once", put("two", 0)},
		{"a key is replaced by who has seen it", func(s side) any {
			pair, _, err := s.KV().Get("rollcall/x", nil)
			if err != nil {
				return said(err)
			}
			pair.Value = []byte("two")
			written, _, err := s.KV().CAS(pair, nil)
			return both(written, err)
		}},
		{"and read again", key},
		{"a value that is too long", func(s side) any {
			_, err := s.KV().Put(&api.KVPair{Key: "rollcall/x", Value: make([]byte, 512<<10+1)}, nil)
			return strings.HasPrefix(said(err), "413")
		}},
		{"another key does not wake", wokenByKey("rollcall/y", time.Second)},
		{"its own does", wokenByKey("rollcall/x", time.Minute)},
		{"nor does one that is not there by another", func(s side) any {
			_, _, err := s.KV().Get("rollcall/none", &api.QueryOptions{WaitIndex: 1, WaitTime: time.Millisecond})
			return said(err)
		}},

		{"another service does not wake", func(s side) any {
			return s.woken("order", time.Second, func() error {
				return agent(s).ServiceRegister(&api.AgentServiceRegistration{Name: "user", Port: 8000})
			})
		}},
		{"its own does", func(s side) any {
			return s.woken("order", time.Minute, func() error { return agent(s).ServiceDeregister("order-2") })
		}},
		{"health after deregister", health},
		{"checks after deregister", checks},
		{"the absent one wakes when it comes", func(s side) any {
			return s.woken("late", time.Minute, func() error {
				return agent(s).ServiceRegister(&api.AgentServiceRegistration{Name: "late", Port: 8001})
			})
		}},
		{"and when it goes", func(s side) any {
			return s.woken("late", time.Minute, func() error { return agent(s).ServiceDeregister("late") })
		}},
		{"it has an index then", func(s side) any { return s.index("late", nil) > 1 }},
		{"an index too high is blind", func(s side) any {
			index := s.index("order", nil)
			begin := time.Now()
			go func() {
				time.Sleep(200 * time.Millisecond)
				_ = agent(s).ServiceRegister(order("order-4", 9005))
			}()
			_, meta, err := s.Health().Service("order", "", false, &api.QueryOptions{WaitIndex: index + 10000, WaitTime: time.Second})
			if err != nil {
				return said(err)
			}
			return []bool{time.Since(begin) >= time.Second, meta.LastIndex < index+10000, meta.LastIndex > index}
		}},
		{"deregister of nobody", errOf(func(s side) error { return agent(s).ServiceDeregister("nobody") })},
		{"deregister the blind one's", errOf(func(s side) error { return agent(s).ServiceDeregister("order-4") })},

		{"services of the catalog", func(s side) any { v, _, err := s.Catalog().Services(nil); return both(v, err) }},
		{"one of them", func(s side) any { v, _, err := s.Catalog().Service("order", "", nil); return both(v, err) }},
		{"its checks", func(s side) any { v, _, err := s.Health().Checks("order", nil); return both(v, err) }},
		{"all checks", func(s side) any { v, _, err := s.Health().State("any", nil); return both(v, err) }},
		{"the critical ones", func(s side) any { v, _, err := s.Health().State("critical", nil); return both(v, err) }},
		{"checks of no state", func(s side) any { v, _, err := s.Health().State("", nil); return both(v, err) }},

		{"no name", register(&api.AgentServiceRegistration{ID: "x"})},
		{"address any", register(&api.AgentServiceRegistration{Name: "x", Address: "0.0.0.0"})},
		{"a check of no kind", register(order("x", 1, &api.AgentServiceCheck{}))},
		{"a probe without interval", register(order("x", 1, &api.AgentServiceCheck{HTTP: "http://x"}))},
		{"a probe with a TTL", register(order("x", 1, &api.AgentServiceCheck{HTTP: "http://x", Interval: "1s", TTL: "1s"}))},
		{"a status that is none", register(order("x", 1, &api.AgentServiceCheck{TTL: "1s", Status: "fine"}))},
		{"a port that is none, and IPv6", register(&api.AgentServiceRegistration{ID: "odd", Name: "odd", Port: 70000, Address: "fe80::1"})},
		{"is kept as it is", func(s side) any { v, _, err := s.Health().Service("odd", "", false, nil); return both(v, err) }},
		{"a weight for passing only", register(&api.AgentServiceRegistration{Name: "heavy", Weights: &api.AgentWeights{Passing: 10}})},
		{"is kept so", func(s side) any { v, _, err := s.Health().Service("heavy", "", false, nil); return both(v, err) }},

		{"an external node", func(s side) any {
			_, err := s.Catalog().Register(&api.CatalogRegistration{
				Node: "far", Address: "10.9.9.9",
				Service: &api.AgentService{ID: "order-far", Service: "order", Port: 7, Address: "10.9.9.9"},
				Checks: api.HealthChecks{
					{CheckID: "alive", Name: "alive", Status: "warning"},
					{CheckID: "order-far:1", Name: "one", Status: "passing", ServiceID: "order-far", Output: "fine"},
				},
			}, nil)
			return said(err)
		}},
		{"stands beside ours", health},
		{"its check goes", func(s side) any {
			_, err := s.Catalog().Deregister(&api.CatalogDeregistration{Node: "far", CheckID: "alive"}, nil)
			return said(err)
		}},
		{"then the rest", func(s side) any { return s.health(&api.QueryOptions{Filter: `Node.Node == "far"`}) }},
		{"the node goes", func(s side) any {
			return s.woken("order", time.Minute, func() error {
				_, err := s.Catalog().Deregister(&api.CatalogDeregistration{Node: "far"}, nil)
				return err
			})
		}},
		{"a TTL of a second", register(&api.AgentServiceRegistration{Name: "brief", Checks: api.AgentServiceChecks{
			{CheckID: "brief:silent", TTL: "1s", Status: "passing"}, {CheckID: "brief:heard", TTL: "1s", Status: "passing"},
		}})},
		{"runs out", func(s side) any {
			err := agent(s).UpdateTTL("brief:heard", "all well", "pass")
			deadline := time.Now().Add(20 * time.Second)
			for time.Now().Before(deadline) {
				v, _, err := s.Health().Service("brief", "", false, nil)
				if err != nil {
					return said(err)
				}
				critical := 0
				for _, c := range v[0].Checks {
					if c.Status == "critical" {
						critical++
					}
				}
				if critical == 2 {
					return v
				}
				time.Sleep(20 * time.Millisecond)
			}
			return fmt.Sprintf("the TTLs have not run out in 20 s (%v)", err)
		}},
	}
}
