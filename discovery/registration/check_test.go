package registration

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestEntryOfEachKindIsKeptTrue(t *testing.T) {
	t.Parallel()
	behaviours(t, map[string]func(t *testing.T, b backend){
		"is written once with every kind of check":             isWrittenOnce,
		"is mended whatever of it drifts":                      isMendedWhateverDrifts,
		"keeps the tags of an operator who may change them":    keepsTagsOfAnOperator,
		"needs no heartbeat, and says that it drains":          needsNoHeartbeat,
		"comes back without a heartbeat":                       comesBackWithoutHeartbeat,
		"leaves its ID to another that passes without one too": leavesItsIDWithoutHeartbeat,
		"needs no check at all":                                needsNoCheck,
	}, nil)
}

// full has each thing that an entry may have. A real Consul runs the checks against
// servers that are really there.
func full(t *testing.T, b backend) Config {
	cfg := settings(t, b)
	cfg.Protocol, cfg.TLS = catalog.HTTP, true
	cfg.Tags, cfg.Meta = []string{"v1"}, map[string]string{"version": "1"}
	cfg.Region, cfg.Zone = "eu", "eu-1"
	cfg.Weight, cfg.WarningWeight = 10, 3
	cfg.EnableTagOverride = true
	cfg.DeregisterAfter = -1
	cfg.Ports = map[string]int{"grpc": 4100, "admin": 4200}
	cfg.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1"}, "lan_ipv4": {Address: "10.0.0.1", Port: 1}, "wan_ipv6": {Address: "2001:db8::1"}}
	cfg.Checks = append(cfg.Checks,
		Check{Name: "asked", Path: "/asked?x=1", Method: http.MethodPost, Header: http.Header{"X-Key": {"1"}}, Body: "who?"},
		Check{Name: "secure", TLS: true, TLSServerName: "example.com", TLSSkipVerify: true, Port: 4003},
		Check{Name: "grpc", Protocol: catalog.GRPC, Path: "order.v1.Orders", Port: 4004},
		Check{Name: "tcp", Protocol: TCP, Host: "127.0.0.1", Port: 4005})
	if _, fake := b.(*consultest.Agent); fake {
		return cfg
	}
	serve := func(start func(*httptest.Server), h http.HandlerFunc) int {
		s := httptest.NewUnstartedServer(h)
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		start(s)
		t.Cleanup(s.Close)
		return s.Listener.Addr().(*net.TCPAddr).Port
	}
	plain, secure := (*httptest.Server).Start, (*httptest.Server).StartTLS
	cfg.Checks[1].Port = serve(plain, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.RawQuery != "x=1" || r.Header.Get("X-Key") != "1" || string(body) != "who?" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	cfg.Checks[2].Port = serve(secure, func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.ServerName != "example.com" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	cfg.Checks[3].Port = serve(plain, answerHealth)
	cfg.Checks[4].Port = serve(plain, func(http.ResponseWriter, *http.Request) {})
	for n := range cfg.Checks {
		cfg.Checks[n].Interval = time.Second
	}
	return cfg
}

// answerHealth is the health service of gRPC about order.v1.Orders: serving.
func answerHealth(w http.ResponseWriter, r *http.Request) {
	asked, err := io.ReadAll(io.LimitReader(r.Body, 1000))
	w.Header().Set("Content-Type", "application/grpc")
	if err != nil || r.URL.Path != "/grpc.health.v1.Health/Check" || !bytes.Contains(asked, []byte("order.v1.Orders")) {
		w.Header().Set("Grpc-Status", "5")
		return
	}
	w.Header().Set("Trailer", "Grpc-Status")
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 8, 1}) // HealthCheckResponse{status: SERVING}
	w.Header().Set("Grpc-Status", "0")
}

