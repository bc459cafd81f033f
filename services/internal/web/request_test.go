package web_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })

func TestWellFormedRequestIDIsTakenOverAndAnyOtherReplaced(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, logging.RequestID(r.Context())+" "+strings.Join(r.Header.Values("X-Request-Id"), ","))
	})
	bubble(t, limits(), echo, func(t *testing.T, r *rig) {
		long := strings.Repeat("x", 128)
		for name, tc := range map[string]struct {
			sent []string
			kept bool
		}{
			"none":                {nil, false},
			"well formed":         {[]string{"aZ09._-"}, true},
			"128 characters":      {[]string{long}, true},
			"129 characters":      {[]string{long + "x"}, false},
			"empty":               {[]string{""}, false},
			"a blank":             {[]string{"a b"}, false},
			"not ASCII":           {[]string{"é"}, false},
			"JSON to fool a log":  {[]string{`","level":"ERROR`}, false},
			"two, whichever wins": {[]string{"a", "b"}, false},
		} {
			req := r.request("/", nil)
			for _, id := range tc.sent {
				req.Header.Add("X-Request-Id", id)
			}
			resp, body := r.do(req)
			got := resp.Header.Values("X-Request-Id")
			if len(got) != 1 || got[0] == "" {
				t.Errorf("%s: answered with the IDs %q; want one", name, got)
				continue
			}
			if kept := len(tc.sent) > 0 && got[0] == tc.sent[0]; kept != tc.kept {
				t.Errorf("%s: sent %q, got %q; kept %v, want %v", name, tc.sent, got[0], kept, tc.kept)
			}
			if body != got[0]+" "+got[0] {
				t.Errorf("%s: the handler saw %q; want the ID of the answer, in its context and header", name, body)
			}
		}
	})
}

func TestEachRequestIsOneLineWithoutItsQueryOrBody(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /users/{id}", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		web.NotePeer(r.Context(), "store-1")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "made")
	})
	bubble(t, limits(), mux, func(t *testing.T, r *rig) {
		r.do(r.request("/users/a%2Fb?password=secret", strings.NewReader("hidden"), "X-Request-Id", "id-1", "Authorization", "Bearer token"))
		synctest.Wait()
		all := r.log.named(t, "request")
		if len(all) != 1 {
			t.Fatalf("%d lines; want 1:\n%s", len(all), r.log)
		}
		for key, want := range map[string]any{
			"level": "INFO", "request_id": "id-1", "method": "POST", "route": "POST /users/{id}",
			"path": "/users/a%2Fb", "status": 201.0, "bytes": 4.0, "peer": "store-1",
		} {
			if got := all[0][key]; got != want {
				t.Errorf("%s is %v; want %v", key, got, want)
			}
		}
		for _, secret := range []string{"secret", "hidden", "token"} {
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("the log tells %q:\n%s", secret, r.log)
			}
		}
	})
}

func TestRequestsAreCountedByPatternAndNeverByPath(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /users/{id}", hello)
	bubble(t, limits(), mux, func(t *testing.T, r *rig) {
		for _, path := range []string{"/users/1", "/users/2", "/nothing", "/nowhere"} {
			r.get(path)
		}
		synctest.Wait()
		got := series(t, r, "http_server_request_duration_seconds_count")
		want := []string{
			`{code="200",method="GET",route="GET /users/{id}",service="order"} 2`,
			`{code="404",method="GET",route="unmatched",service="order"} 2`,
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("series:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if n := r.Arrivals(); n != 4 {
			t.Errorf("%d arrivals; want 4", n)
		}
	})
}

func TestStreamsAndUpgradesCountAsLatencyUntilTheyBegin(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stream", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Second)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		time.Sleep(30 * time.Second)
	})
	mux.HandleFunc("GET /upgrade", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(2 * time.Second)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
		time.Sleep(30 * time.Second)
		conn.Close()
	})
	mux.HandleFunc("GET /plain", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(3 * time.Second)
		_, _ = io.WriteString(w, "done")
	})
	l := limits()
	l.StreamTimeout = time.Minute
	bubble(t, l, mux, func(t *testing.T, r *rig) {
		for _, path := range []string{"/stream", "/upgrade", "/plain"} {
			r.get(path)
		}
		time.Sleep(time.Minute) // the taken-over connection's handler has ended
		got := series(t, r, "http_server_request_duration_seconds_sum")
		slices.Sort(got)
		if want := []string{
			`{code="101",method="GET",route="GET /upgrade",service="order"} 2`,
			`{code="200",method="GET",route="GET /plain",service="order"} 3`,
			`{code="200",method="GET",route="GET /stream",service="order"} 1`,
		}; !slices.Equal(got, want) {
			t.Errorf("got %s; want %s", got, want)
		}
	})
}

