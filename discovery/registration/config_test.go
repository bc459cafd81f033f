package registration

import (
	"encoding/json"
	"errors"
	"net/http"
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

// checked sets the checks.
func checked(checks ...Check) func(*Config) { return func(c *Config) { c.Checks = checks } }

// tagged sets one tagged address.
func tagged(tag, address string) func(*Config) {
	return func(c *Config) { c.TaggedAddresses = map[string]api.ServiceAddress{tag: {Address: address}} }
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
		{checked(Check{Path: "readyz"}), `registration: Checks[0].Path is "readyz"; want a path of a URL that begins with /`},
		{checked(Check{Path: "/a\nb"}), `registration: Checks[0].Path is "/a\nb"; want a path of a URL`},
		{checked(Check{Port: 70000}), "registration: Checks[0].Port is 70000; want 1 to 65535"},
		{checked(Check{}, Check{}), `registration: Checks[1].Name is "probe"; want another`},
		{checked(Check{Name: "rollcall"}), `registration: Checks[0].Name is "rollcall"; want another`},
		{checked(Check{Name: "a:b"}), `registration: Checks[0].Name is "a:b"; want 1 to 64 letters`},
		{checked(Check{Protocol: "udp"}), `registration: Checks[0].Protocol is "udp"; want "http", "grpc" or "tcp"`},
		{checked(Check{Protocol: TCP, Path: "/x"}), `registration: Checks[0].Path is "/x"; want none for TCP`},
		{checked(Check{Protocol: catalog.GRPC, Method: "PUT"}), "registration: Checks[0].Method, Header or Body is set; want them for HTTP alone"},
		{checked(Check{Method: "get"}), `registration: Checks[0].Method is "get"; want a method of HTTP`},
		{checked(Check{TLSSkipVerify: true}), "registration: Checks[0].TLSServerName or TLSSkipVerify is set; want TLS set as well"},
		{checked(Check{Host: "::"}), `registration: Checks[0].Host is "::"; want an address that others can connect to`},
		{checked(Check{Header: http.Header{"A b": nil}}), `registration: Checks[0].Header has the key "A b"; want 1 to 64`},
		{checked(Check{Header: http.Header{"A": {"b\nc"}}}), `registration: Checks[0].Header["A"] is "b\nc"; want one line`},
		{checked(Check{Body: "\xff"}), `registration: Checks[0].Body is "\xff"; want UTF-8`},
		{checked(Check{Interval: -1}), "registration: Checks[0].Interval is -1ns; want more than 0"},
		{func(c *Config) { c.Ports = map[string]int{"a.b": 1} }, `registration: Ports has the name "a.b"; want 1 to 63 letters`},
		{func(c *Config) { c.Ports = map[string]int{"default": 1} }, `registration: Ports has the name "default"; want another`},
		{func(c *Config) { c.Ports = map[string]int{"grpc": 0} }, `registration: Ports["grpc"] is 0; want 1 to 65535`},
		{tagged("virtual", "10.0.0.1"), `registration: TaggedAddresses has the tag "virtual"; want one of lan, lan_ipv4`},
		{tagged("wan_ipv4", "fd00::1"), `registration: TaggedAddresses["wan_ipv4"].Address is "fd00::1"; want an IPv4 address`},
		{tagged("lan_ipv6", "10.0.0.1"), `registration: TaggedAddresses["lan_ipv6"].Address is "10.0.0.1"; want an IPv6 address`},
		{tagged("wan", "a b"), `registration: TaggedAddresses["wan"].Address is "a b"; want an IP address`},
		{func(c *Config) { c.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "a", Port: -1}} }, `registration: TaggedAddresses["wan"].Port is -1; want 1 to 65535`},
		{func(c *Config) { c.WarningWeight = 65536 }, "registration: WarningWeight is 65536; want 0 to 65535"},
		{func(c *Config) { c.Meta = map[string]string{"a b": ""} }, `registration: Meta has the key "a b"; want 1 to 128`},
		{func(c *Config) { c.Meta = map[string]string{"a.b": ""} }, `registration: Meta has the key "a.b"; want 1 to 128`},
		{func(c *Config) { c.Meta = map[string]string{"consul-x": ""} }, `registration: Meta has the key "consul-x"; want none that begins with consul-`},
		{func(c *Config) { c.Meta = map[string]string{"a": strings.Repeat("x", 513)} }, `registration: Meta["a"] is 513 bytes; want at most 512`},
		{func(c *Config) { c.TTL = -time.Second }, "registration: TTL is -1s; want more than 0, or 0 for the default"},
		{func(c *Config) { c.Settle = -1 }, "registration: Settle is -1ns; want more than 0, or 0 for the default"},
		{func(c *Config) { c.Tags = []string{"v1", "a\xff"} }, `registration: Tags[1] is "a\xff"; want UTF-8`},
		{func(c *Config) { c.Meta = map[string]string{"a": "\xff"} }, `registration: Meta["a"] is "\xff"; want UTF-8`},
		{func(c *Config) { c.Meta = map[string]string{"rollcall-process": "1"} }, `registration: Meta has the key "rollcall-process"; want another`},
		{checked(Check{Path: "/\xff"}), `registration: Checks[0].Path is "/\xff"; want UTF-8`},
		{func(c *Config) { c.HeartbeatInterval, c.TTL = 30*time.Second, 30*time.Second }, "registration: HeartbeatInterval is 30s; want less than TTL (30s)"},
		{checked(Check{Timeout: 6 * time.Second, Interval: 5 * time.Second}), "registration: Checks[0].Timeout is 6s; want at most Interval (5s)"},
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
		if got := cfg.Validate(); got == nil || got.Error() != err.Error() {
			t.Errorf("Validate says %v; want what Start says: %v", got, err)
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
		checked(Check{Interval: time.Second}, Check{Name: "slow", Timeout: 20 * time.Second}),
		checked(Check{Path: "/a?b=c", Method: "POST", Body: "{}\n", Header: http.Header{"X-A": {"b"}}, Host: "fd00::1", TLS: true, TLSServerName: "order"}),
		checked(Check{Protocol: catalog.GRPC, Path: "order.v1.Orders"}, Check{Name: "tcp", Protocol: TCP, Port: 1, TLS: true, TLSSkipVerify: true}),
		tagged("wan", "gate.example"),
		tagged("lan_ipv6", "fd00::1"),
		func(c *Config) { c.DeregisterAfter = -1 },
		func(c *Config) { c.Ports = map[string]int{"grpc": 4001, "http": 4000} },
		func(c *Config) { c.Settle = 10 * time.Second },
		func(c *Config) { c.ConsulAddr = "consul:8500/" },
		func(c *Config) { c.ConsulAddr = "https://consul.example/prefix" },
	} {
		cfg := valid(t)
		set(&cfg)
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
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

func TestChecksAreAsConsulWantsThem(t *testing.T) {
	cfg := valid(t)
	cfg.ID, cfg.DeregisterAfter = "order-1", -1
	cfg.Checks = []Check{
		{Path: "/readyz", Port: 4001},
		{Name: "deep", Path: "/deep?all", Host: "10.0.0.8", Method: "POST", Header: http.Header{"X-A": {"b"}}, Body: "{}", TLS: true, TLSServerName: "order", Timeout: time.Second, Interval: time.Minute},
		{Name: "grpc", Protocol: catalog.GRPC, Port: 4002, Path: "order.v1.Orders", TLS: true, TLSSkipVerify: true},
		{Name: "tcp", Protocol: TCP},
	}
	cfg = filled(t, cfg)
	got, err := json.MarshalIndent(cfg.entry("fd00::7", word{api.HealthPassing, servingOutput}, false).Checks, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const want = `[
 {"CheckID":"order-1:rollcall","Name":"rollcall heartbeat","TTL":"30s","Status":"passing"},
 {"CheckID":"order-1:probe","Name":"probe","Interval":"5s","Timeout":"2s","HTTP":"http://[fd00::7]:4001/readyz","Status":"passing","FailuresBeforeCritical":2},
 {"CheckID":"order-1:deep","Name":"deep","Interval":"1m0s","Timeout":"1s","HTTP":"https://10.0.0.8:4000/deep?all","Header":{"X-A":["b"]},"Method":"POST","Body":"{}","Status":"passing","TLSServerName":"order","FailuresBeforeCritical":2},
 {"CheckID":"order-1:grpc","Name":"grpc","Interval":"5s","Timeout":"2s","Status":"passing","TLSSkipVerify":true,"GRPC":"[fd00::7]:4002/order.v1.Orders","GRPCUseTLS":true,"FailuresBeforeCritical":2},
 {"CheckID":"order-1:tcp","Name":"tcp","Interval":"5s","Timeout":"2s","TCP":"[fd00::7]:4000","Status":"passing","FailuresBeforeCritical":2}
]`
	var a, b any
	if err := errors.Join(json.Unmarshal([]byte(want), &a), json.Unmarshal(got, &b)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
}

func TestCheckOfTheServicesOwnPortSpeaksAsThatDoes(t *testing.T) {
	cfg := valid(t)
	cfg.Protocol, cfg.TLS, cfg.Checks = catalog.GRPC, true, []Check{{}, {Name: "admin", Port: 4001}}
	cfg = filled(t, cfg)
	own, admin := cfg.Checks[0].definition("10.0.0.7"), cfg.Checks[1].definition("10.0.0.7")
	if own.GRPC != "10.0.0.7:4000" || !own.GRPCUseTLS {
		t.Errorf("the check of the service's port is %+v; want gRPC with TLS", own)
	}
	if admin.HTTP != "http://10.0.0.7:4001/" {
		t.Errorf("the check of another port is %+v; want HTTP", admin)
	}
	cfg.Checks[0].Port = 1
	if again := filled(t, cfg).Checks[0]; again.Port != 1 {
		t.Errorf("filled twice: %+v", again)
	}
}

func TestEntryNeverBeginsAsPassingUnlessItShould(t *testing.T) {
	for _, c := range []struct {
		status      string
		probe       bool
		maintenance bool
		want        []string // of the heartbeat and the probe
	}{
		{api.HealthPassing, true, false, []string{api.HealthPassing, api.HealthPassing}},
		{api.HealthPassing, true, true, []string{api.HealthCritical, api.HealthCritical}},
		{api.HealthPassing, false, true, []string{api.HealthCritical}},
		// Warning lets the reason through at once; the probe keeps the entry critical.
		{api.HealthCritical, true, false, []string{api.HealthWarning, api.HealthCritical}},
		{api.HealthCritical, true, true, []string{api.HealthWarning, api.HealthCritical}},
		{api.HealthCritical, false, false, []string{api.HealthCritical}},
	} {
		cfg := Config{ID: "a"}
		if c.probe {
			cfg.Checks = []Check{{Name: "probe"}}
		}
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
