package connect_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"

	connectrpc "connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/docs/examples/connect"
)

func TestConnectCallsGoThroughTheMeshAndReadsToAnotherInstance(t *testing.T) {
	var broken, methods atomic.Int64
	var instances []catalog.Instance
	for n := range 2 {
		handler := connect.Handler()
		server := httptest.NewServer(httpmesh.RequireService("greeter", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				methods.Add(1)
			}
			if n == 0 && r.URL.Path == connect.GreetProcedure {
				broken.Add(1)
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			handler.ServeHTTP(w, r)
		})))
		t.Cleanup(server.Close)
		host, port, err := net.SplitHostPort(server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, catalog.Instance{ID: "greeter-" + strconv.Itoa(n), Host: host, Port: number})
	}
	var source catalog.Fixed
	if err := source.Set("greeter", instances...); err != nil {
		t.Fatal(err)
	}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: &source})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	client := connect.NewClient(mesh.Client())

	for range 8 {
		answer, err := client.Greet.CallUnary(t.Context(), connectrpc.NewRequest(wrapperspb.String("Ann")))
		if err != nil || answer.Msg.GetValue() != "Hello, Ann!" {
			t.Fatalf("Greet(Ann) = %v, %v; want Hello, Ann! though one instance is broken", answer, err)
		}
	}
	if broken.Load() == 0 || methods.Load() < 8 {
		t.Errorf("%d calls met the broken instance, %d were GET; want some, and all", broken.Load(), methods.Load())
	}

	stream, err := client.Count.CallServerStream(t.Context(), connectrpc.NewRequest(wrapperspb.Int32(3)))
	if err != nil {
		t.Fatal(err)
	}
	var got string
	for stream.Receive() {
		got += fmt.Sprint(stream.Msg().GetValue(), " ")
	}
	if err := stream.Err(); err != nil || got != "1 2 3 " {
		t.Errorf("Count(3) streamed %q, %v; want 1 2 3", got, err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}
