package greeting_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	greeting "github.com/rollcall-mesh/rollcall/docs/examples/testing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func hello(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Hello") }

// portOf is a server's port.
func portOf(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

func TestGreetingComesFromTheInstanceThatAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()
	gone := httptest.NewServer(http.HandlerFunc(hello))
	gone.Close() // its port refuses from now on

	var known catalog.Fixed
	err := known.Set("greeter",
		catalog.Instance{ID: "gone", Host: "127.0.0.1", Port: portOf(gone)},
		catalog.Instance{ID: "well", Host: "127.0.0.1", Port: portOf(server)})
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &known})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()

	for range 10 {
		if got, err := greeting.For(t.Context(), mesh.Client(), "Ann"); got != "Hello" || err != nil {
			t.Errorf("got %q, %v; want Hello", got, err)
		}
	}
}

func TestWithoutAnInstanceTheErrorSaysSo(t *testing.T) {
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &catalog.Fixed{}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if _, err := greeting.For(t.Context(), mesh.Client(), "Ann"); !errors.Is(err, discovery.ErrNoInstance) {
		t.Errorf("got %v; want ErrNoInstance", err)
	}
}

func TestGreetingOutlivesAConsulThatWentAway(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(hello))
	defer server.Close()

	consul := consultest.New(t)
	address, err := consul.Listen()
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: address}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	me, err := mesh.Register(registration.Config{Service: "greeter", Port: portOf(server)})
	if err != nil {
		t.Fatal(err)
	}
	if err := me.Wait(t.Context()); err != nil { // it is in the catalog
		t.Fatal(err)
	}
	if _, err := greeting.For(t.Context(), mesh.Client(), "Ann"); err != nil {
		t.Fatal(err)
	}

	consul.Break("/v1/", consultest.Refuse())
	if got, err := greeting.For(t.Context(), mesh.Client(), "Ann"); got != "Hello" || err != nil {
		t.Errorf("got %q, %v; want Hello", got, err)
	}
	consul.Mend() // so that it can be left in order
}
