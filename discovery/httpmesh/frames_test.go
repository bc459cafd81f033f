package httpmesh_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/rollcall-mesh/rollcall/internal/tlstest"
)

// The parts of HTTP/2 (RFC 9113) of which a server is made that does what Go's
// never would.
const (
	frameData     = 0
	frameHeaders  = 1
	frameReset    = 3
	frameSettings = 4
	framePing     = 6
	frameGoAway   = 7
	flagEnd       = 1 // of the stream; of settings and pings: an answer
	flagHeaders   = 4
	refuse        = 7
)

// h2conn is the server's end of a connection.
type h2conn struct {
	net.Conn
	number int // of the connection, from 0 on
}

func (c h2conn) write(kind, flags byte, stream uint32, payload ...byte) {
	head := []byte{0, 0, byte(len(payload)), kind, flags}
	head = binary.BigEndian.AppendUint32(head, stream)
	_, _ = c.Write(append(head, payload...))
}

// ok answers 200 without a body.
func (c h2conn) ok(stream uint32) { c.write(frameHeaders, flagEnd|flagHeaders, stream, 0x88) }

// call answers a call of gRPC by a status.
func (c h2conn) call(stream uint32, status string) {
	c.write(frameHeaders, flagEnd|flagHeaders, stream, slices.Concat([]byte{0x88},
		literal("content-type", "application/grpc"), literal("grpc-status", status))...)
}

// literal is a field of a header that refers to no other (RFC 7541, section 6.2.2).
func literal(name, value string) []byte {
	return slices.Concat([]byte{0, byte(len(name))}, []byte(name), []byte{byte(len(value))}, []byte(value))
}

func (c h2conn) goAway(last, code uint32) {
	c.write(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, last), code)...)
}

// h2server calls asked for each request that has come whole, one after the other
// on a connection, and returns where it listens.
func h2server(t *testing.T, pair tlstest.Pair, asked func(c h2conn, stream uint32)) net.Addr {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair.Certificate(t)}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	return h2serve(t, l, asked)
}

// h2serve is h2server where it listens already.
func h2serve(t *testing.T, l net.Listener, asked func(c h2conn, stream uint32)) net.Addr {
	t.Helper()
	var serving sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	serving.Go(func() {
		for number := 0; ; number++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			serving.Go(func() { serveFrames(h2conn{c, number}, asked) })
		}
	})
	return l.Addr()
}

func serveFrames(c h2conn, asked func(c h2conn, stream uint32)) {
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := io.ReadFull(r, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	c.write(frameSettings, 0, 0)
	for {
		var head [9]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(r, payload); err != nil {
			return
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case kind == frameSettings && flags&flagEnd == 0:
			c.write(frameSettings, flagEnd, 0)
		case kind == framePing && flags&flagEnd == 0:
			c.write(framePing, flagEnd, 0, payload...)
		case (kind == frameHeaders || kind == frameData) && flags&flagEnd != 0:
			asked(c, stream)
		}
	}
}
