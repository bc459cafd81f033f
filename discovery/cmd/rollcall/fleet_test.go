package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// fleet enters services into the catalog, at nodes without an agent, so that nothing but
// this test says anything of them.
func fleet(t *testing.T, client *api.Client) {
	t.Helper()
	for _, e := range []struct {
		service, id, node, host string
		tags                    []string
		meta                    map[string]string
		zone                    string
		kind                    api.ServiceKind
		weight                  int
		checks                  api.HealthChecks
	}{
		{
			service: "order", id: "order-1", node: "host-a", host: "10.0.0.1", zone: "eu-1a", weight: 3, tags: []string{"http", "prometheus"},
			meta:   map[string]string{"version": "1.4.0"},
			checks: api.HealthChecks{{CheckID: "order-1:http", Name: "answers", Status: "passing", Output: "HTTP GET http://10.0.0.1:8081/readyz: 200 OK"}},
		},
		{
			service: "order", id: "order-2", node: "host-b", host: "10.0.0.2", zone: "eu-1b", weight: 1, tags: []string{"http"},
			meta:   map[string]string{"version": "1.5.0"},
			checks: api.HealthChecks{{CheckID: "order-2:http", Name: "answers", Status: "warning", Output: "429 Too Many Requests"}},
		},
		{
			service: "order", id: "order-3", node: "host-b", host: "10.0.0.2", weight: 1, tags: []string{"http"},
			checks: api.HealthChecks{
				{CheckID: "order-3:http", Name: "answers", Status: "critical", Output: "dial tcp 10.0.0.2:8080: connection refused\n"},
				{CheckID: "order-3:rollcall", Name: "heartbeat", Status: "passing", Output: "up"},
			},
		},
		{
			service: "order", id: "order-4", node: "host-a", host: "10.0.0.4", weight: 1, tags: []string{"http"},
			checks: api.HealthChecks{{CheckID: "service:order-4:rollcall", Name: "heartbeat", Status: "critical", Output: "draining"}},
		},
		{
			service: "order", id: "order-5", node: "host-a", host: "10.0.0.5", weight: 1, tags: []string{"http"},
			checks: api.HealthChecks{{CheckID: "_service_maintenance:order-5", Name: "Service Maintenance Mode", Status: "critical", Notes: "looking at its disk"}},
		},
		{service: "order", id: "order-6-grpc", node: "host-a", host: "10.0.0.1", weight: 1, tags: []string{"grpc"}, meta: map[string]string{"version": "1.4.0"}},
		{service: "order", id: "order-7\x1b[31m", node: "host-a", host: "10.0.0.7", weight: 1, meta: map[string]string{"rollcall-tls": "true"}},
		{service: "order-sidecar-proxy", id: "order-1-sidecar", node: "host-a", host: "10.0.0.1", weight: 1, kind: api.ServiceKindConnectProxy},
		{
			service: "user", id: "user-1", node: "host-b", host: "10.0.0.8", weight: 1,
			checks: api.HealthChecks{{CheckID: "user-1", Name: "answers", Status: "critical", Output: "timeout"}},
		},
	} {
		service := &api.AgentService{
			Kind: e.kind, Service: e.service, ID: e.id, Address: e.host, Port: 8080, Tags: e.tags, Meta: e.meta,
			Weights: api.AgentWeights{Passing: e.weight, Warning: e.weight},
		}
		if e.zone != "" {
			service.Locality = &api.Locality{Region: "eu-1", Zone: e.zone}
		}
		if e.kind == api.ServiceKindConnectProxy {
			service.Proxy = &api.AgentServiceConnectProxyConfig{DestinationServiceName: "order"}
		}
		for _, c := range e.checks {
			c.Node, c.ServiceID = e.node, e.id
		}
		node := map[string]string{"host-a": "10.0.0.1", "host-b": "10.0.0.2"}[e.node]
		if _, err := client.Catalog().Register(&api.CatalogRegistration{Node: e.node, Address: node, Service: service, Checks: e.checks}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// withoutConsul leaves out the lines about Consul's own service.
func withoutConsul(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "consul ") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func TestAnswersAboutAFleetAreWhatTheyWere(t *testing.T) {
	eachConsul(t, func(t *testing.T, client *api.Client) {
		fleet(t, client)
		for _, c := range []struct {
			name  string
			words string
			code  int
		}{
			{"ls", "ls", 0},
			{"ls-wide", "ls -o wide", 0},
			{"ls-order", "ls order", 0},
			{"ls-order-wide", "ls order -o wide", 0},
			{"ls-order-json", "ls order -o json", 0},
			{"ls-order-yaml", "ls order -o yaml", 0},
			{"resolve", "resolve order", 0},
			{"resolve-wide", "resolve order -o wide", 0},
			{"resolve-grpc", "resolve order --protocol grpc", 0},
			{"resolve-tags", "resolve order --tag prometheus --meta version=1.4.0", 0},
			{"resolve-tls", "resolve order --tls", 0},
			{"resolve-panic", "resolve user", 0},
			{"resolve-none", "resolve order --tag nope", exitNo},
			{"explain-passing", "explain order/order-1", 0},
			{"explain-warning", "explain order/order-2", 0},
			{"explain-critical", "explain order/order-3", exitNo},
			{"explain-draining", "explain order/order-4", exitNo},
			{"explain-maintenance", "explain order/order-5", exitNo},
			{"explain-json", "explain order/order-3 -o json", exitNo},
		} {
			got := rollcall(t, strings.Fields(c.words)...)
			if got.code != c.code || got.errs != "" {
				t.Errorf("rollcall %s: exit code %d and %q; want %d and nothing", c.words, got.code, got.errs, c.code)
			}
			golden(t, c.name, withoutConsul(got.out))
		}
	})
}

func TestAnswersFitATerminalOf80Columns(t *testing.T) {
	eachConsul(t, func(t *testing.T, client *api.Client) {
		fleet(t, client)
		for name, command := range map[string]interface {
			Run(ctx context.Context, s *session) error
		}{
			"terminal-ls":       &lsCmd{form: form{"table"}},
			"terminal-ls-order": &lsCmd{form: form{"table"}, Service: "order"},
			"terminal-resolve":  &resolveCmd{form: form{"table"}, Service: "order", Protocol: "http"},
		} {
			var out screen
			s := sessionOf(client, &out)
			s.width, s.colour, s.terminal = 80, true, true
			if err := command.Run(t.Context(), s); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			golden(t, name, withoutConsul(out.take()))
		}
	})
}

func TestEntryThatNoClientCanUseIsNamed(t *testing.T) {
	eachConsul(t, func(t *testing.T, client *api.Client) {
		fleet(t, client)
		entry := &api.AgentService{Service: "order", ID: "order-0", Address: "10.0.0.9"}
		if _, err := client.Catalog().Register(&api.CatalogRegistration{Node: "host-a", Address: "10.0.0.1", Service: entry}, nil); err != nil {
			t.Fatal(err)
		}
		got := rollcall(t, "ls", "order")
		if want := `instance "order-0": Port is 0`; got.code != 0 || strings.Contains(got.out, "order-0") || !strings.Contains(got.errs, want) {
			t.Errorf("got exit code %d, %q and %q; want the others, and %q on standard error", got.code, got.out, got.errs, want)
		}
		if got := rollcall(t, "explain", "order/order-0"); got.code != exitNo || !strings.Contains(got.errs, "order has no instance order-0") {
			t.Errorf("explain: got exit code %d and %q; want %d", got.code, got.errs, exitNo)
		}
	})
}

func TestListThatTakesLongIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		const services = 64 // four turns of sixteen
		for n := range services {
			enter(t, agent.Client(), fmt.Sprintf("service-%02d", n), fmt.Sprint("instance-", n), "10.0.0.1")
		}
		agent.Break("/v1/health/service/", consultest.Slow(1024, time.Second)) // its second half comes later
		var out screen
		s := sessionOf(agent.Client(), &out)
		s.timeout = 1500 * time.Millisecond
		began := time.Now()
		if err := (&lsCmd{form: form{"table"}}).Run(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 2*s.timeout || strings.Count(out.take(), "service-") != services {
			t.Errorf("it took %v, and did not list all; want longer than one answer may take, and all", took)
		}
		agent.Break("/v1/health/service/", consultest.Silent())
		err := (&lsCmd{form: form{"table"}}).Run(t.Context(), s)
		if err == nil || !strings.Contains(err.Error(), "no answer within 1.5s") {
			t.Errorf("of a Consul that is silent: got %v; want that it did not answer", err)
		}
	})
}

func TestAThousandServicesAreListed(t *testing.T) {
	agent := consultest.New(t)
	client := agent.Client()
	const services = 1000
	for n := range services {
		enter(t, client, fmt.Sprintf("service-%03d", n), fmt.Sprint("instance-", n), "10.0.0.1")
	}
	var out screen
	if err := (&lsCmd{form: form{"table"}}).Run(t.Context(), sessionOf(client, &out)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(withoutConsul(out.take()), "passing"); got != services {
		t.Errorf("%d services are listed as passing; want %d", got, services)
	}
}
