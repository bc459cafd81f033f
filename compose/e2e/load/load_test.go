package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(url string) func(int) Shot {
	return func(int) Shot { return Shot{Method: http.MethodGet, URL: url} }
}

func run(t *testing.T, cfg Config) *Report {
	t.Helper()
	cfg.Name = t.Name()
	r, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-r.done
	return r.Stop()
}

func TestRunCountsRefusedConnectionAsFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rep := run(t, Config{Rate: 100, For: 100 * time.Millisecond, Shot: get(url)})
	if rep.Sent != 10 || len(rep.Failures) != 10 || len(rep.OK) != 0 {
		t.Errorf("sent %d, failed %d, right %d; want 10, 10, 0", rep.Sent, len(rep.Failures), len(rep.OK))
	}
	if rep.Failures[0].Answer != nil || rep.Failures[0].Err == nil || rep.Failures[0].At.IsZero() {
		t.Errorf("failure is %+v; want an error, a time and no answer", rep.Failures[0])
	}
	if s := rep.List(3); strings.Count(s, "\n") != 4 || !strings.Contains(s, "and 7 more") {
		t.Errorf("List(3) is\n%s", s)
	}
}

func TestRunCountsWrongAnswersAsFailures(t *testing.T) {
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Served-By", "a")
		switch n.Add(1) {
		case 1:
			w.WriteHeader(http.StatusBadGateway)
		case 2:
			fmt.Fprint(w, "wrong")
		case 3: // an answer that is cut short
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "right")
		default:
			w.Header().Set("X-Degraded", "user")
			fmt.Fprint(w, "right")
		}
	}))
	defer srv.Close()
	rep := run(t, Config{Rate: 50, For: 200 * time.Millisecond, Shot: func(int) Shot {
		return Shot{Method: http.MethodGet, URL: srv.URL, Check: func(a *Answer) error {
			if a.Status != http.StatusOK || a.Body != "right" {
				return errors.New("not right")
			}
			return nil
		}}
	}})
	if rep.Sent != 10 || len(rep.Failures) != 3 || len(rep.OK) != 7 || rep.ServedBy["a"] != 7 || rep.Degraded != 7 {
		t.Errorf("got %+v; want 3 failures of 10, 7 served by a and degraded", rep)
	}
}

func TestRunTimesOutRequestsAndKeepsSending(t *testing.T) {
	release := make(chan struct{})
	var once sync.Once
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer srv.Close()
	defer once.Do(func() { close(release) })
	rep := run(t, Config{Rate: 100, For: 300 * time.Millisecond, Timeout: 50 * time.Millisecond, Shot: get(srv.URL)})
	once.Do(func() { close(release) })
	if rep.Sent != 30 || len(rep.Failures) != 30 {
		t.Errorf("sent %d, failed %d; want 30 and 30: a server that hangs must not slow the loop", rep.Sent, len(rep.Failures))
	}
}

func TestRunSendsBodyAndRequestID(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		got[r.Header.Get("X-Request-Id")] = r.Header.Get("Content-Type") + " " + string(b)
		mu.Unlock()
	}))
	defer srv.Close()
	run(t, Config{Rate: 100, For: 20 * time.Millisecond, Shot: func(n int) Shot {
		return Shot{Method: http.MethodPost, URL: srv.URL, Body: fmt.Sprintf(`{"n":%d}`, n)}
	}})
	want := `application/json {"n":1}`
	if g := got[t.Name()+"-1"]; g != want {
		t.Errorf("request 1 was %q; want %q", g, want)
	}
}

func TestStopWaitsForRequestsInFlight(t *testing.T) {
	arrived := make(chan struct{}, 1000)
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer srv.Close()
	r, err := Start(t.Context(), Config{Rate: 1, Shot: get(srv.URL)})
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	r.cancel()
	select {
	case <-r.done:
		t.Error("the run ended with a request in flight")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if rep := r.Stop(); len(rep.OK) != rep.Sent || rep.Exhausted {
		t.Errorf("got %d right of %d, exhausted %v; want all of them right, stopped by hand", len(rep.OK), rep.Sent, rep.Exhausted)
	}
}

func TestRunSaysThatItEndedBeforeStop(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	if rep := run(t, Config{Rate: 100, For: 20 * time.Millisecond, Shot: get(srv.URL)}); !rep.Exhausted {
		t.Error("a run that reached its bound does not say so")
	}
}

func TestStartRefusesWrongConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Rate: 1}, {Rate: 20000, Shot: get("")}} {
		if _, err := Start(t.Context(), cfg); err == nil {
			t.Errorf("Start(%+v) gave no error", cfg)
		}
	}
}