func TestPanicIsAProblemAndTheServerLives(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { panic("nil map") })
	mux.HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "half an answer")
		_ = http.NewResponseController(w).Flush()
		panic("late")
	})
	mux.HandleFunc("GET /abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.Handle("GET /hello", hello)
	bubble(t, limits(), mux, func(t *testing.T, r *rig) {
		resp, body := r.get("/panic", "X-Request-Id", "id-1")
		r.problem(resp, body, http.StatusInternalServerError)
		if strings.Contains(body, "nil map") {
			t.Errorf("the answer tells the panic: %s", body)
		}
		resp, err := r.client.Do(r.request("/late", nil))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("got %q as a whole answer; want it to be broken off", got)
		}
		resp.Body.Close()
		if resp, err := r.client.Do(r.request("/abort", nil)); err == nil {
			resp.Body.Close()
			t.Errorf("got %s; want a connection that breaks off", resp.Status)
		}
		if resp, body := r.get("/hello"); resp.StatusCode != 200 || body != "hello\n" {
			t.Errorf("afterwards: got %s %q", resp.Status, body)
		}
		synctest.Wait()
		panics := r.log.named(t, "handler panicked")
		if len(panics) != 2 {
			t.Fatalf("%d panics in the log; want 2, since ErrAbortHandler is none:\n%s", len(panics), r.log)
		}
		if stack, _ := panics[0]["stack"].(string); panics[0]["panic"] != "nil map" || panics[0]["request_id"] != "id-1" || !strings.Contains(stack, "request_test.go") {
			t.Errorf("the log says %v; want the panic, the request's ID and where it was", panics[0])
		}
		for _, line := range r.log.named(t, "request") {
			if path := line["path"]; (path == "/late" || path == "/abort") != (line["cut_off"] == true) {
				t.Errorf("%v: cut_off is %v", path, line["cut_off"])
			}
		}
		if n := series(t, r, "http_server_panics_total"); n[0] != `{service="order"} 2` {
			t.Errorf("panics are %s; want 2", n)
		}
		if n := series(t, r, "http_server_requests_in_flight"); n[0] != `{service="order"} 0` {
			t.Errorf("requests in flight are %s; want 0", n)
		}
	})
}

func TestHeaderOverTheLimitIsAProblem(t *testing.T) {
	bubble(t, limits(), hello, func(t *testing.T, r *rig) {
		if resp, _ := r.get("/", "X-Big", strings.Repeat("x", 15<<10)); resp.StatusCode != 200 {
			t.Errorf("15 KiB: got %s; want 200", resp.Status)
		}
		resp, body := r.get("/", "X-Big", strings.Repeat("x", 16<<10))
		r.problem(resp, body, http.StatusRequestHeaderFieldsTooLarge)
		many := []string{}
		for n := range 600 {
			many = append(many, fmt.Sprintf("X-H%d", n), strings.Repeat("x", 20))
		}
		resp, body = r.get("/", many...)
		r.problem(resp, body, http.StatusRequestHeaderFieldsTooLarge)
		resp, body = r.get("/" + strings.Repeat("x", 17<<10))
		r.problem(resp, body, http.StatusRequestHeaderFieldsTooLarge)
	})
}

func TestHandlersKeepWhatNetHTTPOffers(t *testing.T) {
	var got error
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, flusher := w.(http.Flusher)
		_, hijacker := w.(http.Hijacker)
		control := http.NewResponseController(w)
		got = errors.Join(control.Flush(), control.EnableFullDuplex())
		if !flusher || !hijacker {
			got = errors.Join(got, fmt.Errorf("Flusher %v, Hijacker %v", flusher, hijacker))
		}
	})
	for _, stream := range []bool{false, true} {
		l := limits()
		if stream {
			l.StreamTimeout = l.IdleTimeout
		}
		bubble(t, l, h, func(t *testing.T, r *rig) {
			r.get("/")
			if got != nil {
				t.Errorf("stream %v: %v", stream, got)
			}
		})
	}
}

// series returns the lines of one metric, without its name.
func series(t *testing.T, r *rig, name string) []string {
	t.Helper()
	if problems, err := testutil.GatherAndLint(r.metrics); err != nil || len(problems) > 0 {
		t.Fatalf("metrics: %v %v", problems, err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(r.metrics, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	var found []string
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, name+"{"); ok {
			found = append(found, "{"+strings.TrimSpace(rest))
		}
	}
	if found == nil {
		t.Fatalf("there is no %s", name)
	}
	return found
}
