package doctor_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/doctor"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// entry is one that passes.
func entry(t *testing.T, service, id, address string, tags ...string) *api.AgentServiceRegistration {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return &api.AgentServiceRegistration{
		ID: id, Name: service, Address: host, Port: n, Tags: tags,
		Checks: api.AgentServiceChecks{{CheckID: id + ":rollcall", TTL: "1h", Status: api.HealthPassing}},
	}
}

func register(t *testing.T, client *api.Client, entries ...*api.AgentServiceRegistration) {
	t.Helper()
	for _, e := range entries {
		if err := client.Agent().ServiceRegister(e); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits until the catalog has what is wanted of a service.
func await(t *testing.T, client *api.Client, service, what string, ok func(entries []*api.ServiceEntry) bool) {
	t.Helper()
	var index uint64
	for range 100 {
		entries, meta, err := client.Health().Service(service, "", false, (&api.QueryOptions{WaitIndex: index}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if ok(entries) {
			return
		}
		index = meta.LastIndex
	}
	t.Fatalf("the catalog never had %s of %s", what, service)
}

func awaitEntries(t *testing.T, client *api.Client, service string, n int) {
	t.Helper()
	await(t, client, service, "as many entries", func(entries []*api.ServiceEntry) bool { return len(entries) == n })
}

// serve starts an HTTP server that is an instance of a service.
func serve(t *testing.T, service string) (address string) {
	t.Helper()
	s := httptest.NewServer(httpmesh.RequireService(service, http.NotFoundHandler()))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// serveTLS starts one that speaks TLS.
func serveTLS(t *testing.T) (address string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // of handshakes that are plain HTTP
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// closed is an address where nothing listens.
func closed(t *testing.T) string {
	t.Helper()
	l := listen(t)
	l.Close()
	return l.Addr().String()
}

func examine(t *testing.T, client *api.Client, services ...string) []doctor.Finding {
	t.Helper()
	return doctor.Examine(t.Context(), doctor.Config{Client: client, Address: "http://127.0.0.1:8500", HostPort: "127.0.0.1:8500", Services: services})
}

// of are the findings of one question.
func of(findings []doctor.Finding, check string) []doctor.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f doctor.Finding) bool { return f.Check != check })
}

// want checks that a question has one finding of this level which says and advises
// this, and returns it.
func want(t *testing.T, findings []doctor.Finding, level doctor.Level, check string, says []string, remedy ...string) {
	t.Helper()
	var found []doctor.Finding
	for _, f := range of(findings, check) {
		if f.Level == level {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("got %d findings of %s at level %s; want 1:\n%s", len(found), check, level, report(findings))
	}
	for _, word := range says {
		if !strings.Contains(found[0].Says, word) {
			t.Errorf("%q lacks %q", found[0].Says, word)
		}
	}
	for _, word := range remedy {
		if !strings.Contains(found[0].Remedy, word) {
			t.Errorf("the remedy %q lacks %q", found[0].Remedy, word)
		}
	}
	if strings.Contains(found[0].Says+found[0].Remedy, "\n") {
		t.Errorf("%+v is more than a line", found[0])
	}
}

func report(findings []doctor.Finding) string {
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-5s %-10s %s\n      %s\n", f.Level, f.Check, f.Says, f.Remedy)
	}
	return b.String()
}

func TestWellFleetHasNothingToMend(t *testing.T) {
	s := consultest.Real(t)
	prometheus := targets(t, "order-1", s.Node())
	order := entry(t, "order", "order-1", serve(t, "order"), catalog.HTTP, "prometheus")
	register(t, s.Client(), order,
		entry(t, "order", "order-1-grpc", listen(t).Addr().String(), catalog.GRPC),
		entry(t, "user", "user-1", serve(t, "user")))
	awaitEntries(t, s.Client(), "order", 2)
	awaitEntries(t, s.Client(), "user", 1)
	var told []doctor.Finding
	findings := doctor.Examine(t.Context(), doctor.Config{
		Client: s.Client(), Address: s.Addr(), HostPort: s.Addr(), DNS: s.DNS(), Prometheus: prometheus,
		Fresh: func() (*api.Client, func(), error) { return s.Client(), func() {}, nil },
		Tell:  func(f doctor.Finding) { told = append(told, f) },
	})
	if worst := doctor.Worst(findings); worst != doctor.OK {
		t.Errorf("got %s:\n%s", worst, report(findings))
	}
	if !slices.Equal(told, findings) {
		t.Errorf("told %v; want all findings as they were made", told)
	}
	for _, f := range findings {
		if !slices.Contains(doctor.Checks[:], f.Check) || f.Remedy != "" {
			t.Errorf("got %+v; want a question of Checks, and no remedy", f)
		}
	}
	// Each question was answered, but for versions, of which there are none.
	for _, check := range doctor.Checks {
		if check != "versions" && len(of(findings, check)) != 1 {
			t.Errorf("got %d findings of %s; want 1", len(of(findings, check)), check)
		}
	}
	want(t, findings, doctor.OK, "addresses", []string{"3 of 3", "HTTP as their service (2)", "another protocol (1)"})
}

func TestConsulThatDoesNotAnswerIsFound(t *testing.T) {
	a := consultest.New(t)
	a.Break("", consultest.Refuse())
	findings := examine(t, a.Client())
	want(t, findings, doctor.Failure, "consul", []string{"127.0.0.1:8500"}, "start Consul", "CONSUL_HTTP_ADDR")
	if len(findings) != 1 {
		t.Errorf("got more than that:\n%s", report(findings))
	}
	a.Mend()
	a.Break("", consultest.HTML())
	want(t, examine(t, a.Client()), doctor.Failure, "consul", nil, "no Consul")
}

func TestPlainHTTPWhereConsulSpeaksTLSIsFoundAndTheOtherWayRound(t *testing.T) {
	client := func(scheme, address string) *api.Client {
		tr := &http.Transport{}
		t.Cleanup(tr.CloseIdleConnections)
		c, err := api.NewClient(&api.Config{Address: address, Scheme: scheme, HttpClient: &http.Client{Transport: tr}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	want(t, examine(t, client("http", serveTLS(t))), doctor.Failure, "consul", nil, "CONSUL_HTTP_ADDR=https://")
	want(t, examine(t, client("https", serve(t, "order"))), doctor.Failure, "consul", nil, "take https://")
	want(t, examine(t, client("https", serveTLS(t))), doctor.Failure, "consul", nil, "CONSUL_CACERT")
}

func TestServersWithoutALeaderAreFound(t *testing.T) {
	a := consultest.New(t)
	a.LoseLeader()
	findings := examine(t, a.Client())
	want(t, findings, doctor.Failure, "leader", []string{"no leader"}, "more than half", "raft list-peers")
	if len(of(findings, "services")) != 0 {
		t.Errorf("something is said of services, of which nothing can be known:\n%s", report(findings))
	}
}

func TestAddressThatLeadsToSeveralAgentsIsFound(t *testing.T) {
	a := consultest.New(t)
	b := consultest.NewBalancer(a, a.AddAgent(t, "worker-2"))
	findings := doctor.Examine(t.Context(), doctor.Config{
		Client: b.Client(), Address: "http://consul:8500", HostPort: "consul:8500",
		Fresh: func() (*api.Client, func(), error) { return b.Client(), func() {}, nil },
	})
	want(t, findings, doctor.Failure, "agents", []string{"http://consul:8500", "2 agents", consultest.NodeName, "worker-2"}, "the address of one of them")
}

func TestAgentOnAnotherHostIsNoted(t *testing.T) {
	a := consultest.New(t)
	a.SetNodeAddress("192.0.2.7")
	findings := doctor.Examine(t.Context(), doctor.Config{Client: a.Client(), Address: "consul:8500", HostPort: "consul:8500"})
	want(t, findings, doctor.Note, "agent", []string{"192.0.2.7", "not on this host"}, "agent on each host")
}

func TestOldConsulIsFound(t *testing.T) {
	a := consultest.New(t)
	for version, level := range map[string]doctor.Level{"1.10.12": doctor.Warning, "1.11.0": doctor.OK, "v2.0.0": doctor.OK, "1.22.3+ent": doctor.OK, "new": doctor.Note} {
		a.Break("/v1/agent/self", consultest.Answer(200, `{"Config":{"NodeName":"consul","Version":"`+version+`"}}`))
		want(t, examine(t, a.Client()), level, "version", []string{version})
	}
}

// tokenOf makes a token with these rules.
func tokenOf(t *testing.T, s *consultest.Server, name, rules string) string {
	t.Helper()
	policy, _, err := s.Client().ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := s.Client().ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{ID: policy.ID}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token.SecretID
}

func TestMissingRightsAreFoundByTheirNames(t *testing.T) {
	s := consultest.RealWithACLs(t)
	register(t, s.Client(), entry(t, "order", "order-1", serve(t, "order")), entry(t, "user", "user-1", serve(t, "user")))
	awaitEntries(t, s.Client(), "order", 1)
	awaitEntries(t, s.Client(), "user", 1)

	t.Run("service:read", func(t *testing.T) {
		client := s.ClientWith(tokenOf(t, s, "users", `service "user" { policy = "read" } node_prefix "" { policy = "read" }`))
		findings := examine(t, client, "order", "user")
		want(t, findings, doctor.Failure, "rights", []string{"service:read for order"}, `service "order" { policy = "read" }`)
		want(t, findings, doctor.OK, "services", nil) // it may be there
		want(t, findings, doctor.Note, "agent", nil, "agent:read")
		want(t, examine(t, client), doctor.Note, "rights", []string{"leaves services out"}, "name the services")
	})
	t.Run("node:read", func(t *testing.T) {
		client := s.ClientWith(tokenOf(t, s, "services", `service_prefix "" { policy = "read" }`))
		findings := examine(t, client, "order")
		want(t, findings, doctor.Failure, "rights", []string{"node:read"}, `node_prefix "" { policy = "read" }`)
		want(t, findings, doctor.OK, "services", nil)
	})
	t.Run("none lacks", func(t *testing.T) {
		client := s.ClientWith(tokenOf(t, s, "both", `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`))
		want(t, examine(t, client, "order"), doctor.OK, "rights", nil)
	})
	t.Run("a token of nobody's", func(t *testing.T) {
		want(t, examine(t, s.ClientWith("11111111-2222-4333-8444-555555555555")), doctor.Failure, "services", nil, "CONSUL_HTTP_TOKEN")
	})
	t.Run("of DNS", func(t *testing.T) {
		findings := doctor.Examine(t.Context(), doctor.Config{Client: s.Client(), Address: s.Addr(), HostPort: s.Addr(), DNS: s.DNS(), Services: []string{"order"}})
		want(t, findings, doctor.Warning, "dns", []string{"order"}, "set-agent-token dns")
	})
}

func TestDNSThatDoesNotAnswerMattersWhereItIsWanted(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", serve(t, "order")))
	nowhere := closed(t)
	findings := doctor.Examine(t.Context(), doctor.Config{Client: a.Client(), HostPort: "127.0.0.1:8500", DNS: nowhere})
	want(t, findings, doctor.Failure, "dns", []string{nowhere}, "ports.dns")
	_, port, err := net.SplitHostPort(nowhere)
	if err != nil {
		t.Fatal(err)
	}
	a.Break("/v1/agent/self", consultest.Answer(200, `{"Config":{"NodeName":"consul"},"DebugConfig":{"DNSPort":`+port+`}}`))
	want(t, examine(t, a.Client()), doctor.Note, "dns", []string{nowhere}, "rollcall needs none")
	a.Break("/v1/agent/self", consultest.Answer(200, `{"Config":{"NodeName":"consul"},"DebugConfig":{"DNSPort":-1}}`))
	want(t, examine(t, a.Client()), doctor.Note, "dns", []string{"has none"})
}

func TestServiceWithoutInstancesIsFoundWithANameThatItMayBe(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", serve(t, "order")))
	want(t, examine(t, a.Client(), "orders"), doctor.Failure, "services", []string{"orders has no instance"}, "is it order?")
	want(t, examine(t, a.Client(), "billing"), doctor.Failure, "services", []string{"billing has no instance"}, "start an instance", "order")
	want(t, examine(t, consultest.New(t).Client()), doctor.Warning, "services", []string{"no service"})
}

func TestAddressThatTakesNoConnectionIsFound(t *testing.T) {
	a := consultest.New(t)
	nowhere := closed(t)
	register(t, a.Client(), entry(t, "order", "order-1", nowhere))
	want(t, examine(t, a.Client()), doctor.Failure, "addresses", []string{"order/order-1", nowhere, "connection refused", "Consul says passing"}, "listens at that address", "firewall")
	// It is no news to those who would call it.
	if err := a.SetCheck("order-1:rollcall", api.HealthCritical, "not ready"); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, a.Client()), doctor.Warning, "addresses", []string{"Consul says critical"})
}

func TestAddressOfAnotherServiceIsFound(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", serve(t, "user")))
	want(t, examine(t, a.Client()), doctor.Failure, "addresses", []string{"order/order-1", `this is "user"`}, "consul services deregister -id=order-1")
}

func TestTLSWherePlainIsSaidIsFoundAndTheOtherWayRound(t *testing.T) {
	a := consultest.New(t)
	tls, plain := entry(t, "tls", "tls-1", serveTLS(t)), entry(t, "plain", "plain-1", serve(t, "plain"))
	tls.Meta, plain.Meta = map[string]string{catalog.MetaTLS: "true"}, map[string]string{catalog.MetaTLS: "true"}
	register(t, a.Client(), tls, plain, entry(t, "order", "order-1", serveTLS(t)), entry(t, "rpc", "rpc-1", serveTLS(t), catalog.GRPC))
	want(t, examine(t, a.Client(), "order"), doctor.Failure, "addresses", []string{"order/order-1", "speaks TLS"}, "rollcall-tls=true")
	want(t, examine(t, a.Client(), "rpc"), doctor.Failure, "addresses", []string{"rpc/rpc-1", "speaks TLS"}, "rollcall-tls=true")
	want(t, examine(t, a.Client(), "plain"), doctor.Failure, "addresses", []string{"plain/plain-1", "said to speak TLS"}, "rollcall-tls")
	want(t, examine(t, a.Client(), "tls"), doctor.OK, "addresses", []string{"1 of 1", "TLS (1)"})
}

func TestProgramThatHangsIsFound(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", listen(t).Addr().String(), catalog.HTTP), entry(t, "db", "db-1", listen(t).Addr().String()))
	findings := examine(t, a.Client())
	want(t, findings, doctor.Failure, "addresses", []string{"order/order-1", "has not answered"}, "hangs")
	want(t, findings, doctor.Warning, "addresses", []string{"db/db-1", "has not answered"}, "tagged with what it speaks")
}

func TestWhatSpeaksNoHTTPIsAFaultOnlyWhereItIsSaidTo(t *testing.T) {
	a := consultest.New(t)
	l := listen(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("220 ready\r\n"))
			conn.Close()
		}
	}()
	defer func() { l.Close(); <-served }()
	register(t, a.Client(), entry(t, "mail", "mail-1", l.Addr().String()), entry(t, "web", "web-1", l.Addr().String(), catalog.HTTP))
	want(t, examine(t, a.Client(), "mail"), doctor.OK, "addresses", []string{"another protocol (1)"})
	want(t, examine(t, a.Client(), "web"), doctor.Failure, "addresses", []string{"web/web-1", "tagged http"}, "what listens")
}

func TestEntryThatNoClientCanUseIsFound(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", "127.0.0.1:0"))
	want(t, examine(t, a.Client()), doctor.Failure, "addresses", []string{"order-1", "Port"}, "port")
}

func TestIDAtTwoNodesIsFound(t *testing.T) {
	a := consultest.New(t)
	other := a.AddAgent(t, "worker-2")
	here, there := serve(t, "order"), serve(t, "order")
	register(t, a.Client(), entry(t, "order", "order-1", here))
	register(t, other.Client(), entry(t, "order", "order-1", there))
	want(t, examine(t, a.Client()), doctor.Failure, "ids", []string{"order/order-1", "2 nodes", consultest.NodeName, "worker-2"}, "an ID of its own")
	register(t, other.Client(), entry(t, "order", "order-1", here)) // its agent was changed
	want(t, examine(t, a.Client()), doctor.Failure, "ids", []string{"order/order-1", "2 nodes"}, "one program", "consul services deregister -id=order-1")
}

func TestAddressUnderTwoIDsIsFound(t *testing.T) {
	a := consultest.New(t)
	address := serve(t, "order")
	register(t, a.Client(), entry(t, "order", "order-1", address), entry(t, "order", "order-old", address))
	want(t, examine(t, a.Client()), doctor.Failure, "ids", []string{address, "order/order-1, order/order-old"}, "deregister")
	register(t, a.Client(), entry(t, "shop", "shop-1", address))
	want(t, examine(t, a.Client(), "shop"), doctor.OK, "ids", nil)
	if err := a.Client().Agent().ServiceDeregister("order-old"); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, a.Client()), doctor.Warning, "ids", []string{"order/order-1, shop/shop-1"})
}

