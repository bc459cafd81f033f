package httpmesh_test

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// counted is a connection that counts its writes: each is a packet, or nearly.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestBodyInMemoryGoesOutInOnePieceWithItsHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", echo)
		var writes atomic.Int64
		transport := newTransport(t, httpmesh.Config{Source: &f.source}.WithDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := f.dial(ctx, network, addr)
			return counted{c, &writes}, err
		}))
		if a := send(t, transport, post, "http://order/", strings.NewReader("body")); a.body != "body" || writes.Load() != 1 {
			t.Errorf("got %q, %v after %d writes; want one", a.body, a.err, writes.Load())
		}
	})
}
