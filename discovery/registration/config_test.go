package registration

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// valid is a Config that Start takes.
func valid(t *testing.T) Config {
	t.Helper()
	c, err := api.NewClient(&api.Config{Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	return Config{Client: c, ConsulAddr: "127.0.0.1:1", Service: "order", Port: 4000}
}

// filled is the Config with its defaults, which Start would take.
func filled(t *testing.T, cfg Config) Config {
	t.Helper()
	cfg, err := cfg.filled()
	if err == nil {
		err = cfg.validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestStartNamesTheWrongSettingItsValueAndWhatIsWanted(t *testing.T) {
	for _, c := range []struct {
		set  func(*Config)
		want string
	}{
		{func(c *Config) { c.Client = nil }, "registration: Client is nil; want a client of Consul"},
		{func(c *Config) { c.Service = "" }, `registration: Service is ""; want 1 to 128 letters, digits, '-', '.' and '_'`},
		{func(c *Config) { c.Service = "order/1" }, `registration: Service is "order/1"; want 1 to 128`},
		{func(c *Config) { c.Service = ".." }, `registration: Service is ".."; want 1 to 128`},
		{func(c *Config) { c.Service = strings.Repeat("a", 129) }, `want 1 to 128`},
		{func(c *Config) { c.Service = `a" or "` }, `registration: Service is "a\" or \""; want 1 to 128`},
		{func(c *Config) { c.ID = "a b" }, `registration: ID is "a b"; want 1 to 256`},
		{func(c *Config) { c.Port = 0 }, "registration: Port is 0; want 1 to 65535"},
		{func(c *Config) { c.Port = 65536 }, "registration: Port is 65536; want 1 to 65535"},
		{func(c *Config) { c.Protocol = "HTTP" }, `registration: Protocol is "HTTP"; want "http", "grpc", or empty`},
		{func(c *Config) { c.TLS, c.Meta = true, map[string]string{"rollcall-tls": "no"} }, `registration: Meta["rollcall-tls"] is "no"; want it left out`},
		{func(c *Config) { c.Weight = -1 }, "registration: Weight is -1; want 0 to 65535"},
		{func(c *Config) { c.Weight = 65536 }, "registration: Weight is 65536; want 0 to 65535"},
		{func(c *Config) { c.Zone = "a" }, `registration: Zone is "a"; want a Region as well`},
		{func(c *Config) { c.Host = "0.0.0.0" }, `registration: Host is "0.0.0.0"; want an address that others can connect to`},
		{func(c *Config) { c.Host = "::" }, `registration: Host is "::"; want an address that others can connect to`},
		{func(c *Config) { c.Host = "fe80::1%eth0" }, `registration: Host is "fe80::1%eth0"; want an address that others can connect to`},
		{func(c *Config) { c.Host = "[fd00::1]" }, `registration: Host is "[fd00::1]"; want an IP address, IPv6 without brackets`},
		{func(c *Config) { c.Host = "order:4000" }, `registration: Host is "order:4000"; want an IP address`},
		{func(c *Config) { c.ConsulAddr = "" }, `registration: ConsulAddr is ""; want host:port or a URL of http or https, with a port from 1 to 65535, or Host set`},
		{func(c *Config) { c.ConsulAddr = "consul" }, `registration: ConsulAddr is "consul"; want host:port`},
		{func(c *Config) { c.ConsulAddr = "unix:///run/consul.sock" }, `registration: ConsulAddr is "unix:///run/consul.sock"; want host:port`},
		{func(c *Config) { c.CheckPath = "readyz" }, `registration: CheckPath is "readyz"; want a path that begins with /`},
		{func(c *Config) { c.CheckPath = "/readyz" }, "registration: CheckPort is 0; want 1 to 65535"},
		{func(c *Config) { c.Meta = map[string]string{"a b": ""} }, `registration: Meta has the key "a b"; want 1 to 128`},
		{func(c *Config) { c.Meta = map[string]string{"a.b": ""} }, `registration: Meta has the key "a.b"; want 1 to 128`},
		{func(c *Config) { c.Meta = map[string]string{"consul-x": ""} }, `registration: Meta has the key "consul-x"; want none that begins with consul-`},
		{func(c *Config) { c.Meta = map[string]string{"a": strings.Repeat("x", 513)} }, `registration: Meta["a"] is 513 bytes; want at most 512`},
		{func(c *Config) { c.TTL = -time.Second }, "registration: TTL is -1s; want more than 0, or 0 for the default"},
		{func(c *Config) { c.Settle = -1 }, "registration: Settle is -1ns; want more than 0, or 0 for the default"},
		{func(c *Config) { c.Tags = []string{"v1", "a\xff"} }, `registration: Tags[1] is "a\xff"; want UTF-8`},
		{func(c *Config) { c.Meta = map[string]string{"a": "\xff"} }, `registration: Meta["a"] is "\xff"; want UTF-8`},
		{func(c *Config) { c.Meta = map[string]string{"rollcall-process": "1"} }, `registration: Meta has the key "rollcall-process"; want another`},
		{func(c *Config) { c.CheckPath = "/\xff" }, `registration: CheckPath is "/\xff"; want a path`},
		{func(c *Config) { c.HeartbeatInterval, c.TTL = 30*time.Second, 30*time.Second }, "registration: HeartbeatInterval is 30s; want less than TTL (30s)"},
		{func(c *Config) { c.CheckTimeout, c.CheckInterval = 6*time.Second, 5*time.Second }, "registration: CheckTimeout is 6s; want at most CheckInterval (5s)"},
		{func(c *Config) { c.Settle, c.SettleMax = 4*time.Second, 3*time.Second }, "registration: Settle is 4s; want at most SettleMax (3s)"},
		{func(c *Config) { c.DeregisterAfter = time.Second }, "registration: DeregisterAfter is 1s; want at least 1m0s"},
	} {
		cfg := valid(t)
		c.set(&cfg)
		r, err := Start(cfg)
		if err == nil {
			_ = r.Close()
			t.Errorf("Start took a setting; want %q", c.want)
			continue
		}
		if !strings.HasPrefix(err.Error(), c.want) && !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("Start says %q; want one line with %q", err, c.want)
		}
	}
}

func TestStartTakesTheBoundsThemselves(t *testing.T) {
	for _, set := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.Service, c.ID = strings.Repeat("a", 128), strings.Repeat("b", 256) },
		func(c *Config) { c.Service = "Order_1.v2-x" },
		func(c *Config) { c.Port, c.Weight = 65535, 65535 },
		func(c *Config) { c.Port, c.Weight = 1, 1 },
		func(c *Config) { c.Host, c.ConsulAddr = "order.internal", "" },
		func(c *Config) { c.Host, c.ConsulAddr = "fd00::1", "unix:///run/consul.sock" },
		func(c *Config) { c.ConsulAddr = "https://consul.example" },
		func(c *Config) { c.ConsulAddr = "[fd00::1]:8500" },
		func(c *Config) { c.Settle = c.SettleMax },
		func(c *Config) { c.TTL = 10 * time.Second }, // the other defaults follow
		func(c *Config) { c.HeartbeatInterval = time.Minute },
		func(c *Config) { c.CheckInterval = time.Second },
		func(c *Config) { c.CheckTimeout = 20 * time.Second },
		func(c *Config) { c.Settle = 10 * time.Second },
		func(c *Config) { c.ConsulAddr = "consul:8500/" },
		func(c *Config) { c.ConsulAddr = "https://consul.example/prefix" },
	} {
		cfg := valid(t)
		set(&cfg)
		r, err := Start(cfg)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConsulAddressIsTakenApart(t *testing.T) {
	for in, want := range map[string]string{
		"consul:8500":           "consul:8500",
		"http://consul:8500/":   "consul:8500",
		"http://consul":         "consul:80",
		"consul:8500/":          "consul:8500",
		"https://consul/prefix": "consul:443",
		"https://consul":        "consul:443",
		"https://[fd00::1]":     "[fd00::1]:443",
		"http://[fd00::1]:850":  "[fd00::1]:850",
	} {
		if got, err := hostPort(in); err != nil || got != want {
			t.Errorf("hostPort(%q) is %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestConsulAddressThatCanNotBeDialledIsRefused(t *testing.T) {
	for _, in := range []string{
		"consul:0", "consul:70000", "0:70000", "consul:-1", "consul:http", "consul:", "consul", ":8500", "",
		"http://consul:70000", "http://consul:0", "http://:8500", "ftp://consul:8500", "unix:///run/consul.sock",
	} {
		if got, err := hostPort(in); err == nil {
			t.Errorf("hostPort(%q) is %q; want an error", in, got)
		}
	}
}

func TestSettingsAreCopied(t *testing.T) {
	cfg := valid(t)
	cfg.Tags, cfg.Meta = []string{"a"}, map[string]string{"k": "v"}
	copied := filled(t, cfg)
	cfg.Tags[0], cfg.Meta["k"] = "b", "w"
	if copied.Tags[0] != "a" || copied.Meta["k"] != "v" {
		t.Errorf("the caller's change shows: %v %v", copied.Tags, copied.Meta)
	}
}

func TestEachPortHasAnEntryThatSaysWhatItSpeaks(t *testing.T) {
	first, second := valid(t), valid(t)
	first.Protocol, second.Protocol = catalog.HTTP, catalog.GRPC
	second.Port, second.TLS, second.Tags = 4001, true, []string{"v2"}
	first, second = filled(t, first), filled(t, second)
	if first.ID == second.ID {
		t.Errorf("two ports of one service have one ID, %s", first.ID)
	}
	a := first.entry("10.0.0.7", word{}, false)
	if diff := cmp.Diff([]string{"http"}, a.Tags); diff != "" || a.Meta[catalog.MetaTLS] != "" {
		t.Errorf("the entry of HTTP has Meta %v and tags (-want +got):\n%s", a.Meta, diff)
	}
	b := second.entry("10.0.0.7", word{}, false)
	if diff := cmp.Diff([]string{"v2", "grpc"}, b.Tags); diff != "" || b.Meta[catalog.MetaTLS] != "true" {
		t.Errorf("the entry of gRPC has Meta %v and tags (-want +got):\n%s", b.Meta, diff)
	}
	if got := filled(t, second).Tags; len(got) != 2 {
		t.Errorf("a protocol that is a tag already is added again: %v", got)
	}
}

func TestEntryHasTwoChecksAsConsulWantsThem(t *testing.T) {
	cfg := valid(t)
	cfg.ID, cfg.CheckPath, cfg.CheckPort = "order-1", "/readyz", 4001
	cfg = filled(t, cfg)
	got, err := json.Marshal(cfg.entry("fd00::7", word{api.HealthPassing, servingOutput}, false))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"ID":"order-1","Name":"order","Port":4000,"Address":"fd00::7","Weights":{"Passing":1,"Warning":1},"Check":null,"Checks":[` +
		`{"CheckID":"order-1:rollcall","Name":"rollcall heartbeat","TTL":"30s","Status":"passing","DeregisterCriticalServiceAfter":"1m0s"},` +
		`{"CheckID":"order-1:probe","Name":"readiness /readyz","Interval":"5s","Timeout":"2s","HTTP":"http://[fd00::7]:4001/readyz","Status":"passing","FailuresBeforeCritical":2,"DeregisterCriticalServiceAfter":"1m0s"}]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
}

func TestEntryNeverBeginsAsPassingUnlessItShould(t *testing.T) {
	for _, c := range []struct {
		status      string
		probe       string
		maintenance bool
		want        []string // of the heartbeat and the probe
	}{
		{api.HealthPassing, "/readyz", false, []string{api.HealthPassing, api.HealthPassing}},
		{api.HealthPassing, "/readyz", true, []string{api.HealthCritical, api.HealthCritical}},
		{api.HealthPassing, "", true, []string{api.HealthCritical}},
		// Warning lets the reason through at once; the probe keeps the entry critical.
		{api.HealthCritical, "/readyz", false, []string{api.HealthWarning, api.HealthCritical}},
		{api.HealthCritical, "/readyz", true, []string{api.HealthWarning, api.HealthCritical}},
		{api.HealthCritical, "", false, []string{api.HealthCritical}},
	} {
		cfg := Config{ID: "a", CheckPath: c.probe, CheckPort: 1}
		var got []string
		for _, k := range cfg.entry("10.0.0.1", word{status: c.status}, c.maintenance).Checks {
			got = append(got, k.Status)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v begins as (-want +got):\n%s", c, diff)
		}
	}
}

func TestFoundAddressMustBeOneToConnectTo(t *testing.T) {
	for addr, ok := range map[string]bool{"10.0.0.7": true, "fd00::7": true, "0.0.0.0": false, "::": false, "fe80::1%eth0": false, "ff02::1": false} {
		cfg := valid(t)
		cfg.network = &cable{addr: netip.MustParseAddr(addr)}
		host, err := cfg.findHost(t.Context(), &sight{})
		if (err == nil) != ok || ok && host != addr {
			t.Errorf("findHost with %s is %q, %v; want it taken: %t", addr, host, err, ok)
		}
	}
}

func TestMachineKnowsItsOwnAddresses(t *testing.T) {
	for host, want := range map[string]bool{"127.0.0.1": true, "::1": true, "order.internal": true, "192.0.2.77": false, "2001:db8::77": false} {
		if got := (machine{}).has(host); got != want {
			t.Errorf("machine has %s: %t; want %t", host, got, want)
		}
	}
	ip, err := machine{}.towards(t.Context(), "127.0.0.1:8500")
	if err != nil || ip.String() != "127.0.0.1" {
		t.Errorf("the way to 127.0.0.1 begins at %v, %v; want 127.0.0.1", ip, err)
	}
}

func TestStatesHaveNames(t *testing.T) {
	var names []string
	for _, s := range States {
		b, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, string(b))
	}
	names = append(names, State(9).String())
	if diff := cmp.Diff([]string{"starting", "registered", "recovering", "draining", "deregistered", "state(9)"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestUnknownCheckIsToldFromOtherTrouble(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{api.StatusError{Code: 404, Body: `Unknown check ID "a:rollcall". Ensure that the check ID is passed, not the check name.`}, true},
		{api.StatusError{Code: 500, Body: `CheckID "a:rollcall" does not have associated TTL`}, true},
		{api.StatusError{Code: 500, Body: "No cluster leader"}, false},
		{api.StatusError{Code: 403, Body: "Permission denied"}, false},
		{errors.New("EOF"), false},
	} {
		if got := unknownCheck(c.err); got != c.want {
			t.Errorf("unknownCheck(%v) is %t; want %t", c.err, got, c.want)
		}
	}
}
