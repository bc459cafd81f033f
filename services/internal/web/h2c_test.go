package web_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// h2c makes the rig's client speak HTTP/2 without TLS. dials counts its
// connections.
func (r *rig) h2c() (dials *atomic.Int32) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	dials = new(atomic.Int32)
	r.client = &http.Client{Transport: &http.Transport{
		Protocols: protocols,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			dials.Add(1)
			return r.pipes.dial()
		},
	}}
	return dials
}

func TestRetiredServerTellsHTTP2ClientsToLeave(t *testing.T) {
	bubble(t, limits(), hello, func(t *testing.T, r *rig) {
		dials := r.h2c()
		for range 2 {
			if resp, body := r.get("/"); resp.ProtoMajor != 2 || body != "hello\n" {
				t.Fatalf("got %s %q; want hello over HTTP/2", resp.Proto, body)
			}
		}
		if n := dials.Load(); n != 1 {
			t.Errorf("two requests made %d connections; want one", n)
		}
		r.Retire()
		r.get("/") // is served, and told
		synctest.Wait()
		r.get("/")
		if n := dials.Load(); n != 2 {
			t.Errorf("after the answer of a retired server there are %d connections; want a second one", n)
		}
	})
}

func TestShutdownWaitsForHTTP2RequestsInFlight(t *testing.T) {
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			time.Sleep(3 * time.Second)
		}
		fmt.Fprint(w, "done")
	})
	bubble(t, limits(), slow, func(t *testing.T, r *rig) {
		r.h2c()
		r.get("/") // so that the connection is there
		answer := make(chan string, 1)
		go func() {
			_, body := r.get("/slow")
			answer <- body
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown() = %v; want nil", err)
		}
		if got := <-answer; got != "done" {
			t.Errorf("the request in flight got %q; want done", got)
		}
	})
}

func TestIdleHTTP2ConnectionDoesNotHoldUpAShutdown(t *testing.T) {
	bubble(t, limits(), hello, func(t *testing.T, r *rig) {
		r.h2c()
		r.get("/")
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown() = %v; want nil", err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the shutdown took %v with one idle connection; want 3s at most", took)
		}
	})
}

func TestHTTP2StreamIsCutOffAtTheBoundOfAShutdown(t *testing.T) {
	ended := make(chan struct{})
	stream := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(ended)
	})
	bubble(t, limits(), stream, func(t *testing.T, r *rig) {
		r.h2c()
		resp, err := r.client.Do(r.request("/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err == nil {
			t.Error("Shutdown() = nil; want an error that counts the stream")
		}
		<-ended
	})
}

// Over HTTP/1 it is so by itself, see TestStreamLivesForAsLongAsItMoves.
func TestHandlerThatTakesItsTimeIsNotCutOffOverHTTP2(t *testing.T) {
	const long = 10 * time.Second // longer than a piece may take
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(long)
		first := make([]byte, 1)
		if _, err := io.ReadFull(r.Body, first); err != nil {
			t.Errorf("read the body: %v", err)
		}
		time.Sleep(long)
		rest, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read the rest of the body: %v", err)
		}
		for _, piece := range []string{string(first), string(rest)} {
			time.Sleep(long)
			fmt.Fprint(w, piece)
			_ = http.NewResponseController(w).Flush()
		}
		time.Sleep(long)
	})
	bubble(t, rolling(), h, func(t *testing.T, r *rig) {
		r.h2c()
		body, feed := io.Pipe()
		go func() {
			fmt.Fprint(feed, "hello")
			feed.Close()
		}()
		if resp, got := r.do(r.request("/", body)); resp.ProtoMajor != 2 || got != "hello" {
			t.Errorf("got %s %q; want hello", resp.Proto, got)
		}
	})
}

func TestClientThatStopsSendingOverHTTP2IsCutOff(t *testing.T) {
	var seen chan error // made inside the bubble
	sink := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		seen <- err
	})
	bubble(t, rolling(), sink, func(t *testing.T, r *rig) {
		seen = make(chan error, 1)
		r.h2c()
		body, feed := io.Pipe()
		defer feed.Close()
		began := time.Now()
		go func() {
			fmt.Fprint(feed, "hello")
			time.Sleep(time.Second)
			fmt.Fprint(feed, "hello")
		}()
		go func() {
			resp, err := r.client.Do(r.request("/", body))
			if err == nil {
				resp.Body.Close()
			}
		}()
		if err := <-seen; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the body ended with %v; want its deadline", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("cut off after %v; want 2s after the last piece", took)
		}
	})
}

// One stream that nobody reads, and a connection that nobody reads.
func TestClientThatStopsReadingOverHTTP2IsCutOff(t *testing.T) {
	var seen chan error // made inside the bubble
	flood := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			fmt.Fprint(w, "hello")
			return
		}
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 4096))
		}
		seen <- err
	})
	bubble(t, rolling(), flood, func(t *testing.T, r *rig) {
		seen = make(chan error, 1)
		dials := r.h2c()
		resp, err := r.client.Do(r.request("/flood", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if err := <-seen; err == nil {
			t.Error("the flood came to an end by itself")
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the stream was cut off after %v; want about 2s", took)
		}
		if resp, _ := r.get("/"); resp.StatusCode != 200 || dials.Load() != 1 {
			t.Errorf("afterwards: got %s over connection %d; want 200 over the same one", resp.Status, dials.Load())
		}
	})
	bubble(t, rolling(), flood, func(t *testing.T, r *rig) {
		seen = make(chan error, 1)
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		go func() { _, _ = c.Write(rawGet("/flood")) }()
		if err := <-seen; err == nil {
			t.Error("the flood came to an end by itself")
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the connection was cut off after %v; want about 2s", took)
		}
	})
}

// rawGet is an HTTP/2 connection's beginning, with one GET whose header is
// written out (RFC 9113, sections 3.4 and 6; RFC 7541, section 6.2.2).
func rawGet(path string) []byte {
	frame := func(kind, flags byte, stream byte, payload []byte) []byte {
		return append([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, stream}, payload...)
	}
	var fields []byte
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "x"}, {":path", path}} {
		fields = append(fields, 0)
		for _, text := range field {
			fields = append(append(fields, byte(len(text))), text...)
		}
	}
	const settings, headers, endOfBoth = 4, 1, 0x5
	all := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(settings, 0, 0, nil)...)
	return append(all, frame(headers, endOfBoth, 1, fields)...)
}
