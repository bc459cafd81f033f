package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// through opens a gateway in front of the service user, whose one instance is
// h, both on real TCP. At the test's end, while both still run, nothing may be
// left of what it did: no connection that is not idle, and no goroutine.
func through(t *testing.T, o options, h http.HandlerFunc) *door {
	t.Helper()
	d := open(t, o)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	d.offer("user", "user-1", s.Listener.Addr().String())
	d.nothingIsLeft(func() { s.Config.SetKeepAlivesEnabled(false) }) // closes the idle ones
	return d
}

// throughRaw is through for a service that is no HTTP server of Go: answer is
// called with each connection, which is closed after it.
func throughRaw(t *testing.T, o options, answer func(c *wire)) *door {
	t.Helper()
	d := open(t, o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(newWire(t, conn))
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
	})
	d.offer("user", "user-1", l.Addr().String())
	d.nothingIsLeft(func() {})
	return d
}

// nothingIsLeft has the test fail if it leaves a goroutine behind; each
// connection of net/http, on either side, has one or two. The one that follows
// the service ends with the mesh.
func (d *door) nothingIsLeft(closeIdle func()) {
	before := goleak.IgnoreCurrent()
	follows := goleak.IgnoreAnyFunction("github.com/rollcall-mesh/rollcall/discovery/httpmesh.(*Transport).follow")
	d.t.Cleanup(func() {
		closeIdle()
		d.client.CloseIdleConnections()
		for end := time.Now().Add(limit); ; {
			err := goleak.Find(before, follows)
			if err == nil {
				return
			}
			if time.Now().After(end) {
				d.t.Errorf("something is left of the requests: %v", err)
				return
			}
		}
	})
}

// wire is one end of a connection, for those who speak HTTP by hand.
type wire struct {
	net.Conn
	t   *testing.T
	buf *bufio.Reader
}

func newWire(t *testing.T, conn net.Conn) *wire {
	_ = conn.SetDeadline(time.Now().Add(2 * limit))
	return &wire{Conn: conn, t: t, buf: bufio.NewReader(conn)}
}

// dial connects to the gateway; the test's end closes it.
func (d *door) dial() *wire {
	d.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	return newWire(d.t, conn)
}

// say sends lines, each ended as HTTP wants it.
func (c *wire) say(lines ...string) {
	c.t.Helper()
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n"); err != nil {
		c.t.Errorf("say %q: %v", lines, err)
	}
}

// chunk sends one chunk of a chunked body.
func (c *wire) chunk(text string) { c.t.Helper(); c.say(fmt.Sprintf("%x", len(text)), text) }

// goOn sends chunks until the connection takes no more of them, as a client does
// that does not look for an answer before it has sent everything.
func (c *wire) goOn() {
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				if _, err := io.WriteString(c, "4\r\nmore\r\n"); err != nil {
					return
				}
			}
		}
	})
	c.t.Cleanup(func() { close(stop); sending.Wait() })
}

// answer reads the header of the next answer to a request of the method.
func (c *wire) answer(method string) *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.buf, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read the answer: %v", err)
	}
	return resp
}

// whole reads the next answer with its body.
func (c *wire) whole(method string) (*http.Response, string) {
	c.t.Helper()
	resp := c.answer(method)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("read the body after %q: %v", body, err)
	}
	return resp, string(body)
}

// wantEnd waits until the other side has closed, and said nothing more.
func (c *wire) wantEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c.buf)
	if err != nil || len(rest) > 0 {
		c.t.Errorf("got %q, %v; want the end of the connection", rest, err)
	}
}

// await waits for a value that should come at once.
func await[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}
