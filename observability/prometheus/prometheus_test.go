// Package prometheus_test tries prometheus.yml in a real Prometheus beside a real Consul.
package prometheus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// server runs the Prometheus that PROMETHEUS_BIN names with our configuration, which finds this Consul, and returns
// its URL. It ends with the test.
func server(t *testing.T, consul string) string {
	t.Helper()
	binary := os.Getenv("PROMETHEUS_BIN")
	if binary == "" {
		t.Skip("needs a real Prometheus: PROMETHEUS_BIN is not set")
	}
	config, err := os.ReadFile("prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.ReplaceAll(config, []byte("consul:8500"), []byte(consul))
	dir := t.TempDir()
	for name, content := range map[string][]byte{"prometheus.yml": config, "alerts.yml": []byte("groups: []\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
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
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
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

// An instance has metrics at this port, and says which versions it has.
func instance(t *testing.T) (port string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "go_info{version=\"go9\"} 1\nrollcall_build_info{version=\"v9\",goversion=\"go9\"} 1\n")
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
	prometheus := server(t, registered(t))
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
