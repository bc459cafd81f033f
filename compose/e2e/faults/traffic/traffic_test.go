package traffic

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gateway answers as ours does; wrong may answer in its place.
func gateway(t *testing.T, wrong func(w http.ResponseWriter, r *http.Request) bool) *httptest.Server {
	t.Helper()
	var made atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		w.Header().Set("X-Served-By", "order-a")
		if wrong != nil && wrong(w, r) {
			return
		}
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, right[r.URL.Path])
			return
		}
		var order struct{ Item string }
		if err := json.NewDecoder(r.Body).Decode(&order); err != nil || r.Header.Get("Idempotency-Key") != `"`+order.Item+`"` {
			t.Errorf("POST of %+v, %v, with the key %s", order, err, r.Header.Get("Idempotency-Key"))
		}
		id := made.Add(1)
		w.Header().Set("Location", fmt.Sprintf("%s/%d", r.URL.Path, id))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"order_id":%d,"item":%q}`, id, order.Item)
	}))
	t.Cleanup(s.Close)
	return s
}

// run sends until enough requests have ended.
func run(t *testing.T, cfg Config, enough int) []Sample {
	t.Helper()
	cfg.Name = "test"
	l, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	for began := time.Now(); l.Count(func(*Sample) bool { return true }) < enough; {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the load does not run")
		}
		time.Sleep(5 * time.Millisecond)
	}
	l.Stop()
	return l.Samples()
}

func TestLoadSendsBothStreamsAndFindsRightAnswersRight(t *testing.T) {
	s := gateway(t, nil)
	streams := map[string]int{}
	for _, sample := range run(t, Config{Bases: []string{s.URL}, Gets: 200, Posts: 100, User: 7}, 60) {
		streams[sample.Stream]++
		if sample.Failed() || sample.ServedBy != "order-a" {
			t.Errorf("failed: %v", &sample)
		}
		if sample.Method == http.MethodPost && (sample.Item != sample.ID || sample.Location == "") {
			t.Errorf("a POST made %q at %q; want %q", sample.Item, sample.Location, sample.ID)
		}
	}
	if streams["get"] == 0 || streams["post"] == 0 {
		t.Errorf("sent were %v; want both streams", streams)
	}
}

func TestPostsHaveKeysUnlessTheyAreToHaveNone(t *testing.T) {
	for _, unkeyed := range []bool{false, true} {
		var keyed, bare atomic.Int64
		s := gateway(t, func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Idempotency-Key") == "" {
				bare.Add(1)
			} else {
				keyed.Add(1)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		run(t, Config{Bases: []string{s.URL}, Posts: 100, User: 7, Unkeyed: unkeyed}, 5)
		if k, b := keyed.Load(), bare.Load(); (b > 0) != unkeyed || (k > 0) == unkeyed {
			t.Errorf("unkeyed %v: %d with a key and %d without", unkeyed, k, b)
		}
	}
}

func TestAnswerOfTheWrongServiceIsFailedAndWrong(t *testing.T) {
	s := gateway(t, func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = io.WriteString(w, right[UsersPath])
		return r.Method == http.MethodGet
	})
	for _, sample := range run(t, Config{Bases: []string{s.URL}, Gets: 200}, 20) {
		if want := sample.Path == OrdersPath; sample.Wrong != want || sample.Failed() != want {
			t.Errorf("%v: wrong %v; want %v", &sample, sample.Wrong, want)
		}
	}
}

func TestAnotherOrdersAnswerToAPostIsWrong(t *testing.T) {
	s := gateway(t, func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Location", "/orders/7/1")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"order_id":1,"item":"test-post-0"}`)
		return true
	})
	wrong := 0
	samples := run(t, Config{Bases: []string{s.URL}, Posts: 100, User: 7}, 10)
	for _, sample := range samples {
		if sample.Wrong {
			wrong++
		}
	}
	if wrong != len(samples)-1 {
		t.Errorf("%d of %d POSTs were answered wrongly; want all but the first", wrong, len(samples))
	}
}

func TestRefusalIsToldWithItsProblem(t *testing.T) {
	s := gateway(t, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	for _, sample := range run(t, Config{Bases: []string{s.URL}, Gets: 100}, 5) {
		if !sample.Failed() || !sample.Problem || sample.Retry != "1" || sample.Status != http.StatusServiceUnavailable || sample.Wrong {
			t.Errorf("got %+v; want a 503 problem with Retry-After", sample)
		}
	}
}

// breaking is a server that answers the first request of each connection and breaks the second off.
func breaking(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]bool{}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served[r.RemoteAddr] {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.Close()
			}
			return
		}
		served[r.RemoteAddr] = true
		_, _ = io.WriteString(w, right[r.URL.Path])
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return "http://" + l.Addr().String()
}

func TestBrokenConnectionIsAFailureThoughGoWouldSendAgain(t *testing.T) {
	url := breaking(t)
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c := &client{next: tr, bases: []string{url}}
	var errs []error
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+UsersPath, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.RoundTrip(req)
		errs = append(errs, err)
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	if errs[0] != nil || errs[1] == nil {
		t.Errorf("got %v; want the second request to fail", errs)
	}
}

func TestClientOfTwoPortsTriesTheOtherOnce(t *testing.T) {
	s := gateway(t, nil)
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	other := 0
	samples := run(t, Config{Bases: []string{dead.URL, s.URL}, Gets: 200, Posts: 100, User: 7}, 40)
	for _, sample := range samples {
		if sample.Failed() {
			t.Errorf("failed: %v", &sample)
		}
		if sample.Other {
			other++
		}
	}
	if other < len(samples)/4 || other == len(samples) {
		t.Errorf("%d of %d were answered by the other port; want about half", other, len(samples))
	}
}

func TestWrongConfigIsNamed(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Name": {}, "Bases": {Name: "a"}, "Gets": {Name: "a", Bases: []string{"b"}, Gets: -1},
		"Posts": {Name: "a", Bases: []string{"b"}, Posts: 10001}, "Timeout": {Name: "a", Bases: []string{"b"}, Timeout: -1},
	} {
		if _, err := Start(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want an error that names %s", cfg, err, want)
		}
	}
}