func TestEntriesOfADeadNodeAreFound(t *testing.T) {
	s := consultest.Real(t)
	agent := s.Agent()
	register(t, agent.Client(), entry(t, "order", "order-1", serve(t, "order")))
	awaitEntries(t, s.Client(), "order", 1)
	agent.Kill()
	await(t, s.Client(), "order", "a dead node", func(entries []*api.ServiceEntry) bool {
		return entries[0].Checks.AggregatedStatus() == api.HealthCritical
	})
	findings := examine(t, s.Client())
	want(t, findings, doctor.Failure, "ghosts", []string{consultest.AgentNodeName, "order/order-1"}, "consul force-leave -prune "+consultest.AgentNodeName)
	if len(of(findings, "addresses")) != 0 {
		t.Errorf("the same is told twice:\n%s", report(findings))
	}
}

func TestHeartbeatThatHasRunOutIsFound(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", serve(t, "order")))
	if err := a.SetCheck("order-1:rollcall", api.HealthCritical, "TTL expired (last output before timeout follows): serving"); err != nil {
		t.Fatal(err)
	}
	want(t, examine(t, a.Client()), doctor.Warning, "ghosts", []string{"order/order-1"}, "whether the program runs", "deregister -id=order-1")
}

func TestLoopbackThatOthersCannotReachIsFound(t *testing.T) {
	a := consultest.New(t)
	a.SetNodeAddress("192.0.2.7")
	address := serve(t, "order")
	register(t, a.Client(), entry(t, "order", "order-1", address))
	want(t, examine(t, a.Client()), doctor.Failure, "loopback", []string{"order/order-1", address, "192.0.2.7"}, "registration.Config.Host", "--host")
}

