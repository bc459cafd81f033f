package discovery_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

func fleet(t *testing.T) *catalog.Fixed {
	t.Helper()
	set := make([]catalog.Instance, 0, 3)
	for id, tags := range map[string][]string{"old": {"v1"}, "new": {"v2", "http"}, "rpc": {"v1", "grpc"}} {
		port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, id) }))
		set = append(set, catalog.Instance{ID: id, Host: "127.0.0.1", Port: port, Tags: tags})
	}
	source := new(catalog.Fixed)
	if err := source.Set("order", set...); err != nil {
		t.Fatal(err)
	}
	return source
}

// asked sends some requests and returns which instances answered.
func asked(t *testing.T, mesh *discovery.Mesh) string {
	t.Helper()
	got := map[string]bool{}
	for range 20 {
		body, err := get(t, mesh, "http://order/")
		if err != nil {
			t.Fatal(err)
		}
		got[body] = true
	}
	var ids []string
	for _, id := range []string{"new", "old", "rpc"} {
		if got[id] {
			ids = append(ids, id)
		}
	}
	return strings.Join(ids, " ")
}

func TestClientAsksWhatSpeaksHTTPAndIsSelected(t *testing.T) {
	source := fleet(t)
	for want, by := range map[string]map[string]catalog.Selection{
		"new old": nil,
		"old":     {"Order": {NotTags: []string{"v2"}}}, // Consul looks names up without regard to case
		"new":     {"order": {Tags: []string{"v2"}}, "user": {Tags: []string{"v9"}}},
		"rpc":     {"order": {Protocol: catalog.GRPC}}, // said so
	} {
		if got := asked(t, open(t, discovery.Config{Source: source, Select: by})); got != want {
			t.Errorf("%v: got %s; want %s", by, got, want)
		}
	}
}

func TestViewOfTheMeshAsksItsOwnSelection(t *testing.T) {
	mesh := open(t, discovery.Config{Source: fleet(t), Select: map[string]catalog.Selection{"order": {NotTags: []string{"v2"}}}})
	trial, err := mesh.Select(catalog.Selection{Tags: []string{"v2"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := asked(t, trial); got != "new" {
		t.Errorf("the view: got %s; want new", got)
	}
	if got := asked(t, mesh); got != "old" {
		t.Errorf("the mesh: got %s; want old", got)
	}
	for protocol, want := range map[string]int{catalog.HTTP: 1, catalog.GRPC: 1, "": 2} {
		s, err := mesh.Source(protocol).Latest(t.Context(), "order")
		if err != nil || s.Len() != want {
			t.Errorf("%q: got %d instances, %v; want %d", protocol, s.Len(), err, want)
		}
	}
	if err := trial.Close(); err != nil {
		t.Error(err)
	}
	if _, err := get(t, trial, "http://order/"); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("the view after its end: got %v; want ErrClosed", err)
	}
	if got := asked(t, mesh); got != "old" {
		t.Errorf("the mesh after the view's end: got %s; want old", got)
	}

	// What is not closed before ends with the mesh.
	open, err := mesh.Select(catalog.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	if err := mesh.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := get(t, open, "http://order/"); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("a view after the mesh's end: got %v; want ErrClosed", err)
	}
	if _, err := mesh.Select(catalog.Selection{}); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("a view that begins after the mesh's end: got %v; want ErrClosed", err)
	}
	if _, err := mesh.Select(catalog.Selection{Tags: []string{""}}); err == nil {
		t.Error("a selection that can't be meant: got no error")
	}
}

func TestServiceNoneOfWhoseInstancesIsSelectedSaysSo(t *testing.T) {
	mesh := open(t, discovery.Config{Source: fleet(t), Select: map[string]catalog.Selection{"order": {Tags: []string{"v9"}}}})
	_, err := get(t, mesh, "http://order/")
	if !errors.Is(err, discovery.ErrNoInstance) || !strings.Contains(err.Error(), "3 not selected") {
		t.Errorf("got %v; want ErrNoInstance, and that there are 3 that are not selected", err)
	}
}

func TestProxiesAndGatewaysUnderTheServicesNameAreNotAsked(t *testing.T) {
	for name, client := range map[string]func(t *testing.T) *api.Client{
		"real": func(t *testing.T) *api.Client { return consultest.Real(t).Client() },
		"fake": func(t *testing.T) *api.Client { return consultest.New(t).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := client(t)
			for _, r := range []*api.AgentServiceRegistration{
				{ID: "a", Name: "order", Address: "10.0.0.1", Port: 80},
				{ID: "sidecar", Name: "order", Address: "10.0.0.1", Port: 20000, Kind: api.ServiceKindConnectProxy, Proxy: &api.AgentServiceConnectProxyConfig{DestinationServiceName: "order"}},
				{ID: "gateway", Name: "mesh-gateway", Address: "10.0.0.1", Port: 443, Kind: api.ServiceKindMeshGateway},
			} {
				if err := client.Agent().ServiceRegister(r); err != nil {
					t.Fatal(err)
				}
			}
			mesh := open(t, discovery.Config{
				Consul: discovery.Consul{Client: client},
				Select: map[string]catalog.Selection{"mesh-gateway": {Kind: "mesh-gateway"}},
			})
			for service, want := range map[string]string{"order": "10.0.0.1:80", "mesh-gateway": "10.0.0.1:443"} {
				s, err := mesh.Latest(t.Context(), service)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for i := range s.All() {
					got = append(got, i.Addr())
				}
				if strings.Join(got, " ") != want {
					t.Errorf("%s: got %v; want %s", service, got, want)
				}
			}
		})
	}
}

