// Package nettest is a network for tests: names with several addresses, and addresses
// that swallow packets.
package nettest

import (
	"context"
	"net"
	"sync"
	"testing"
)

// Names is a resolver that knows these addresses of every name, in order, until the
// test ends.
func Names(t testing.TB, addresses ...string) *net.Resolver {
	t.Helper()
	server, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
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
