package order

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// overMesh returns Users that asks through the mesh's own transport, whose
// catalog is the given one.
func overMesh(t *testing.T, source catalog.Source) Users {
	t.Helper()
	transport, err := httpmesh.New(httpmesh.Config{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := transport.Close(); err != nil {
			t.Error(err)
		}
	})
	exists, err := NewUserEndpoint(&http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return NewUsers(exists, 0)
}

func instanceAt(address net.Addr) catalog.Instance {
	tcp := address.(*net.TCPAddr)
	return catalog.Instance{ID: "user-1", Host: tcp.IP.String(), Port: tcp.Port}
}

func TestUserIsAskedThroughTheMeshAndItsAbsenceDegradesReads(t *testing.T) {
	user := httptest.NewServer(httpmesh.RequireService("user", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/users/1" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(`{"id":1,"name":"Alice"}` + "\n"))
	})))
	t.Cleanup(user.Close)
	var source catalog.Fixed
	f := newFixture(t, overMesh(t, &source))
	check := func(when, method, path string, status int, degraded string) {
		t.Helper()
		resp, got := f.call(t, method, path, `{"item":"Desk"}`)
		if resp.StatusCode != status || resp.Header.Get(DegradedHeader) != degraded {
			t.Errorf("%s: %s %s: %d, degraded %q: %s; want %d, %q", when, method, path, resp.StatusCode, resp.Header.Get(DegradedHeader), got, status, degraded)
		}
	}

	check("no instance", "GET", "/orders/1", 200, "user")
	check("no instance", "GET", "/orders/3", 503, "")
	check("no instance", "POST", "/orders/1", 503, "")

	if err := source.Set("user", instanceAt(user.Listener.Addr())); err != nil {
		t.Fatal(err)
	}
	check("one instance", "GET", "/orders/1", 200, "")
	check("one instance", "GET", "/orders/3", 404, "")
	check("one instance", "POST", "/orders/1", 201, "")

	refused, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := refused.Close(); err != nil {
		t.Fatal(err)
	}
	if err := source.Set("user", instanceAt(refused.Addr())); err != nil {
		t.Fatal(err)
	}
	check("a dead instance", "GET", "/orders/1", 200, "user")
	check("a dead instance", "GET", "/orders/3", 503, "")
	check("a dead instance", "POST", "/orders/1", 503, "")

	astray := httptest.NewServer(httpmesh.RequireService("order", http.NotFoundHandler()))
	t.Cleanup(astray.Close)
	if err := source.Set("user", instanceAt(astray.Listener.Addr())); err != nil {
		t.Fatal(err)
	}
	check("an address that is another service's now", "GET", "/orders/1", 200, "user")
}