// kept reports whether the catalog has the entry with all that the settings want.
func kept(t *testing.T, c *api.Client, r *Registration) bool {
	t.Helper()
	e := seen(t, c, r)
	if e == nil {
		return false
	}
	want := r.cfg.entry(r.cfg.Host, word{status: api.HealthPassing}, false)
	want.EnableTagOverride = e.Service.EnableTagOverride && want.EnableTagOverride
	want.Meta[writeKey] = e.Service.Meta[writeKey]
	for _, k := range want.Checks {
		if found := check(e, k.CheckID); found == nil || found.Notes != r.agent.notes() {
			return false
		}
	}
	return differs(want, e.Service) == ""
}

func isWrittenOnce(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := full(t, b)
	cfg.Trace = d.trace()
	_, fake := b.(*consultest.Agent)
	if !fake {
		cfg.HeartbeatInterval = 300 * time.Millisecond
	}
	r := begun(t, cfg)
	if fake {
		time.Sleep(10 * time.Minute)
	} else {
		eventually(t, "each check was run, and passes", func() bool {
			all, err := c.Agent().ChecksWithFilter(`ServiceName == "` + cfg.Service + `"`) // the catalog learns of outputs later
			return err == nil && len(all) == len(cfg.Checks)+1 && !slices.ContainsFunc(slices.Collect(maps.Values(all)), func(k *api.AgentCheck) bool {
				return k.Status != api.HealthPassing || k.Output == ""
			})
		})
	}
	beats := d.count(opHeartbeat)
	eventually(t, "more heartbeats", func() bool { return d.count(opHeartbeat) >= beats+2 })
	if n := d.count(opRegister); n != 1 || r.Status().State != StateRegistered || !kept(t, c, r) {
		t.Errorf("written %d times, status %+v, the entry is %+v; want it as it was written once", n, r.Status(), seen(t, c, r).Service)
	}
}

func isMendedWhateverDrifts(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := full(t, b)
	cfg.Trace = d.trace()
	r := begun(t, cfg)
	again := func(change func(*api.AgentServiceRegistration)) func() error {
		return func() error {
			entry := r.cfg.entry(cfg.Host, word{status: api.HealthPassing}, false)
			now, _, err := c.Agent().Service(r.ID(), nil)
			if err != nil {
				return err
			}
			entry.Meta, entry.Checks = now.Meta, nil
			change(entry)
			return c.Agent().ServiceRegister(entry)
		}
	}
	harms := map[string]func() error{
		"the weight":          again(func(e *api.AgentServiceRegistration) { e.Weights.Warning = 1 }),
		"who may change tags": again(func(e *api.AgentServiceRegistration) { e.EnableTagOverride = false }),
		"a named port":        again(func(e *api.AgentServiceRegistration) { e.Ports[1].Port++ }),
		"a port too many": again(func(e *api.AgentServiceRegistration) {
			e.Ports = append(e.Ports, api.ServicePort{Name: "x", Port: 1})
		}),
		"the ports": again(func(e *api.AgentServiceRegistration) { e.Port, e.Ports = 4000, nil }),
		"a tagged address": again(func(e *api.AgentServiceRegistration) {
			e.TaggedAddresses = maps.Clone(e.TaggedAddresses)
			e.TaggedAddresses["wan"] = api.ServiceAddress{Address: "192.0.2.2", Port: 4000}
		}),
		"the place":      again(func(e *api.AgentServiceRegistration) { e.Locality = &api.Locality{Region: "us"} }),
		"what it speaks": again(func(e *api.AgentServiceRegistration) { e.Meta[catalog.MetaTLS] = "false" }),
		"a redefined check": func() error {
			return c.Agent().CheckRegister(&api.AgentCheckRegistration{
				ID: checkID(r.ID(), "tcp"), Name: "tcp", ServiceID: r.ID(),
				AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: api.HealthPassing},
			})
		},
	}
	for _, k := range r.cfg.Checks {
		id := checkID(r.ID(), k.Name)
		harms["the check "+id] = func() error { return c.Agent().CheckDeregister(id) }
	}
	names := slices.Sorted(maps.Keys(harms))
	_, fake := b.(*consultest.Agent)
	if !fake { // each takes a second
		names = []string{"a named port", "a redefined check", "a tagged address", "who may change tags"}
	}
	for _, name := range names {
		written, harmed := d.count(opRegister), time.Now()
		if err := harms[name](); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		eventually(t, name+" mended", func() bool {
			e := seen(t, c, r)
			return d.count(opRegister) > written && e != nil && e.Service.EnableTagOverride && kept(t, c, r) && r.Status().State == StateRegistered
		})
		if took := time.Since(harmed); took > 3*time.Second {
			t.Errorf("%s: mended after %v; want 1s, and some for the machine", name, took)
		}
		pause := 1100 * time.Millisecond // two mends within a second are spaced
		if fake {
			pause = 10 * time.Second
		}
		time.Sleep(pause)
	}
}

