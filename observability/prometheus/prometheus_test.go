// Package prometheus_test tries prometheus.yml in a real Prometheus beside a real Consul.
package prometheus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

var (
	ruleFiles = []string{"slo.yml", "alerts.yml", "consul.yml"}
	waits     = regexp.MustCompile(`(?m)^(\s+for: ).*$`)
)

// setting is how a Prometheus of a test differs from the fleet's.
type setting struct {
	consul        string   // where it finds instances
	servers       []string // of Consul, which it scrapes; nil: that one
	alertmanagers []string
	wait          string // of each alert that waits; "": its own
}

// server runs the Prometheus that PROMETHEUS_BIN names with our configuration, and returns its URL. It ends with the
// test.
func server(t *testing.T, s setting) string {
	t.Helper()
	binary := os.Getenv("PROMETHEUS_BIN")
	if binary == "" {
		t.Skip("needs a real Prometheus: PROMETHEUS_BIN is not set")
	}
	dir := t.TempDir()
	files := map[string]string{}
	for _, name := range append(ruleFiles, "prometheus.yml") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
		if s.wait != "" {
			files[name] = waits.ReplaceAllString(files[name], "${1}"+s.wait)
		}
	}
	if s.servers == nil {
		s.servers = []string{s.consul}
	}
	files["prometheus.yml"] = strings.NewReplacer(
		`targets: ["consul:8500"]`, `targets: ["`+strings.Join(s.servers, `", "`)+`"]`,
		"consul:8500", s.consul,
		"/etc/alertmanagers/", dir+"/alertmanager",
	).Replace(files["prometheus.yml"])
	for n, address := range s.alertmanagers {
		files[fmt.Sprintf("alertmanager%d.yml", n)] = fmt.Sprintf("- targets: [%q]\n", address)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	consoles, err := filepath.Abs("consoles")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--web.console.templates="+consoles, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	// As compose/prometheus.yaml has it.
	if err := os.CopyFS(filepath.Join(dir, "static", "mantine-ui"), os.DirFS("root")); err != nil {
		t.Fatal(err)
	}
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "ROLLCALL_LINK_MESH=http://localhost:8081/mesh/", "ROLLCALL_LINK_CONSUL=http://localhost:8500/ui/dc1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its log is whole only then
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", log)
		}
	})
	return "http://" + address
}

// get decodes what Prometheus answers.
func get(t *testing.T, from string, to any) error {
	t.Helper()
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(from)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", from, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(to)
}

