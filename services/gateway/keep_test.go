package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

func TestSmallBodyIsReadBeforeAnyServiceIsAsked(t *testing.T) {
	reached, asked := make(chan struct{}, 1), make(chan string, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		body, _ := io.ReadAll(r.Body)
		asked <- fmt.Sprint(r.ContentLength, " ", string(body))
	})
	for _, more := range []string{"", "Idempotency-Key: key-1\r\n"} {
		c := d.dial()
		fmt.Fprint(c, "POST /users HTTP/1.1\r\nHost: x\r\n"+more+"Content-Length: 8\r\n\r\nhalf")
		select {
		case <-reached:
			t.Fatalf("%q: the service was asked before the body was there", more)
		case <-time.After(100 * time.Millisecond):
		}
		fmt.Fprint(c, "more")
		await(t, "the request", reached)
		if got := await(t, "its body", asked); got != "8 halfmore" {
			t.Errorf("%q: the service got %q; want the whole body and its length", more, got)
		}
		if resp, _ := c.whole(http.MethodPost); resp.StatusCode != http.StatusOK || resp.Close {
			t.Errorf("%q: got %s, close %t; want 200, and the connection to go on", more, resp.Status, resp.Close)
		}
	}
}

func TestClientsThatSendSlowlyTakeNoPlaceFromOthers(t *testing.T) {
	limits, err := overload.New(overload.Config{Start: 4})
	if err != nil {
		t.Fatal(err)
	}
	h := limits.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	}))
	d := through(t, options{}, h.ServeHTTP)
	for n := range 12 {
		c := d.dial()
		length := "Content-Length: 10" // the gateway waits for it
		if n%2 == 0 {
			length = "Transfer-Encoding: chunked" // the service does
		}
		c.say("POST /users HTTP/1.1", "Host: x", length, "")
		if n%2 == 0 {
			c.chunk("half")
		} else {
			fmt.Fprint(c, "half")
		}
	}
	time.Sleep(100 * time.Millisecond) // for them to arrive, as far as they do
	for range 10 {
		if resp, body := d.do(d.request(http.MethodPost, "/users", strings.NewReader("{}"))); resp.StatusCode != http.StatusCreated {
			t.Errorf("got %s %s; want 201", resp.Status, body)
		}
	}
}

// twice offers user with two instances: whichever is asked first does as first
// does, after it has read the body; the other one answers 201 with the body it
// got. asked counts both.
func (d *door) twice(first http.HandlerFunc) (asked *atomic.Int32) {
	d.t.Helper()
	asked = new(atomic.Int32)
	var instances []catalog.Instance
	for n := range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) == 1 {
				first(w, r)
				return
			}
			w.WriteHeader(http.StatusCreated)
			_, _ = io.Copy(w, r.Body)
		}))
		d.t.Cleanup(s.Close)
		at := netip.MustParseAddrPort(s.Listener.Addr().String())
		instances = append(instances, catalog.Instance{ID: fmt.Sprint("user-", n), Host: at.Addr().String(), Port: int(at.Port())})
	}
	if err := d.fleet.Set("user", instances...); err != nil {
		d.t.Fatal(err)
	}
	return asked
}

func TestPostWithoutAKeyThatWasNotWorkedOnIsSentElsewhere(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"shed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"misdirected": func(w http.ResponseWriter, r *http.Request) {
			httpmesh.RequireService("order", http.NotFoundHandler()).ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, options{})
			asked := d.twice(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				refuse(w, r)
			})
			resp, body := d.do(d.request(http.MethodPost, "/users", strings.NewReader(`{"name":"Bob"}`)))
			if resp.StatusCode != http.StatusCreated || body != `{"name":"Bob"}` || asked.Load() != 2 {
				t.Errorf("got %s %q after %d requests; want 201 by the second, with the whole body", resp.Status, body, asked.Load())
			}
		})
	}
}

func TestPostWithoutAKeyIsNeverSentAgainAfterAByteWasWritten(t *testing.T) {
	for name, body := range map[string]io.Reader{
		"read before": strings.NewReader(`{"name":"Bob"}`),
		"streamed":    io.MultiReader(strings.NewReader(`{"name":"Bob"}`)),
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, options{})
			asked := d.twice(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				panic(http.ErrAbortHandler)
			})
			resp, text := d.do(d.request(http.MethodPost, "/users", body))
			if p := d.unserved(resp, text); resp.StatusCode != http.StatusBadGateway || p.Tried != 1 || asked.Load() != 1 {
				t.Errorf("got %s %+v after %d requests; want a 502 after one", resp.Status, p, asked.Load())
			}
		})
	}
}