func TestEntryDiffersInWhatIsOursAlone(t *testing.T) {
	cfg := valid(t)
	cfg.Tags, cfg.Meta, cfg.Region = []string{"v1"}, map[string]string{"version": "1"}, "eu"
	cfg.TaggedAddresses = map[string]api.ServiceAddress{"wan": {Address: "192.0.2.1"}}
	want := filled(t, cfg).entry("10.0.0.7", word{}, false)
	want.Meta[writeKey] = "7"
	for name, c := range map[string]struct {
		change func(*api.AgentService)
		says   string
	}{
		"as it was written":        {func(*api.AgentService) {}, ""},
		"what Consul fills in":     {func(e *api.AgentService) { e.TaggedAddresses["lan_ipv4"] = api.ServiceAddress{Address: "10.0.0.7"} }, ""},
		"what an operator adds":    {func(e *api.AgentService) { e.Tags, e.Meta["note"] = append(e.Tags, "canary"), "x" }, ""},
		"an earlier write":         {func(e *api.AgentService) { e.Meta[writeKey] = "6" }, "as it was before"},
		"another port":             {func(e *api.AgentService) { e.Port = 1 }, "at 10.0.0.7 port 1, not 10.0.0.7 port 4000"},
		"named ports":              {func(e *api.AgentService) { e.Ports = api.ServicePorts{{Name: "x", Port: 4000, Default: true}} }, "with the ports"},
		"a weight for warnings":    {func(e *api.AgentService) { e.Weights.Warning = 0 }, "with weights {Passing:1 Warning:0}"},
		"tags for operators":       {func(e *api.AgentService) { e.EnableTagOverride = true }, "with EnableTagOverride true"},
		"another place":            {func(e *api.AgentService) { e.Locality = &api.Locality{Region: "us"} }, "with another Locality"},
		"no place":                 {func(e *api.AgentService) { e.Locality = nil }, "with another Locality"},
		"a tagged address is gone": {func(e *api.AgentService) { delete(e.TaggedAddresses, "wan") }, "with the tagged address wan at { 0}, not {192.0.2.1 4000}"},
		"a tag is gone":            {func(e *api.AgentService) { e.Tags = nil }, `without the tag "v1"`},
		"another Meta":             {func(e *api.AgentService) { e.Meta["version"] = "2" }, `with another Meta["version"]`},
	} {
		have := &api.AgentService{
			Address: "10.0.0.7", Port: 4000, Tags: slices.Clone(want.Tags), Meta: maps.Clone(want.Meta), Weights: *want.Weights,
			Locality: &api.Locality{Region: "eu"}, TaggedAddresses: maps.Clone(want.TaggedAddresses),
		}
		c.change(have)
		if got := differs(want, have); !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
			t.Errorf("%s: got %q; want %q", name, got, c.says)
		}
	}
	if differs(want, nil) == "" {
		t.Error("an entry that is not there differs in nothing")
	}
}

