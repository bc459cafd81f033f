package discovery_test

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

// ownAddress is one of this machine that others reach it by.
func ownAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("needs an IPv4 address that is no loopback")
	return ""
}

// answers serves a body for order at an address, and returns its port.
func answers(t *testing.T, host, body string) int {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(httpmesh.RequireService("order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })))
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return l.Addr().(*net.TCPAddr).Port
}

func at(consul string) discovery.Config {
	return discovery.Config{Consul: discovery.Consul{Address: consul}, Log: slog.New(slog.DiscardHandler)}
}

// TestServiceThatAsksTheAgentOfItsHostIsRegisteredAtTheHostsAddress is two hosts, each
// with an agent whose API listens at a loopback address and that the others know by
// the host's own.
func TestServiceThatAsksTheAgentOfItsHostIsRegisteredAtTheHostsAddress(t *testing.T) {
	t.Parallel()
	host := ownAddress(t)
	if l, err := net.Listen("tcp", "127.0.0.2:0"); err != nil {
		t.Skipf("needs 127.0.0.2: %v", err)
	} else {
		l.Close()
	}
	server := consultest.Real(t)
	bodies := map[string]bool{}
	var caller *discovery.Mesh
	for n := range 2 {
		agent := server.AgentAt(fmt.Sprintf("127.0.0.%d", n+2), host)
		caller = open(t, at(agent.Addr()))
		body := strconv.Itoa(n)
		bodies[body] = true
		r, err := caller.Register(registration.Config{Service: "order", ID: body, Port: answers(t, host, body)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	entries, _, err := server.Client().Health().Service("order", "", true, nil)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d entries, %v; want 2", len(entries), err)
	}
	for _, e := range entries {
		if e.Service.Address != host {
			t.Errorf("%s is registered at %s on node %s; want %s", e.Service.ID, e.Service.Address, e.Node.Node, host)
		}
	}
	eventually(t, "an answer of both", func() bool {
		if body, err := get(t, caller, "http://order/"); err == nil {
			delete(bodies, body)
		}
		return len(bodies) == 0
	})
}

// leader returns the server that leads, and one that does not.
func leader(t *testing.T, servers []*consultest.Server) (leads, follows *consultest.Server) {
	t.Helper()
	var clients []*api.Client
	for _, s := range servers {
		clients = append(clients, s.Client())
	}
	eventually(t, "a leader", func() bool {
		leads, follows = nil, nil
		for n, s := range servers {
			self, err := clients[n].Agent().Self()
			if err != nil {
				return false
			}
			if fmt.Sprint(self["Stats"]["consul"].(map[string]any)["leader"]) == "true" {
				leads = s
			} else {
				follows = s
			}
		}
		return leads != nil && follows != nil
	})
	return leads, follows
}

// TestLossOfAServerAndOfTheLeaderIsBorneByTheAgentsOnly is two services at agents, and
// one, billing, that has asked a server: its entry is lost with that.
func TestLossOfAServerAndOfTheLeaderIsBorneByTheAgentsOnly(t *testing.T) {
	t.Parallel()
	servers := consultest.RealServers(t, 3)
	here, there := open(t, at(servers[0].Agent().Addr())), open(t, at(servers[0].Agent().Addr()))
	register := func(id string) {
		r, err := there.Register(registration.Config{Service: "order", ID: id, Port: answers(t, "127.0.0.1", id), Host: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an answer of "+id, func() bool {
			body, err := get(t, here, "http://order/")
			return err == nil && body == id
		})
	}
	register("first")

	var asked, failed atomic.Int64
	ended := make(chan struct{})
	var load sync.WaitGroup
	stop := sync.OnceFunc(func() {
		close(ended)
		load.Wait()
	})
	t.Cleanup(stop)
	load.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
			}
			asked.Add(1)
			if _, err := get(t, here, "http://order/"); err != nil {
				failed.Add(1)
				t.Error(err)
			}
		}
	})
	left, follower := leader(t, servers)
	direct, err := open(t, at(follower.Addr())).Register(registration.Config{Service: "billing", Port: answers(t, "127.0.0.1", "well")})
	if err != nil {
		t.Fatal(err)
	}
	if err := direct.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	follower.Kill()
	register("one-server-lost")
	client := left.Client()
	eventually(t, "billing, which is well, is critical", func() bool {
		entries, _, err := client.Health().Service("billing", "", false, nil)
		return err == nil && len(entries) == 1 && entries[0].Checks.AggregatedStatus() == api.HealthCritical
	})
	follower.Restart()
	leads, _ := leader(t, servers)
	leads.Kill()
	register("leader-lost")
	stop()
	if asked.Load() < 100 || failed.Load() > 0 {
		t.Errorf("%d of %d requests failed; want none, of 100 and more", failed.Load(), asked.Load())
	}
	for _, r := range there.Status().Registrations {
		if r.State != registration.StateRegistered {
			t.Errorf("%s is %v: %s", r.ID, r.State, r.Why)
		}
	}
}

// inTurn is one address for several: each connection leads to the next of them.
func inTurn(t *testing.T, to ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open sync.Map
	var busy sync.WaitGroup
	busy.Go(func() {
		for n := 0; ; n++ {
			from, err := l.Accept()
			if err != nil {
				return
			}
			on, err := net.Dial("tcp", to[n%len(to)])
			if err != nil {
				from.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{from, on}, {on, from}} {
				open.Store(way[0], nil)
				busy.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
					open.Delete(way[0])
				})
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		open.Range(func(conn, _ any) bool { return conn.(net.Conn).Close() == nil || true })
		busy.Wait()
	})
	return l.Addr().String()
}

func TestBalancerBeforeRealAgentsIsToldOfAndLeavesNoEntryBehind(t *testing.T) {
	t.Parallel()
	server := consultest.Real(t)
	var log logtest.Buffer
	balancer := inTurn(t, server.Agent().Addr(), server.Agent().Addr())
	cfg, caller := at(balancer), open(t, at(balancer))
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	mesh, err := discovery.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "one", Port: answers(t, "127.0.0.1", "one"), HeartbeatInterval: time.Second}); err != nil {
		t.Fatal(err)
	}
	client := server.Client()
	entries := func() int {
		all, _, err := client.Catalog().Service("order", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	eventually(t, "an entry", func() bool { return entries() > 0 })
	eventually(t, "an error that says what to do", func() bool {
		return strings.Contains(log.String(), "level=ERROR msg=\"Consul's address leads to several agents")
	})
	eventually(t, "an answer for one that only watches through the balancer", func() bool {
		body, err := get(t, caller, "http://order/")
		return err == nil && body == "one"
	})
	if err := mesh.Close(); err != nil {
		t.Error(err)
	}
	if n := entries(); n != 0 {
		t.Errorf("%d entries after Close; want none", n)
	}
}
