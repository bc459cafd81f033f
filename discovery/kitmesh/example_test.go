package kitmesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

type user struct {
	ID   int    `json:"id"`
	Name string `json:"name"`
}

func Example() {
	// A program has a Consul somewhere, and a real listener.
	agent := consultest.New(new(testing.T))
	defer agent.Close()
	address, err := agent.Listen()
	if err != nil {
		fmt.Println(err)
		return
	}
	server := httptest.NewServer(httpmesh.RequireService("user", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"id":%s,"name":"Alice"}`, r.URL.Path[len("/users/"):])
	})))
	defer server.Close()

	ctx := context.Background()
	mesh, err := discovery.Open(ctx, discovery.Config{Consul: discovery.Consul{Address: address}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mesh.Close()

	registrar := kitmesh.NewRegistrar(mesh, registration.Config{
		Service: "user",
		Port:    server.Listener.Addr().(*net.TCPAddr).Port,
	}, nil)
	registrar.Register()
	defer registrar.Deregister()
	_ = registrar.Registered().Wait(context.Background())

	find, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "user",
		func(_ context.Context, r *http.Request, id any) error {
			r.URL.Path = fmt.Sprintf("/users/%d", id)
			return nil
		},
		func(_ context.Context, r *http.Response) (any, error) {
			var u user
			err := json.NewDecoder(r.Body).Decode(&u)
			return u, err
		})
	if err != nil {
		fmt.Println(err)
		return
	}
	u, err := find(ctx, 1)
	fmt.Println(u, err)
	// Output: {1 Alice} <nil>
}
