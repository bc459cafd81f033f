package httpmesh_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// names is a resolver that knows these addresses of every name, in order.
func names(t *testing.T, addresses ...string) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		q := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(q)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(reply(q[:n], addresses), from)
		}
	})
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}

// reply answers a DNS question (RFC 1035, section 4) for A records with the
// addresses, any other with none.
func reply(question []byte, addresses []string) []byte {
	end := 12
	for question[end] != 0 {
		end += int(question[end]) + 1
	}
	end += 5
	if question[end-3] != 1 { // not A
		addresses = nil
	}
	a := append([]byte{}, question[:end]...)
	a[2], a[3] = 0x84, 0
	a[7], a[9], a[11] = byte(len(addresses)), 0, 0
	for _, ip := range addresses {
		a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		a = append(a, net.ParseIP(ip).To4()...)
	}
	return a
}

// swallow has an address swallow packets: a listener whose queue is full drops
// what is sent to it.
func swallow(t *testing.T, ip string, port int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	at := &syscall.SockaddrInet4{Port: port, Addr: [4]byte(net.ParseIP(ip).To4())}
	if err := syscall.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the kernel keeps one more than it was told
		client, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(client) })
		_ = syscall.Connect(client, at)
	}
}

// Go's dialer gives the first of two addresses two seconds at least.
func TestSecondAddressOfANameIsTriedWhenTheFirstSwallowsPackets(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("how a full listener behaves is known of Linux only")
	}
	listener, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	swallow(t, "127.0.0.2", port)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "second") })}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })

	var source catalog.Fixed
	if err := source.Set("order", catalog.Instance{ID: "order-a", Host: "order.example", Port: port}); err != nil {
		t.Fatal(err)
	}
	dialer := &net.Dialer{Resolver: names(t, "127.0.0.2", "127.0.0.3")}
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