func keepsTagsOfAnOperator(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := settings(t, b)
	cfg.Trace = d.trace()
	cfg.Tags, cfg.EnableTagOverride = []string{"v1", "blue"}, true
	r := begun(t, cfg)
	e := seen(t, c, r)
	e.Service.Tags = []string{"green"}
	if _, err := c.Catalog().Register(&api.CatalogRegistration{
		Node: e.Node.Node, Address: e.Node.Address, SkipNodeUpdate: true, Service: e.Service,
	}, nil); err != nil {
		t.Fatal(err)
	}
	green := func() bool {
		e := seen(t, c, r)
		return e != nil && slices.Equal(e.Service.Tags, []string{"green"}) && r.Status().State == StateRegistered
	}
	eventually(t, "noticed", func() bool { s := r.agent.sight(); return slices.Equal(s.entries[r.ID()].Tags, []string{"green"}) })
	if n := d.count(opRegister); n != 1 || !green() {
		t.Errorf("written %d times, the entry is %+v; want the operator's tags", n, seen(t, c, r).Service)
	}
	if err := c.Agent().ServiceDeregister(r.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "mended with the operator's tags", green)
}

func needsNoHeartbeat(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := settings(t, b)
	cfg.Trace, cfg.NoHeartbeat, cfg.HeartbeatInterval = d.trace(), true, 100*time.Millisecond
	var first switchable
	cfg.Ready = first.ready
	r := begun(t, cfg)
	if e := seen(t, c, r); check(e, heartbeatCheck(r.ID())) != nil || check(e, probeCheck(r.ID())) == nil {
		t.Errorf("checks are %v; want the probe alone", e.Checks)
	}
	first.set(errors.New("the disk is full")) // has no say now
	asked := d.count(opHeartbeat)
	eventually(t, "ten looks", func() bool { return d.count(opHeartbeat) >= asked+10 })
	if n := d.count(opRegister); n != 1 || r.Status().State != StateRegistered {
		t.Errorf("written %d times, status is %+v; want it registered once", n, r.Status())
	}
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := check(seen(t, c, r), heartbeatCheck(r.ID())); k == nil || k.Status != api.HealthCritical || k.Output != drainingOutput || r.exhausted.Load() {
		t.Errorf("in a drain that was given up: %t, the heartbeat check is %+v; want it critical and draining", r.exhausted.Load(), k)
	}
	if err := c.Agent().ServiceDeregister(r.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back as draining", func() bool {
		k := check(seen(t, c, r), heartbeatCheck(r.ID()))
		return k != nil && strings.HasPrefix(k.Output, "draining")
	})
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { return seen(t, c, r) == nil })
}

func comesBackWithoutHeartbeat(t *testing.T, b backend) {
	c := b.Client()
	cfg := settings(t, b)
	cfg.NoHeartbeat = true
	r := begun(t, cfg)
	for name, harm := range map[string]func() error{
		"a deregister": func() error { return c.Agent().ServiceDeregister(r.ID()) },
		"a lost check": func() error { return c.Agent().CheckDeregister(probeCheck(r.ID())) },
	} {
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "back after "+name, func() bool { return check(seen(t, c, r), probeCheck(r.ID())) != nil })
		inState(t, r, StateRegistered)
	}
}

func leavesItsIDWithoutHeartbeat(t *testing.T, b backend) {
	cfg := settings(t, b)
	cfg.ID, cfg.NoHeartbeat = cfg.Service+"-1", true
	first := begun(t, cfg)
	other := cfg
	other.Port++
	second := begun(t, other)
	eventually(t, "the first yields", func() bool { return errors.Is(first.Status().Err, ErrIDTaken) })
	time.Sleep(time.Second)
	if e := seen(t, b.Client(), second); e == nil || e.Service.Port != other.Port || second.Status().State != StateRegistered {
		t.Errorf("the entry is %+v; want that of the process that came last", e)
	}
}

func needsNoCheck(t *testing.T, b backend) {
	cfg := settings(t, b)
	cfg.Checks, cfg.NoHeartbeat = nil, true
	r := begun(t, cfg)
	var ids []string
	for _, k := range seen(t, b.Client(), r).Checks {
		if k.ServiceID != "" {
			ids = append(ids, k.CheckID)
		}
	}
	if diff := cmp.Diff([]string(nil), ids); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	if err := r.Drain(t.Context()); err != nil || r.exhausted.Load() {
		t.Errorf("drain: %v, given up: %t", err, r.exhausted.Load())
	}
}
