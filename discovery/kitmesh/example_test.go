package kitmesh_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd/lb"
	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
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

// A go-kit program's own factory, with the mesh's addresses and health in the place
// of go-kit's.
func ExampleNewBalancer() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":1,"name":"Alice"}`) }))
	defer server.Close()
	var source catalog.Fixed
	if err := source.Set("user", catalog.Instance{ID: "user-1", Host: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port}); err != nil {
		fmt.Println(err)
		return
	}
	mesh, err := discovery.Open(context.Background(), discovery.Config{Source: &source})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mesh.Close()

	factory := func(instance string) (endpoint.Endpoint, io.Closer, error) {
		decode := func(_ context.Context, r *http.Response) (any, error) {
			var u user
			err := json.NewDecoder(r.Body).Decode(&u)
			return u, err
		}
		return kithttp.NewClient("GET", &url.URL{Scheme: "http", Host: instance, Path: "/users/1"}, kithttp.EncodeJSONRequest, decode).Endpoint(), nil, nil
	}
	instancer, err := kitmesh.NewInstancer(mesh, "user")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer instancer.Stop()
	balancer, err := kitmesh.NewBalancer(instancer, factory, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer balancer.Close()

	find := lb.Retry(3, time.Second, balancer)
	fmt.Println(find(context.Background(), nil))
	http.DefaultClient.CloseIdleConnections() // go-kit's client without SetClient
	// Output: {1 Alice} <nil>
}