// until waits for it to say so.
func until(t *testing.T, it func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = it(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// An instance has metrics at this port, and says which versions it has, and that it has not heard from Consul.
func instance(t *testing.T) (port string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "go_info{version=\"go9\"} 1\nrollcall_build_info{version=\"v9\",goversion=\"go9\"} 1\nrollcall_snapshot_age_seconds{peer=\"user\"} 99\n")
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// registered is a Consul with two instances of one ID on two nodes, the sidecar of one of them, and another instance
// that has no tag.
func registered(t *testing.T) (address string) {
	t.Helper()
	consul := consultest.Real(t)
	one, two := instance(t), instance(t)
	register := func(node string, service *api.AgentService) {
		service.Address, service.Port = "127.0.0.1", 1
		if _, err := consul.Client().Catalog().Register(&api.CatalogRegistration{Node: node, Address: "127.0.0.1", Service: service}, nil); err != nil {
			t.Fatal(err)
		}
	}
	tags := []string{"prometheus"}
	register("one", &api.AgentService{ID: "order-1", Service: "order", Tags: tags, Meta: map[string]string{"prometheus_port": one, "version": "v1"}})
	register("two", &api.AgentService{ID: "order-1", Service: "order", Tags: tags, Meta: map[string]string{"prometheus_port": two, "version": "v2"}})
	register("two", &api.AgentService{ID: "order-2", Service: "order"})
	register("one", &api.AgentService{
		ID: "order-1-sidecar-proxy", Service: "order-sidecar-proxy", Kind: api.ServiceKindConnectProxy, Tags: tags,
		Meta: map[string]string{"prometheus_port": one}, Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "order"},
	})
	return consul.Addr()
}

func TestEachInstanceWithTheTagIsScrapedOnceAndHasSeriesOfItsOwn(t *testing.T) {
	prometheus := server(t, setting{consul: registered(t)})
	until(t, func() error {
		var answer struct {
			Data struct {
				ActiveTargets []struct {
					ScrapePool string
					Health     string
					Labels     map[string]string
				}
			}
		}
		if err := get(t, prometheus+"/api/v1/targets?state=active", &answer); err != nil {
			return err
		}
		var got []string
		for _, target := range answer.Data.ActiveTargets {
			if target.ScrapePool == "mesh" {
				got = append(got, fmt.Sprint(target.Health, " ", target.Labels))
			}
		}
		slices.Sort(got)
		want := []string{"up map[instance:order-1 job:order node:one]", "up map[instance:order-1 job:order node:two]"}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("targets, want -, got +:\n%s", diff)
		}
		return nil
	})
	for metric, want := range map[string]string{
		"go_info":             `go_info{instance="order-1", job="order", node="NODE", version="go9"}`,
		"rollcall_build_info": `rollcall_build_info{goversion="go9", instance="order-1", job="order", node="NODE", version="v9"}`,
	} {
		until(t, func() error {
			got, err := series(t, prometheus, metric+`{job="order"}`)
			if err != nil {
				return err
			}
			if diff := cmp.Diff([]string{strings.ReplaceAll(want, "NODE", "one"), strings.ReplaceAll(want, "NODE", "two")}, got); diff != "" {
				return fmt.Errorf("series, want -, got +:\n%s", diff)
			}
			return nil
		})
	}
}

// TestAlertsAreSentToTheAlertmanagersOfTheFolder has one that only listens.
func TestAlertsAreSentToTheAlertmanagersOfTheFolder(t *testing.T) {
	type alert struct{ Labels, Annotations map[string]string }
	sent := make(chan alert, 100)
	alertmanager := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var alerts []alert
		if err := json.NewDecoder(r.Body).Decode(&alerts); err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		for _, a := range alerts {
			select {
			case sent <- a:
			default: // there are enough
			}
		}
	}))
	t.Cleanup(alertmanager.Close)
	server(t, setting{consul: registered(t), alertmanagers: []string{alertmanager.Listener.Addr().String()}})
	for end := time.After(time.Minute); ; {
		select {
		case a := <-sent:
			if a.Labels["alertname"] != "RollcallSnapshotOld" {
				continue
			}
			if want := "order-1 has not heard from Consul about user for 1m 39s"; a.Annotations["summary"] != want {
				t.Errorf("the summary is %q; want %q", a.Annotations["summary"], want)
			}
			return
		case <-end:
			t.Fatal("no RollcallSnapshotOld came")
		}
	}
}

