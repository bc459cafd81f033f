package httpmesh_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/nettest"
)

// Go's dialer gives the first of two addresses two seconds at least.
func TestSecondAddressOfANameIsTriedWhenTheFirstSwallowsPackets(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	nettest.Swallow(t, "127.0.0.2", port)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "second") })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })

	var source catalog.Fixed
	if err := source.Set("order", catalog.Instance{ID: "order-a", Host: "order.example", Port: port}); err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{Resolver: nettest.Names(t, "127.0.0.2", "127.0.0.3")}
	transport := newTransport(t, httpmesh.Config{Source: &source}.WithDial(dialer.DialContext))
	if a := send(t, transport, http.MethodGet, "http://order/", nil); a.err == nil {
		t.Fatalf("got %q at once from %s; the first address does not swallow", a.body, net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
	}
	eventually(t, "the second address is connected to", func() bool {
		a := send(t, transport, http.MethodGet, "http://order/", nil)
		return a.body == "second"
	})
	if x := transport.Balancer("order").Endpoints()[0].Ejection(); x.Reason != 0 {
		t.Errorf("it was ejected: %+v", x)
	}
}
