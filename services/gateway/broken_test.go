package gateway_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestClientGoneInTheMiddleOfItsUploadEndsTheRequestBehind(t *testing.T) {
	began, ended := make(chan struct{}, 1), make(chan error, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		_, err := io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		ended <- err
	})
	for _, upload := range []string{
		"Content-Length: 100000\r\n\r\nhalf",
		"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
		"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf", // in the middle of a chunk
	} {
		c := d.dial()
		fmt.Fprint(c, "POST /users/x HTTP/1.1\r\nHost: x\r\n"+upload)
		await(t, "the request", began)
		c.Close()
		if err := await(t, "the service to learn that the client has left", ended); err == nil {
			t.Errorf("%q: the service took it for the whole upload", upload)
		}
	}
}

func TestClientGoneInTheMiddleOfTheAnswerEndsTheRequestBehind(t *testing.T) {
	ended := make(chan struct{}, 1)
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		_, _ = io.Copy(io.Discard, r.Body)
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat("x", 32<<10)); err != nil {
				return
			}
		}
	})
	for _, request := range []string{"GET /users/x HTTP/1.1\r\nHost: x\r\n\r\n", "POST /users/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"} {
		c := d.dial()
		fmt.Fprint(c, request)
		if _, err := io.CopyN(io.Discard, c.answer(http.MethodGet).Body, 100<<10); err != nil {
			t.Fatal(err)
		}
		c.Close()
		await(t, "the service to learn that the client has left", ended)
	}
}

func TestServiceGoneInTheMiddleOfTheAnswerIsNoWholeAnswer(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", "100")
		}
		fmt.Fprint(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	for _, target := range []string{"/users/x", "/users/x?length"} {
		c := d.dial()
		c.say("GET "+target+" HTTP/1.1", "Host: x", "")
		body, err := io.ReadAll(c.answer(http.MethodGet).Body)
		if string(body) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %q, %v; want half, and that something is missing", target, body, err)
		}
	}
}

// The client has not ended its upload: the failed write of the next piece is
// what ends the request.
func TestServiceGoneInTheMiddleOfTheUploadIs502(t *testing.T) {
	gone := make(chan struct{})
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		_, _ = io.ReadFull(r.Body, make([]byte, 3))
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil { // a handler that panics would read on
			_ = conn.Close()
		}
	})
	c := d.dial()
	c.say("POST /users HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "")
	c.chunk("one")
	await(t, "the service to be gone", gone)
	c.goOn()
	resp, body := c.whole(http.MethodPost)
	if p := d.unserved(resp, body); resp.StatusCode != http.StatusBadGateway || p.Service != "user" || p.Tried != 1 {
		t.Errorf("got %s %+v; want a 502 about user, tried once", resp.Status, p)
	}
}

// A reader that stops reading holds up the gateway, the gateway holds up the
// service: no memory fills. In the end it is cut off.
func TestReaderThatStopsIsCutOffAndTheServiceIsTold(t *testing.T) {
	written, ended := make(chan int, 1), make(chan struct{})
	d := through(t, options{stream: 300 * time.Millisecond}, func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		for n := 0; ; n += 32 << 10 {
			if _, err := io.WriteString(w, strings.Repeat("x", 32<<10)); err != nil {
				written <- n
				return
			}
		}
	})
	c := d.dial()
	c.say("GET /users/x HTTP/1.1", "Host: x", "")
	c.answer(http.MethodGet)
	await(t, "the service to be told", ended)
	if n, most := <-written, 64<<20; n > most {
		t.Errorf("the service could write %d bytes that nobody read; want at most %d", n, most)
	}
}

func TestSlowReaderThatMovesGetsItAll(t *testing.T) {
	const pieces, piece = 16, 1 << 20
	d := through(t, options{stream: time.Second}, func(w http.ResponseWriter, _ *http.Request) {
		for range pieces {
			if _, err := io.WriteString(w, strings.Repeat("x", piece)); err != nil {
				return
			}
		}
	})
	c := d.dial()
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	c.say("GET /users/x HTTP/1.1", "Host: x", "")
	body := c.answer(http.MethodGet).Body
	for n := range pieces {
		time.Sleep(100 * time.Millisecond)
		if got, err := io.CopyN(io.Discard, body, piece); got != piece {
			t.Fatalf("piece %d: got %d bytes, %v; want %d", n, got, err, piece)
		}
	}
	if rest, err := io.Copy(io.Discard, body); rest != 0 || err != nil {
		t.Errorf("at the end: %d bytes, %v", rest, err)
	}
}

func TestClientThatHalfClosesWhileAServiceIsAskedGetsNoFalseAnswer(t *testing.T) {
	began := make(chan struct{}, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	for _, request := range []string{
		"GET /users/1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
	} {
		c := d.dial()
		fmt.Fprint(c, request)
		await(t, "the request", began)
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.wantEnd() // without a byte
	}
}