// TestAlertsFireForAClusterThatLosesItsServers kills one of three, and then the leader. Autopilot is told to keep
// servers that failed: else it takes one out within seconds, and all that are left are well.
func TestAlertsFireForAClusterThatLosesItsServers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes most of a minute")
	}
	servers := map[string]*consultest.Server{}
	for _, s := range consultest.RealServers(t, 3) {
		servers[s.Addr()] = s
	}
	addresses := slices.Sorted(maps.Keys(servers))
	prometheus := server(t, setting{consul: addresses[0], servers: addresses, wait: "5s"})

	var leader string
	until(t, func() error {
		for _, query := range []string{`up{job="consul"} == 1`, `consul_autopilot_healthy == 1`, `consul_autopilot_failure_tolerance == 1`} {
			got, err := series(t, prometheus, query)
			if err != nil {
				return err
			}
			if len(got) != len(servers) {
				return fmt.Errorf("%s: %q; want all three", query, got)
			}
		}
		for address := range servers {
			got, err := series(t, prometheus, fmt.Sprintf(`consul_server_isLeader{instance=%q} == 1`, address))
			if err != nil {
				return err
			}
			if len(got) == 1 {
				leader = address
			}
		}
		if now := firing(t, prometheus); leader == "" || len(now) > 0 {
			return fmt.Errorf("the leader is %q, and there fire %q; want one, and none", leader, now)
		}
		return nil
	})
	fire := func(want ...string) {
		t.Helper()
		until(t, func() error {
			now := firing(t, prometheus)
			for _, name := range want {
				if !slices.Contains(now, name) {
					return fmt.Errorf("there fire %q; want %q", now, want)
				}
			}
			return nil
		})
	}
	autopilot := servers[leader].Client().Operator()
	config, err := autopilot.AutopilotGetConfiguration(nil)
	if err != nil {
		t.Fatal(err)
	}
	config.CleanupDeadServers = false
	if err := autopilot.AutopilotSetConfiguration(config, nil); err != nil {
		t.Fatal(err)
	}
	follower := addresses[(slices.Index(addresses, leader)+1)%len(addresses)]
	servers[follower].Kill()
	fire("ConsulUnhealthy", "ConsulNoSpareServer", "RollcallTargetDown")
	if slices.Contains(firing(t, prometheus), "ConsulNoLeader") {
		t.Error("ConsulNoLeader fires though there is one")
	}
	servers[leader].Kill()
	fire("ConsulNoLeader", "ConsulElections")
}

// firing are the names of Consul's alerts that fire, and of those of its targets.
func firing(t *testing.T, prometheus string) []string {
	t.Helper()
	var answer struct {
		Data struct {
			Alerts []struct {
				State  string
				Labels map[string]string
			}
		}
	}
	if err := get(t, prometheus+"/api/v1/alerts", &answer); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range answer.Data.Alerts {
		if a.State == "firing" && a.Labels["job"] != "prometheus" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// series are those that there are now, as one writes them.
func series(t *testing.T, prometheus, selector string) ([]string, error) {
	t.Helper()
	var answer struct {
		Data struct {
			Result []struct{ Metric map[string]string }
		}
	}
	if err := get(t, prometheus+"/api/v1/query?query="+url.QueryEscape(selector), &answer); err != nil {
		return nil, err
	}
	var got []string
	for _, r := range answer.Data.Result {
		var labels []string
		for name, value := range r.Metric {
			if name != "__name__" {
				labels = append(labels, fmt.Sprintf("%s=%q", name, value))
			}
		}
		slices.Sort(labels)
		got = append(got, r.Metric["__name__"]+"{"+strings.Join(labels, ", ")+"}")
	}
	slices.Sort(got)
	return got, nil
}

// page returns what a browser gets.
func page(t *testing.T, from string) (string, error) {
	t.Helper()
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Get(from)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html")) {
		err = fmt.Errorf("%s: %s, %s: %s", from, resp.Status, resp.Header.Get("Content-Type"), text)
	}
	return string(text), err
}

func TestRootOfAPrometheusWithoutUILeadsToTargetsAndAlertsAndThoseToTheMesh(t *testing.T) {
	prometheus := server(t, setting{consul: registered(t)})
	has := func(path string, want ...string) {
		t.Helper()
		until(t, func() error {
			text, err := page(t, prometheus+path)
			for _, w := range want {
				if err == nil && !strings.Contains(text, w) {
					err = fmt.Errorf("%s has no %s: %s", path, w, text)
				}
			}
			return err
		})
	}
	for _, path := range []string{"/", "/alerts", "/targets", "/graph"} {
		has(path, "url=/consoles/index.html")
	}
	has("/consoles/index.html",
		`<a href="service.html?service=order">order</a>`, ">up</td>", "<td colspan=\"3\">None.</td>",
		`<a href="http://localhost:8081/mesh/">`, `<a href="http://localhost:8500/ui/dc1">`)
	has("/consoles/service.html?service=order",
		"<td>order-1</td>", `<a href="http://localhost:8081/mesh/#order">`, `<a href="http://localhost:8500/ui/dc1/services/order">`)
}
