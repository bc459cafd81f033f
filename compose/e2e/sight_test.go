package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func testConsulListsEverybodyPassing(t *testing.T, m *mesh) {
	until(t, 15*time.Second, "Consul lists everybody", func(ctx context.Context) error {
		if err := m.wantPassing(ctx, usual); err != nil {
			return err
		}
		es, err := m.entries(ctx, "prometheus")
		if err != nil {
			return err
		}
		if len(es) != 1 || es[0].Checks.AggregatedStatus() != "passing" {
			return fmt.Errorf("prometheus has %d entries; want one, passing", len(es))
		}
		return nil
	})
	for service := range usual {
		cs, err := m.Containers(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		es, err := m.entries(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		at := map[string]bool{}
		for _, c := range cs {
			at[c.Address] = true
		}
		for _, e := range es {
			if !at[e.Service.Address] || e.Service.Port != trafficPort {
				t.Errorf("%s is at %s:%d; want a container's own address (%v) and %d", e.Service.ID, e.Service.Address, e.Service.Port, at, trafficPort)
			}
			delete(at, e.Service.Address)
			if e.Service.Meta["version"] == "" {
				t.Errorf("%s has meta %v; want its version", e.Service.ID, e.Service.Meta)
			}
		}
	}
	if a := m.get(t, m.consulURL+"/ui/"); a.status != http.StatusOK || !strings.Contains(a.body, "<html") {
		t.Errorf("Consul's UI answers %d %.100q", a.status, a.body)
	}
}

type target struct {
	Labels           map[string]string
	DiscoveredLabels map[string]string
	ScrapePool       string
	ScrapeURL        string
	Health           string
	LastError        string
}

func (m *mesh) targets(ctx context.Context) ([]target, error) {
	var answer struct {
		Data struct{ ActiveTargets []target }
	}
	err := m.getJSON(ctx, m.prometheus+"/api/v1/targets?state=active", &answer)
	return answer.Data.ActiveTargets, err
}

// query asks Prometheus, and returns the value of each series by the label by.
func (m *mesh) query(ctx context.Context, expr, by string) (map[string]string, error) {
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	err := m.getJSON(ctx, m.prometheus+"/api/v1/query?query="+url.QueryEscape(expr), &answer)
	got := map[string]string{}
	for _, r := range answer.Data.Result {
		got[r.Metric[by]] = fmt.Sprint(r.Value[1])
	}
	return got, err
}

func testPrometheusScrapesEverybodyFoundThroughConsul(t *testing.T, m *mesh) {
	until(t, 30*time.Second, "Prometheus scrapes everybody", func(ctx context.Context) error {
		targets, err := m.targets(ctx)
		if err != nil {
			return err
		}
		byID := map[string]target{}
		for _, g := range targets {
			if g.Health != "up" {
				return fmt.Errorf("target %v is %s: %s", g.Labels, g.Health, g.LastError)
			}
			if g.DiscoveredLabels["__meta_consul_service_id"] != "" {
				byID[g.Labels["instance"]] = g
			}
		}
		n := 0
		for service := range usual {
			es, err := m.entries(ctx, service)
			if err != nil {
				return err
			}
			for _, e := range es {
				g, ok := byID[e.Service.ID]
				if !ok {
					return fmt.Errorf("%s is no target found through Consul", e.Service.ID)
				}
				if want := fmt.Sprintf("http://%s:%d/metrics", e.Service.Address, adminPort); g.ScrapeURL != want || g.Labels["job"] != service {
					return fmt.Errorf("%s is scraped at %s as job %s; want %s as %s", e.Service.ID, g.ScrapeURL, g.Labels["job"], want, service)
				}
				n++
			}
		}
		if len(byID) != n || len(targets) != n+2 {
			return fmt.Errorf("%d targets, %d of them found through Consul; want %d and with them Consul and Prometheus", len(targets), len(byID), n)
		}
		return nil
	})
	if a := m.get(t, m.prometheus+"/query"); a.status != http.StatusOK || !strings.Contains(a.body, "<html") {
		t.Errorf("the page that Prometheus' root leads to: %d %.200q", a.status, a.body)
	}
	for range 20 {
		m.get(t, m.gateway+"/orders/1")
	}
	for _, c := range []struct {
		expr, by string
		want     map[string]string // a value of "" may be any
	}{
		{`sum by (job) (up{job=~"user|order|gateway|consul|prometheus"})`, "job", map[string]string{"user": "2", "order": "3", "gateway": "1", "consul": "1", "prometheus": "1"}},
		{`sum by (job) (http_server_request_duration_seconds_count)`, "job", map[string]string{"user": "", "order": "", "gateway": ""}},
		{`sum by (job) (http_server_request_duration_seconds_count{code="200",method="GET"}) > 0`, "job", map[string]string{"user": "", "order": "", "gateway": ""}},
		{`sum by (peer) (rollcall_instances{job="gateway",state="passing"})`, "peer", map[string]string{"user": "4", "order": "6"}}, // an entry for each protocol
		{`sum by (state) (rollcall_registration_state)`, "state", map[string]string{"registered": "11"}},
		{`rollcall_snapshot_age_seconds{job="gateway"} < 60`, "peer", map[string]string{"user": "", "order": ""}},
		{`sum by (peer) (rollcall_client_request_duration_seconds_count{job="gateway"}) > 0`, "peer", map[string]string{"user": "", "order": ""}},
		{`sum by (peer) (rollcall_picks_total{job="order"}) > 0`, "peer", map[string]string{"user": ""}},
		{`count by (job) (rollcall_build_info)`, "job", map[string]string{"user": "2", "order": "3", "gateway": "1"}},
		{`count by (job) (go_goroutines{job=~"user|order|gateway"})`, "job", map[string]string{"user": "2", "order": "3", "gateway": "1"}},
		{`count by (job) (process_resident_memory_bytes{job=~"user|order|gateway"})`, "job", map[string]string{"user": "2", "order": "3", "gateway": "1"}},
		{`consul_server_isLeader`, "job", map[string]string{"consul": "1"}},
	} {
		until(t, 20*time.Second, c.expr, func(ctx context.Context) error {
			got, err := m.query(ctx, c.expr, c.by)
			if err != nil {
				return err
			}
			for k, want := range c.want {
				if v, ok := got[k]; !ok || want != "" && v != want {
					return fmt.Errorf("got %v; want %v", got, c.want)
				}
			}
			return nil
		})
	}
	// Labels are bounded: no ID of a user and no path as it was sent.
	routes, err := m.query(t.Context(), `count by (route) (http_server_request_duration_seconds_count{job=~"user|order|gateway"})`, "route")
	if err != nil {
		t.Fatal(err)
	}
	for route := range routes {
		if strings.Contains(route, "/1") || strings.Contains(route, "nothing") {
			t.Errorf("a metric has route %q, which is a path as it was sent", route)
		}
	}
	if len(routes) == 0 {
		t.Error("no metric has a route")
	}
}

func testAdminPortShowsGatewayAndTrafficPortsDoNot(t *testing.T, m *mesh) {
	ready := struct{ Status string }{}
	if err := m.getJSON(t.Context(), m.admin+"/readyz", &ready); err != nil {
		t.Error(err)
	}
	for path, want := range map[string][]string{
		"/readyz?verbose":  {"registration", "user", "order"},
		"/livez":           nil,
		"/metrics":         {"http_server_request_duration_seconds", "rollcall_instances"},
		"/debug/discovery": {`"user"`, `"order"`},
		"/debug/pprof/":    {"goroutine"},
	} {
		a := m.get(t, m.admin+path)
		if a.status != http.StatusOK {
			t.Errorf("GET %s at the admin port: %d %.200s", path, a.status, a.body)
		}
		for _, w := range want {
			if !strings.Contains(strings.ToLower(a.body), w) {
				t.Errorf("GET %s at the admin port says nothing of %s: %.500s", path, w, a.body)
			}
		}
	}
	if a := m.get(t, m.admin+"/"); a.status != http.StatusFound || a.header.Get("Location") != "/mesh/" {
		t.Errorf("GET / at the admin port: %d to %s; want it to lead to the page of the mesh", a.status, a.header.Get("Location"))
	}
	until(t, 15*time.Second, "the page of the mesh shows who calls whom", func(ctx context.Context) error {
		a, err := m.request(ctx, http.MethodGet, m.admin+"/mesh/picture", nil)
		if err != nil {
			return err
		}
		for _, want := range []string{`"from":"gateway","to":"order"`, `"from":"gateway","to":"user"`, `"from":"order","to":"user"`} {
			if !strings.Contains(a.body, want) {
				return fmt.Errorf("%d, no %s in %s", a.status, want, a.body)
			}
		}
		return nil
	})
	// The debug page names every instance in use.
	page := m.get(t, m.admin+"/debug/discovery").body
	for _, service := range []string{"user", "order"} {
		es, err := m.entries(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids(es) {
			if !strings.Contains(page, id) {
				t.Errorf("GET /debug/discovery does not name %s", id)
			}
		}
	}
	for _, base := range []string{m.gateway, m.users, m.orders} {
		for _, path := range []string{
			"/metrics", "/livez", "/readyz", "/debug/discovery", "/debug/pprof/", "/mesh/", "/mesh/picture",
			"/users/../metrics", "/users/%2e%2e/metrics", "/orders/..%2fmetrics", "//metrics",
		} {
			a := m.get(t, base+path)
			if a.status != http.StatusNotFound && a.status != http.StatusBadRequest || strings.Contains(a.body, "go_goroutines") {
				t.Errorf("GET %s at a traffic port: %d %.100q; want 404", path, a.status, a.body)
			}
		}
	}
	// Nor is a service's own admin page reached by a request that names it otherwise.
	if a := m.get(t, m.gateway+"/metrics", "X-Forwarded-Host", "user:8081", "X-Original-Url", "/metrics"); a.status != http.StatusNotFound {
		t.Errorf("GET /metrics with headers of a proxy: %d %.100q; want 404", a.status, a.body)
	}
}

func testRequestForAnotherServiceIsRefused(t *testing.T, m *mesh) {
	es, err := m.entries(t.Context(), "user")
	if err != nil || len(es) == 0 {
		t.Fatalf("%d users, %v", len(es), err)
	}
	at := fmt.Sprintf("http://%s:%d/users/1", es[0].Service.Address, es[0].Service.Port)
	reach := func(want int, header ...string) error {
		a, err := m.request(t.Context(), http.MethodGet, at, nil, header...)
		if err != nil {
			return err
		}
		if a.status != want {
			return fmt.Errorf("GET %s with %q: %d %s; want %d", at, header, a.status, a.body, want)
		}
		return nil
	}
	if err := errors.Join(
		reach(http.StatusMisdirectedRequest, "Rollcall-Service", "order"),
		reach(http.StatusOK, "Rollcall-Service", "user"),
		reach(http.StatusOK),
	); err != nil {
		t.Error(err)
	}
	// From outside the header means nothing: the gateway drops it.
	if a := m.get(t, m.gateway+"/users/1", "Rollcall-Service", "order"); a.status != http.StatusOK {
		t.Errorf("GET /users/1 at the gateway, with the header of another service: %d %s; want 200", a.status, a.body)
	}
}
