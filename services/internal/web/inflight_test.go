package web_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// held serves requests that last until they are let go: plain ones, streams
// that have begun, and upgraded connections.
func held(letGo <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		switch r.URL.Path {
		case "/":
			return
		case "/stream":
			_ = control.Flush()
		case "/upgrade":
			c, _, err := control.Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		}
		<-letGo
	})
}

func TestRequestOverTheLimitIsA503WhateverIsInFlight(t *testing.T) {
	l := rolling()
	l.MaxRequests = 3
	for _, h2 := range []bool{false, true} {
		for _, path := range []string{"/plain", "/stream", "/upgrade"} {
			if h2 && path == "/upgrade" {
				continue // HTTP/2 has none
			}
			t.Run(fmt.Sprintf("%s, HTTP/2 %v", path, h2), func(t *testing.T) {
				var letGo chan struct{} // made inside the bubble
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { held(letGo).ServeHTTP(w, r) })
				bubble(t, l, h, func(t *testing.T, r *rig) {
					letGo = make(chan struct{})
					release := sync.OnceFunc(func() { close(letGo) })
					if h2 {
						r.h2c()
					}
					var served sync.WaitGroup
					defer served.Wait()
					defer release()
					for range l.MaxRequests {
						served.Go(func() {
							req := r.request(path, nil)
							if path == "/upgrade" {
								req.Header.Set("Connection", "Upgrade")
								req.Header.Set("Upgrade", "echo")
							}
							resp, err := r.client.Do(req)
							if err != nil {
								t.Error(err)
								return
							}
							defer resp.Body.Close()
							_, _ = io.Copy(io.Discard, resp.Body)
						})
					}
					synctest.Wait()
					for range 5 { // a refusal takes no place
						resp, body := r.get("/")
						r.problem(resp, body, http.StatusServiceUnavailable)
						if after, reason := resp.Header.Get("Retry-After"), resp.Header.Get(httpmesh.ReasonHeader); after != "1" || reason != httpmesh.ReasonOverload {
							t.Errorf("Retry-After is %q, the reason %q; want 1 and overload, so that clients go elsewhere", after, reason)
						}
					}
					if warned := r.log.named(t, "requests are refused"); len(warned) != 1 {
						t.Errorf("%d warnings; want one a second", len(warned))
					}
					release()
					served.Wait()
					synctest.Wait()
					if resp, _ := r.get("/"); resp.StatusCode != 200 {
						t.Errorf("after they ended: got %s; want 200", resp.Status)
					}
				})
			})
		}
	}
}

func TestAsManyRequestsAsConnectionsWhereNothingElseIsSaid(t *testing.T) {
	l := limits()
	l.MaxConnections = 4
	var letGo chan struct{} // made inside the bubble
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { held(letGo).ServeHTTP(w, r) })
	bubble(t, l, h, func(t *testing.T, r *rig) {
		letGo = make(chan struct{})
		release := sync.OnceFunc(func() { close(letGo) })
		r.h2c()
		var served sync.WaitGroup
		defer served.Wait()
		defer release()
		for range l.MaxConnections {
			served.Go(func() { r.get("/plain") })
		}
		synctest.Wait()
		if resp, _ := r.get("/"); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("with 4 requests in flight: got %s; want 503", resp.Status)
		}
		release()
		served.Wait()
	})
}

func TestStreamsOfOneConnectionAreBounded(t *testing.T) {
	l := limits()
	l.MaxStreams = 2
	var letGo chan struct{} // made inside the bubble
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { held(letGo).ServeHTTP(w, r) })
	bubble(t, l, h, func(t *testing.T, r *rig) {
		letGo = make(chan struct{})
		release := sync.OnceFunc(func() { close(letGo) })
		dials := r.h2c()
		r.get("/") // the client is told the limit
		var served sync.WaitGroup
		defer served.Wait()
		defer release()
		for range 5 {
			served.Go(func() { r.get("/plain") })
			synctest.Wait() // one after the other: dials would be raced
		}
		if n := dials.Load(); n != 3 {
			t.Errorf("5 requests made %d connections; want 3, with 2 streams at most on each", n)
		}
		release()
		served.Wait()
	})
}

// Twenty connections with 250 streams each, whose headers announce a body that
// does not come.
func TestManyStreamsOfManyConnectionsAreBounded(t *testing.T) {
	l := rolling()
	most := 0
	var mu sync.Mutex // guards most and now
	now := 0
	count := func(delta int) {
		mu.Lock()
		defer mu.Unlock()
		now += delta
		most = max(most, now)
	}
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		count(1)
		defer count(-1)
		_, _ = io.Copy(io.Discard, r.Body)
	})
	bubble(t, l, h, func(t *testing.T, r *rig) {
		ctx, leave := context.WithCancel(t.Context())
		var served sync.WaitGroup
		for range 20 {
			var conn net.Conn
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true)
			transport := &http.Transport{Protocols: protocols, DialContext: func(context.Context, string, string) (net.Conn, error) {
				var err error
				if conn != nil {
					return nil, net.ErrClosed // one is all there is
				}
				conn, err = r.pipes.dial()
				return conn, err
			}}
			if resp, err := transport.RoundTrip(r.request("/", nil)); err == nil {
				resp.Body.Close()
			}
			for range 250 {
				body, _ := io.Pipe()
				req := r.request("/", body).WithContext(ctx)
				req.ContentLength = 64 << 10
				served.Go(func() {
					defer body.Close()
					if resp, err := transport.RoundTrip(req); err == nil {
						resp.Body.Close()
					}
				})
			}
			defer transport.CloseIdleConnections()
		}
		synctest.Wait()
		mu.Lock()
		if most == 0 || most > l.MaxConnections {
			t.Errorf("%d requests were at work at once; want at most %d", most, l.MaxConnections)
		}
		mu.Unlock()
		leave()
		served.Wait()
	})
}
