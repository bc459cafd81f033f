package web_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// untilGone waits for the end of the request, and says nothing then.
var untilGone = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
})

// wantUnanswered checks that so many requests are logged, all of them as cut
// off without an answer.
func (l *lines) wantUnanswered(t *testing.T, requests int) {
	t.Helper()
	n := 0
	for _, line := range l.named(t, "request") {
		if line["status"] == 499.0 && line["cut_off"] == true {
			n++
		}
	}
	if n != requests {
		t.Errorf("%d requests are logged as cut off without an answer; want %d:\n%s", n, requests, l)
	}
}

// untilGoneThenFlush flushes then, as who leaves nothing behind may do.
var untilGoneThenFlush = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	untilGone(w, r)
	_ = http.NewResponseController(w).Flush()
	_ = r.Body.Close()
})

// A client that closes its sending half can't be told from one that has left:
// both are the end of what comes in.
func TestClientThatHalfClosesGetsNoAnswerRatherThanAnEmpty200(t *testing.T) {
	requests := []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
	}
	for name, h := range map[string]http.Handler{"in silence": untilGone, "with a flush": untilGoneThenFlush} {
		t.Run(name, func(t *testing.T) {
			log, dial := tcp(t, limits(), h)
			for _, request := range requests {
				c := dial()
				fmt.Fprint(c, request)
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got := rest(t, c); got != "" {
					t.Errorf("%q: got %q; want the end of the connection", request, got)
				}
			}
			log.wantUnanswered(t, len(requests))
		})
	}
}

func TestClientThatHalfClosesGetsTheAnswerOfAHandlerThatGivesOne(t *testing.T) {
	_, dial := tcp(t, limits(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		untilGone(w, r)
		fmt.Fprint(w, "hello")
	}))
	c := dial()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := rest(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "hello") {
		t.Errorf("got %q; want hello", got)
	}
}

func TestRequestCutOffByADrainGetsNoAnswer(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(proto, func(t *testing.T) {
			bubble(t, limits(), untilGone, func(t *testing.T, r *rig) {
				if proto == "HTTP/2" {
					r.h2c()
				}
				const requests = 40
				var answered atomic.Int32
				for range requests {
					go func() {
						resp, err := r.client.Do(r.request("/", strings.NewReader("x")))
						if err == nil {
							resp.Body.Close()
							answered.Add(1)
						}
					}()
				}
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := r.Shutdown(ctx); err == nil {
					t.Error("Shutdown() = nil; want an error that counts the requests")
				}
				synctest.Wait()
				if n := answered.Load(); n != 0 {
					t.Errorf("%d of %d requests were answered; want none", n, requests)
				}
				r.log.wantUnanswered(t, requests)
				if n := series(t, r, "http_server_request_duration_seconds_count"); len(n) != 1 || n[0] != `{code="499",method="POST",route="unmatched",service="order"} 40` {
					t.Errorf("series %q; want %d with the code 499", n, requests)
				}
			})
		})
	}
}

func TestHandlerThatBreaksOffBeforeItsAnswerIsNotLoggedAs200(t *testing.T) {
	abort := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	bubble(t, limits(), abort, func(t *testing.T, r *rig) {
		if resp, err := r.client.Do(r.request("/", nil)); err == nil {
			resp.Body.Close()
			t.Errorf("got %s; want a connection that breaks off", resp.Status)
		}
		synctest.Wait()
		r.log.wantUnanswered(t, 1)
	})
}

// An empty answer is one that handlers give, as net/http offers it.
func TestHandlerThatSaysNothingToAClientThatWaitsAnswersEmpty(t *testing.T) {
	bubble(t, limits(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), func(t *testing.T, r *rig) {
		if resp, body := r.get("/"); resp.StatusCode != 200 || body != "" {
			t.Errorf("got %s %q; want an empty 200", resp.Status, body)
		}
	})
}
