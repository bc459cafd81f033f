package registration

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestStartRefusesAnAddressNobodyCanReach(t *testing.T) {
	for _, host := range []string{
		"0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1", "fe80::1%eth0",
	} {
		cfg := valid(t)
		cfg.Host = host
		r, err := Start(cfg)
		if err == nil {
			_ = r.Close()
			t.Errorf("Start took the host %s", host)
			continue
		}
		if want := `registration: Host is "` + host + `"; want an address that others can connect to`; !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Start says %q; want %q", err, want)
		}
	}
}

func TestStartWarnsOfAnAddressThatHardlyAnybodyCanReach(t *testing.T) {
	const elsewhere, link = "WARN a loopback address is registered with a Consul elsewhere", "WARN a link-local address"
	for _, c := range []struct{ host, consul, want string }{
		{"127.0.0.1", "10.0.0.1:8500", elsewhere},
		{"::1", "http://consul:8500", elsewhere},
		{"localhost", "consul:8500", elsewhere},
		{"Order.LocalHost.", "consul:8500", elsewhere},
		{"169.254.3.4", "10.0.0.1:8500", link},
		{"169.254.3.4", "127.0.0.1:8500", link},
		{"127.0.0.1", "127.0.0.1:8500", ""},
		{"127.0.0.1", "http://localhost:8500", ""},
		{"127.0.0.1", "", ""}, // not known where
		{"10.0.0.7", "10.0.0.1:8500", ""},
		{"order.internal", "consul:8500", ""},
	} {
		log := newLines()
		cfg := Config{Host: c.host, ConsulAddr: c.consul, Log: slog.New(log)}
		cfg.warnOfHost()
		all := log.count("")
		if c.want == "" && all != 0 || c.want != "" && (all != 1 || log.count(c.want) != 1) {
			t.Errorf("host %s, Consul %s: said %q; want %q", c.host, c.consul, log.text, c.want)
		}
		if all == 1 && !strings.Contains(log.text[0], "registration.Config.Host") {
			t.Errorf("said %q; want the setting that helps", log.text[0])
		}
	}
}

func TestStartItselfWarnsOfALoopbackForOthers(t *testing.T) {
	in(t, func(t *testing.T, _ *consultest.Agent, cfg Config) {
		log := newLines()
		cfg.ConsulAddr, cfg.Log = "10.0.0.1:8500", slog.New(log)
		start(t, cfg)
		if n := log.count("WARN a loopback address is registered with a Consul elsewhere"); n != 1 {
			t.Errorf("warned %d times; want once: %q", n, log.text)
		}
	})
}

// TestUnspecifiedAddressThatWasFoundIsNotRegistered is a machine whose way to
// Consul is of no use.
func TestUnspecifiedAddressThatWasFoundIsNotRegistered(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		var net cable
		net.plug(netip.IPv4Unspecified().String())
		cfg.Host, cfg.ConsulAddr, cfg.network = "", "consul:8500", &net
		r := start(t, cfg)
		time.Sleep(time.Minute)
		if s := r.Status(); s.State != StateStarting || !strings.Contains(s.Why, "begins at 0.0.0.0; want an address that others can connect to") {
			t.Errorf("status is %+v; want starting, with the address and what is wanted", s)
		}
		if n := len(agent.Requests(registerPath)); n != 0 {
			t.Errorf("registered %d times; want never", n)
		}
	})
}

// here is a machine that reaches its agent over a loopback, and has one address
// besides.
type here struct{ cable }

func (*here) towards(context.Context, string) (netip.Addr, error) {
	return netip.MustParseAddr("127.0.0.1"), nil
}

func TestLoopbackIsNeverAdvertisedInSilence(t *testing.T) {
	for _, c := range []struct {
		name, agent, want string
		loopback          bool
	}{
		{"an agent on this machine", "10.0.0.5", "10.0.0.5", false},
		{"a Consul in a container, seen from the laptop", "172.18.0.2", "127.0.0.1", true},
		{"an agent that is known by a loopback itself", "127.0.0.1", "127.0.0.1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				agent.SetNodeAddress(c.agent)
				log := newLines()
				var net here
				net.plug("10.0.0.5")
				cfg.Host, cfg.ConsulAddr, cfg.network, cfg.Log = "", consultest.Address, &net, slog.New(log)
				r := begun(t, cfg)
				if got := seen(t, agent.Client(), r).Service.Address; got != c.want {
					t.Errorf("address is %s; want %s", got, c.want)
				}
				s := r.Status()
				if errors.Is(s.Err, ErrLoopback) != c.loopback || strings.Contains(s.Why, "set registration.Config.Host") != c.loopback {
					t.Errorf("status is %+v; want it to say what to set: %t", s, c.loopback)
				}
				if n := log.count("WARN a loopback address is registered"); (n == 1) != c.loopback {
					t.Errorf("warned %d times; want it said once: %t", n, c.loopback)
				}
				time.Sleep(time.Minute)
				if n := len(agent.Requests(registerPath)); n != 1 {
					t.Errorf("registered %d times in a minute; want once", n)
				}
			})
		})
	}
}

func (h *here) has(host string) bool { return loopback(host) || h.cable.has(host) }

// TestAgentThatMayNotBeReadIsKnownByItsNode is a token without agent:read.
func TestAgentThatMayNotBeReadIsKnownByItsNode(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		agent.SetNodeAddress("10.0.0.5")
		agent.Break("/v1/agent/self", consultest.Fail(http.StatusForbidden, "Permission denied: token lacks permission 'agent:read'"))
		var net here
		net.plug("10.0.0.5")
		cfg.Host, cfg.ConsulAddr, cfg.network = "", consultest.Address, &net
		r := begun(t, cfg)
		within(t, 3*time.Second, "at the node's address", func() bool {
			e := seen(t, agent.Client(), r)
			return e != nil && e.Service.Address == "10.0.0.5" && r.Status().State == StateRegistered
		})
	})
}

// warnsOfTakenPort is an entry of somebody else at the same address and port.
func warnsOfTakenPort(t *testing.T, b backend) {
	c := b.Client()
	cfg := settings(t, b)
	log := newLines()
	cfg.Port, cfg.Log = 7777, slog.New(log)
	for id, port := range map[string]int{"left-1": cfg.Port, "left-2": cfg.Port + 1000} {
		if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "left", Address: cfg.Host, Port: port}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Agent().ServiceDeregister(id) })
	}
	begun(t, cfg)
	if n := log.count("WARN the agent has another entry at our address and port"); n != 1 {
		t.Errorf("warned %d times; want once, of the entry at our port: %q", n, log.text)
	}
}
