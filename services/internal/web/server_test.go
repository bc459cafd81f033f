package web_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

func TestConnectionOverTheLimitIsAnsweredAndClosed(t *testing.T) {
	l := limits()
	l.MaxConnections = 2
	bubble(t, l, hello, func(t *testing.T, r *rig) {
		var held []net.Conn
		for range 2 {
			c, err := r.pipes.dial()
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, c)
		}
		resp, body := r.get("/")
		r.problem(resp, body, http.StatusServiceUnavailable)
		if got := resp.Header.Get("Retry-After"); got != "1" || !resp.Close {
			t.Errorf("Retry-After %q, close %v; want 1 and true", got, resp.Close)
		}
		if got := resp.Header.Get(httpmesh.ReasonHeader); got != httpmesh.ReasonOverload {
			t.Errorf("the reason is %q; want overload, so that clients go elsewhere", got)
		}
		if n := series(t, r, "http_server_connections_refused_total"); n[0] != `{service="order"} 1` {
			t.Errorf("refused are %s; want 1", n)
		}
		for _, c := range held {
			c.Close()
		}
		synctest.Wait()
		if resp, _ := r.get("/"); resp.StatusCode != 200 {
			t.Errorf("after others left: got %s; want 200", resp.Status)
		}
	})
}

func TestRefusedClientThatNeitherReadsNorLeavesIsDropped(t *testing.T) {
	l := limits()
	l.MaxConnections = 0
	bubble(t, l, hello, func(t *testing.T, r *rig) {
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		time.Sleep(2 * time.Second)
		if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after %v the connection still takes bytes (%v); want it closed", time.Since(began), err)
		}
	})
}

func TestRefusalDoesNotComeBeforeTheRequest(t *testing.T) {
	l := limits()
	l.MaxConnections = 0
	bubble(t, l, hello, func(t *testing.T, r *rig) {
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d bytes, %v, before anything was asked; want nothing so far", n, err)
		}
	})
}

func TestRetiredServerTellsClientsToLeaveAndKeepsIdleConnections(t *testing.T) {
	bubble(t, limits(), hello, func(t *testing.T, r *rig) {
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		in := bufio.NewReader(c)
		ask := func() *http.Response {
			t.Helper()
			req := r.request("/", nil)
			go func() { _ = req.Write(c) }()
			resp, err := http.ReadResponse(in, req)
			if err != nil {
				t.Fatalf("read the answer: %v", err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			return resp
		}
		if resp := ask(); resp.Close {
			t.Error("the first answer closes the connection")
		}
		synctest.Wait() // idle
		r.Retire()
		synctest.Wait()
		if resp := ask(); !resp.Close { // on the same connection: a POST would have come through
			t.Error("the answer of a retired server keeps the connection")
		}
	})
}

func TestShutdownWaitsForRequestsInFlight(t *testing.T) {
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(3 * time.Second)
		fmt.Fprint(w, "done")
	})
	bubble(t, limits(), slow, func(t *testing.T, r *rig) {
		answer := make(chan string, 1)
		go func() {
			_, body := r.get("/")
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

func TestShutdownCutsOffWhatOutlivesItsContext(t *testing.T) {
	ended := make(chan struct{}, 2)
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		ended <- struct{}{}
	})
	mux.HandleFunc("/upgrade", func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		<-r.Context().Done()
		ended <- struct{}{}
	})
	bubble(t, limits(), mux, func(t *testing.T, r *rig) {
		resp, err := r.client.Do(r.request("/stream", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		up, err := r.client.Do(r.request("/upgrade", nil, "Connection", "Upgrade", "Upgrade", "echo"))
		if err != nil {
			t.Fatal(err)
		}
		defer up.Body.Close()

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		err = r.Shutdown(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "2 requests were cut off") {
			t.Errorf("Shutdown() = %v; want that 2 requests were cut off", err)
		}
		if took := time.Since(began); took < 4*time.Second || took > 5*time.Second {
			t.Errorf("Shutdown took %v; want its bound of 4s", took)
		}
		if len(ended) != 2 {
			t.Errorf("%d of 2 handlers had ended when Shutdown returned", len(ended))
		}
	})
}

func TestSpareConnectionsDoNotHoldUpAShutdown(t *testing.T) {
	bubble(t, limits(), hello, func(t *testing.T, r *rig) {
		c, err := r.pipes.dial() // and nothing is sent
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := r.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown() = %v; want nil", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Shutdown took %v; want less than 2s", took)
		}
	})
}

func TestStreamLivesForAsLongAsItMoves(t *testing.T) {
	l := limits()
	l.StreamTimeout = 2 * time.Second
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		b := make([]byte, 64)
		for {
			n, err := r.Body.Read(b)
			if n > 0 {
				_, _ = w.Write(b[:n])
				_ = control.Flush()
			}
			if err != nil {
				break
			}
		}
		time.Sleep(5 * time.Second) // a silent end, longer than a piece may take
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request ended by itself: %v", err)
		}
		fmt.Fprint(w, "bye")
	})
	bubble(t, l, echo, func(t *testing.T, r *rig) {
		body, feed := io.Pipe()
		go func() {
			for range 10 {
				time.Sleep(time.Second)
				fmt.Fprint(feed, "x")
			}
			feed.Close()
		}()
		began := time.Now()
		_, got := r.do(r.request("/", body))
		if got != "xxxxxxxxxxbye" || time.Since(began) < 15*time.Second {
			t.Errorf("got %q after %v; want ten pieces and the end, after 15s", got, time.Since(began))
		}
	})
}

