package discovery_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

func TestStatusTellsServicesAndRegistrationsAndBeginsNothing(t *testing.T) {
	_, addr := listen(t)
	arrived, leave := make(chan struct{}), make(chan struct{})
	port := serve(t, "order", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-leave
	}))
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, Follow: []string{"order"}, HTTP: httpmesh.Config{TryTimeout: -1}})
	if s := mesh.Status(); len(s.Registrations) != 0 || s.At.IsZero() {
		t.Errorf("got %+v of a mesh that has just begun; want no registration", s)
	}
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "order-1", Host: "127.0.0.1", Port: port}); err != nil {
		t.Fatal(err)
	}
	one := func() discovery.InstanceStatus {
		t.Helper()
		var s discovery.Status
		eventually(t, "one instance of order", func() bool {
			s = mesh.Status()
			return len(s.Services) == 1 && len(s.Services[0].Instances) == 1
		})
		if o := s.Services[0]; o.Service != "order" || o.Ready != 1 || o.Proven.IsZero() || o.Error != "" || o.Panic || o.FromDisk {
			t.Errorf("got %+v; want order, with one ready instance, proven and without trouble", o)
		}
		if len(s.Registrations) != 1 || s.Registrations[0].Service != "order" || s.Registrations[0].ID != "order-1" {
			t.Errorf("got registrations %+v; want order-1 of order", s.Registrations)
		}
		return s.Services[0].Instances[0]
	}
	if i := one(); i.ID != "order-1" || i.InFlight != 0 || i.Health != "" || i.Ejected != nil {
		t.Errorf("got %+v before any request; want order-1 without a word of its health", i)
	}
	if len(mesh.RoundTripper().Balancers("order")) != 0 {
		t.Error("asking for the status has made a balancer")
	}

	done := make(chan error, 1)
	go func() {
		_, err := get(t, mesh, "http://order/")
		done <- err
	}()
	<-arrived
	if i := one(); i.InFlight != 1 || i.Health != "healthy" {
		t.Errorf("got %+v with a request in flight; want 1 in flight, healthy", i)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestStatusMarshalsToJSONWithNamesForStates(t *testing.T) {
	_, addr := listen(t)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}})
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "order-1", Host: "127.0.0.1", Port: 8080}); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(mesh.Status())
	if err != nil {
		t.Fatal(err)
	}
	var page struct {
		Services      []any
		Registrations []struct{ Service, ID, State string }
	}
	if err := json.Unmarshal(text, &page); err != nil {
		t.Fatal(err)
	}
	if page.Services == nil || len(page.Registrations) != 1 || page.Registrations[0].State == "" {
		t.Errorf("got %s; want an empty list of services, and the state of order-1 by its name", text)
	}
}

func TestAskingForTheStatusKeepsNoWatchAlive(t *testing.T) {
	_, addr := listen(t)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, Watch: watch.Config{IdleFor: 100 * time.Millisecond}})
	if _, err := mesh.Latest(t.Context(), "order"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the watch is forgotten", func() bool { return len(mesh.Status().Services) == 0 })
}