// A filter at Consul would let it seem to have vanished.
func TestWhatIsDeselectedLeavesAtOnceAndIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		register := func(id string, tags ...string) {
			t.Helper()
			err := agent.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "order", Address: "10.0.0." + id, Port: 80, Tags: tags})
			if err != nil {
				t.Fatal(err)
			}
		}
		missing := 0
		mesh := open(t, discovery.Config{
			Consul: discovery.Consul{Client: agent.Client()},
			Select: map[string]catalog.Selection{"order": {NotTags: []string{"off"}}},
			Trace:  &discovery.Trace{Watch: &watch.Trace{Missing: func(string, catalog.Instance) { missing++ }}},
		})
		register("1")
		register("2")
		s, err := mesh.Latest(t.Context(), "order")
		if err != nil || s.Len() != 2 {
			t.Fatalf("got %d instances, %v; want 2", s.Len(), err)
		}
		time.Sleep(time.Minute)
		began := time.Now()
		register("1", "off")
		<-s.Superseded()
		s = s.Newest()
		synctest.Wait()
		if s.Len() != 1 || missing != 0 || time.Since(began) > time.Second {
			t.Errorf("got %d instances, %d missing, after %s; want one, none missing, at once", s.Len(), missing, time.Since(began))
		}
		status := mesh.Status().Services[0]
		if status.Ready != 1 || status.Deselected != 1 || len(status.Instances) != 2 || !status.Instances[0].Deselected || status.Instances[1].Deselected {
			t.Errorf("got %+v; want two instances, the first deselected", status)
		}
		if asked := len(agent.Requests("/v1/health/service/")); asked > 20 {
			t.Errorf("Consul was asked %d times; want one watch", asked)
		}
	})
}

func TestPlaceThatConsulDoesNotHaveIsANamedError(t *testing.T) {
	t.Parallel()
	addr := consultest.Real(t).Addr()
	quiet := slog.New(slog.DiscardHandler)
	for name, c := range map[string]struct {
		consul discovery.Consul
		want   error
		advice string
	}{
		"namespace":  {discovery.Consul{Namespace: "team"}, discovery.ErrEnterprise, "leave Config.Consul.Namespace"},
		"partition":  {discovery.Consul{Partition: "default"}, discovery.ErrEnterprise, "leave Config.Consul.Namespace"},
		"datacenter": {discovery.Consul{Datacenter: "nowhere"}, discovery.ErrNoDatacenter, "consul members -wan"},
	} {
		t.Run(name, func(t *testing.T) {
			c.consul.Address = addr
			mesh := open(t, discovery.Config{Consul: c.consul, InitialFetchTimeout: 500 * time.Millisecond, Log: quiet})
			_, err := mesh.Latest(t.Context(), "order")
			if !errors.Is(err, c.want) || !errors.Is(err, discovery.ErrNoAnswer) || !strings.Contains(err.Error(), c.advice) {
				t.Errorf("watching: got %v; want %v, and %q", err, c.want, c.advice)
			}
			if name == "datacenter" {
				return // an agent registers in its own
			}
			registered, err := mesh.Register(registration.Config{Service: "order", Port: 80, Host: "10.0.0.1"})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the refusal in the registration's status", func() bool { return errors.Is(registered.Status().Err, c.want) })
		})
	}
}

func TestViewWithAFilterHasWhatConsulLeaves(t *testing.T) {
	t.Parallel()
	_, addr := listen(t)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, Log: slog.New(slog.DiscardHandler)})
	for id, version := range map[string]string{"old": "1", "new": "2"} {
		port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, id) }))
		registered, err := mesh.Register(registration.Config{Service: "order", ID: id, Host: "127.0.0.1", Port: port, Meta: map[string]string{"version": version}})
		if err != nil {
			t.Fatal(err)
		}
		if err := registered.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	view, err := mesh.Filter(`Service.Meta["version"] != "1"`)
	if err != nil {
		t.Fatal(err)
	}
	if got := asked(t, view); got != "new" {
		t.Errorf("got %s; want new", got)
	}
	if got := asked(t, mesh); got != "new old" {
		t.Errorf("the mesh: got %s; want both", got)
	}
	if s := view.Status().Services; len(s) != 1 || len(s[0].Instances) != 1 {
		t.Errorf("got %+v; want what the view watches", s)
	}
	if err := view.Close(); err != nil {
		t.Error(err)
	}
	if _, err := open(t, discovery.Config{Source: new(catalog.Fixed)}).Filter("x"); err == nil {
		t.Error("without Consul: got no error")
	}
}