func TestVersionsOfAServiceAreNoted(t *testing.T) {
	a := consultest.New(t)
	older, newer := entry(t, "order", "order-1", serve(t, "order")), entry(t, "order", "order-2", serve(t, "order"))
	older.Meta, newer.Meta = map[string]string{"version": "1.2"}, map[string]string{"version": "1.3"}
	register(t, a.Client(), older, newer)
	want(t, examine(t, a.Client()), doctor.Note, "versions", []string{"order", "1.2 (1), 1.3 (1)"}, "rollout")
}

// targets is a Prometheus that has a target of one instance.
func targets(t *testing.T, id, node string) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/targets" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"status":"success","data":{"activeTargets":[
			{"discoveredLabels":{"__meta_consul_service_id":%q,"__meta_consul_node":%q},"scrapeUrl":"http://10.0.0.1:9000/metrics","health":"up"},
			{"discoveredLabels":{"__meta_consul_service_id":"order-down","__meta_consul_node":%q},"scrapeUrl":"http://10.0.0.2:9000/metrics","lastError":"connection\nrefused","health":"down"},
			{"discoveredLabels":{"__address__":"127.0.0.1:9999"},"scrapeUrl":"http://127.0.0.1:9999/metrics","health":"up"}
		]}}`, id, node, node)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestInstancesThatPrometheusDoesNotScrapeAreFound(t *testing.T) {
	a := consultest.New(t)
	url := targets(t, "order-1", consultest.NodeName)
	byAddress := entry(t, "order", "order-static", serve(t, "order"), "prometheus")
	byAddress.Meta = map[string]string{"prometheus_port": "9999"}
	register(t, a.Client(),
		entry(t, "order", "order-1", serve(t, "order"), "prometheus"),
		entry(t, "order", "order-untagged", serve(t, "order")),
		byAddress)
	findings := examine(t, a.Client(), "order")
	want(t, findings, doctor.Note, "prometheus", []string{"no instance of the service prometheus"}, "--prometheus")

	// Found through the catalog.
	register(t, a.Client(), entry(t, "prometheus", "prometheus-1", strings.TrimPrefix(url, "http://")))
	want(t, examine(t, a.Client(), "order"), doctor.OK, "prometheus", []string{"2 instances", url})

	register(t, a.Client(), entry(t, "order", "order-missing", serve(t, "order"), "prometheus"))
	want(t, examine(t, a.Client(), "order"), doctor.Failure, "prometheus", []string{"order/order-missing", "no target", url}, "consul_sd_configs", url+"/service-discovery")
	if err := a.Client().Agent().ServiceDeregister("order-missing"); err != nil {
		t.Fatal(err)
	}
	register(t, a.Client(), entry(t, "order", "order-down", serve(t, "order"), "prometheus"))
	want(t, examine(t, a.Client(), "order"), doctor.Failure, "prometheus", []string{"order/order-down", "http://10.0.0.2:9000/metrics", "connection refused"}, "prometheus_port")

	findings = doctor.Examine(t.Context(), doctor.Config{Client: a.Client(), Services: []string{"order"}, Prometheus: "http://" + closed(t)})
	want(t, findings, doctor.Warning, "prometheus", []string{"connection refused"}, "--prometheus")
}

func TestExamineChangesNothing(t *testing.T) {
	a := consultest.New(t)
	register(t, a.Client(), entry(t, "order", "order-1", serve(t, "order")))
	before := len(a.Requests(""))
	examine(t, a.Client())
	asked := a.Requests("")[before:]
	if len(asked) < 5 {
		t.Errorf("asked Consul %d times", len(asked))
	}
	for _, r := range asked {
		if r.Method != http.MethodGet {
			t.Errorf("asked %s %s; want GETs alone", r.Method, r.Path)
		}
	}
}

func TestExamineEndsWithItsContext(t *testing.T) {
	a := consultest.New(t)
	a.Break("/v1/catalog/services", consultest.Silent())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		doctor.Examine(ctx, doctor.Config{Client: a.Client()})
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(a.Requests("/v1/catalog/services")) == 0 {
		select {
		case <-done:
			t.Fatal("ended before it asked")
		case <-tick.C:
		}
	}
	cancel()
	<-done // else the test does not end
}
