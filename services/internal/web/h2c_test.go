package web_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
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
