package registration

import (
	"log/slog"
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
		if all == 1 && !strings.Contains(log.text[0], "ROLLCALL_ADVERTISE_HOST") {
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

// TestLoopbackFoundThroughALocalAgentIsWarnedOf gives the agent's node an address
// that others know.
func TestLoopbackFoundThroughALocalAgentIsWarnedOf(t *testing.T) {
	for address, want := range map[string]int{"10.0.0.5": 1, "127.0.0.1": 0} {
		log := newLines()
		l := &life{Registered: &Registered{cfg: Config{Log: slog.New(log)}}, host: "127.0.0.1"}
		for range 3 {
			l.warnOfNode(&api.Node{Node: "laptop", Address: address})
		}
		if n := log.count("WARN a loopback address is registered, found as the way to the agent"); n != want || log.count("") != want {
			t.Errorf("node at %s: warned %q; want %d warnings", address, log.text, want)
		}
	}
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