func TestLongSilenceAfterTheRequestEndsNothing(t *testing.T) {
	l := limits()
	l.StreamTimeout = 2 * time.Second
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = r.Body.Read(make([]byte, 1)) // once more, as http.Transport does
		fmt.Fprint(w, "hello")
		_ = http.NewResponseController(w).Flush()
		time.Sleep(5 * time.Second)
		if err := r.Context().Err(); err != nil {
			t.Errorf("the request ended by itself: %v", err)
		}
		// And nothing more is said: the end of the answer is net/http's to send.
	})
	bubble(t, l, h, func(t *testing.T, r *rig) {
		if _, got := r.do(r.request("/", strings.NewReader("x"))); got != "hello" {
			t.Errorf("got %q; want hello, and its end", got)
		}
	})
}

func TestClientThatStopsSendingIsCutOff(t *testing.T) {
	l := limits()
	l.StreamTimeout = 2 * time.Second
	var seen chan error // made inside the bubble
	sink := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		seen <- err
	})
	bubble(t, l, sink, func(t *testing.T, r *rig) {
		seen = make(chan error, 1)
		body, feed := io.Pipe()
		defer feed.Close()
		began := time.Now()
		go func() {
			resp, err := r.client.Do(r.request("/", body))
			if err == nil {
				resp.Body.Close()
			}
		}()
		if err := <-seen; err == nil {
			t.Error("the body was read to its end; want an error")
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("cut off after %v; want 2s", took)
		}
	})
}

func TestSlowReaderLivesHoweverMuchIsWrittenAtOnce(t *testing.T) {
	const size = 1 << 20
	flood := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n, err := w.Write(make([]byte, size)); n != size || err != nil {
			t.Errorf("wrote %d bytes, %v; want %d", n, err, size)
		}
	})
	for _, h2 := range []bool{false, true} {
		bubble(t, rolling(), flood, func(t *testing.T, r *rig) {
			if h2 {
				r.h2c()
			}
			// The pipe is the slow one: the client's own buffers must not help.
			r.pipes.slow = func(n int) { time.Sleep(time.Duration(n) * time.Second / (100 << 10)) }
			began := time.Now()
			if _, body := r.get("/"); len(body) != size || time.Since(began) < 10*time.Second {
				t.Errorf("HTTP/2 %v: got %d bytes after %v; want %d at 100 KB/s", h2, len(body), time.Since(began), size)
			}
		})
	}
}

func TestClientThatStopsReadingIsCutOff(t *testing.T) {
	l := limits()
	l.StreamTimeout = 2 * time.Second
	var seen chan error // made inside the bubble
	flood := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var err error
		for err == nil {
			_, err = w.Write(make([]byte, 4096))
		}
		seen <- err
	})
	bubble(t, l, flood, func(t *testing.T, r *rig) {
		seen = make(chan error, 1)
		resp, err := r.client.Do(r.request("/", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		began := time.Now()
		if err := <-seen; err == nil {
			t.Error("the flood came to an end by itself")
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("cut off after %v; want about 2s", took)
		}
	})
}
