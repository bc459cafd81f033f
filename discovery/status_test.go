package discovery_test

import (
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
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
	if _, err := mesh.Register(registration.Config{
		Service: "order", ID: "order-1", Host: "127.0.0.1", Port: port, Meta: map[string]string{"version": "v7"}, Region: "eu", Zone: "a",
	}); err != nil {
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
	if i := one(); i.ID != "order-1" || i.InFlight != 0 || i.Health != "" || i.Ejected != nil || i.LatencySeconds != 0 || i.Connections != 0 {
		t.Errorf("got %+v before any request; want order-1 without a word of its health", i)
	} else if i.Version != "v7" || i.Zone != "a" || i.Protocol != "http" || i.Datacenter != "" {
		t.Errorf("got %+v; want v7 in the zone a, by http, of the agent's own datacenter", i)
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
	if i := one(); i.InFlight != 1 || i.Health != "healthy" || i.Connections != 1 {
		t.Errorf("got %+v with a request in flight; want 1 in flight over one connection, healthy", i)
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

func TestStatusTellsWhatWasSentOfLate(t *testing.T) {
	_, addr := listen(t)
	port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ill" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, HTTP: httpmesh.Config{Budget: httpmesh.Budget{Ratio: -1, Floor: 0.5}}})
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "order-1", Host: "127.0.0.1", Port: port}); err != nil {
		t.Fatal(err)
	}
	view, err := mesh.Select(catalog.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "order is found", func() bool {
		_, err := get(t, mesh, "http://order/")
		return err == nil
	})
	for _, through := range []*discovery.Mesh{mesh, mesh, view} {
		if _, err := get(t, through, "http://order/ill"); err != nil {
			t.Fatal(err)
		}
	}
	var calls discovery.CallStatus
	eventually(t, "the second of the last request is over", func() bool {
		s := mesh.Status().Services[0]
		calls = s.Calls
		return calls.Failed >= 3
	})
	if calls.WindowSeconds != 10 || calls.Requests < 4 || calls.P50Seconds <= 0 || calls.P99Seconds < calls.P50Seconds {
		t.Errorf("got %+v; want four requests or more, three of them failed, with their times", calls)
	}
	s := mesh.Status()
	if s.Version != discovery.StatusVersion || s.Started.IsZero() || s.Started.After(s.At) || s.Services[0].RetriesLeft != 5 {
		t.Errorf("got version %d, started %v, %d retries left; want the version, a time before now, and 5",
			s.Version, s.Started, s.Services[0].RetriesLeft)
	}
	if v := view.Status(); v.Services[0].Calls.Failed != calls.Failed || !v.Started.Equal(s.Started) {
		t.Errorf("the view tells of %+v since %v; want what the process has sent, since the mesh was opened", v.Services[0].Calls, v.Started)
	}
}

// Of a version to come, as a reader that knows this one only.
func TestStatusIsReadBackAndBearsWhatItDoesNotKnow(t *testing.T) {
	const text = `{"version":1,"weather":"fine","services":[{"service":"order","instances":[{"id":"a","state":"resting"},{"id":"b","state":"draining","moon":1}]}],
		"registrations":[{"service":"order","state":"recovering"}]}`
	var s discovery.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	i := s.Services[0].Instances
	if i[0].State != catalog.StateUnknown || i[1].State != catalog.StateDraining || s.Registrations[0].State != registration.StateRecovering {
		t.Errorf("got %+v; want states by their names, and unknown for a word that is none", s)
	}
}

func TestEachFieldOfTheStatusIsInTheReference(t *testing.T) {
	reference, err := os.ReadFile("../docs/reference/status.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sections, _ := strings.Cut(string(reference), "\n| field")
	for _, of := range []struct {
		section string
		value   any
	}{
		{"", discovery.Status{}},
		{"## A service", discovery.ServiceStatus{}},
		{"## Calls", discovery.CallStatus{}},
		{"## An instance", discovery.InstanceStatus{}},
		{"## An instance", discovery.EjectionStatus{}},
		{"## A registration", discovery.RegistrationStatus{}},
	} {
		_, section, _ := strings.Cut(sections, of.section)
		section, _, _ = strings.Cut(section, "\n## ")
		for field := range reflect.TypeOf(of.value).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name == "" || !strings.Contains(section, "`"+name+"`") {
				t.Errorf("%T has %s (%q in JSON), of which %q of docs/reference/status.md says nothing", of.value, field.Name, name, of.section)
			}
		}
	}
}
