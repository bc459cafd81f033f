//go:build faults

package fault_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
)

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })

// ask sends a request to /faults, in front of a handler that answers 404.
func ask(t *testing.T, method, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	fault.Admin(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(method, "/faults", strings.NewReader(body)))
	return w.Code, w.Body.String()
}

// set puts a setting, and heals at the end of the test.
func set(t *testing.T, body string) {
	t.Helper()
	if code, said := ask(t, http.MethodPut, body); code != http.StatusOK {
		t.Fatalf("PUT %s: %d %s", body, code, said)
	}
	t.Cleanup(func() { ask(t, http.MethodPut, "{}") })
}

func get(ctx context.Context) (int, string) {
	w := httptest.NewRecorder()
	fault.Traffic(hello).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders/1", nil).WithContext(ctx))
	return w.Code, w.Body.String()
}

func TestNothingFailsUntilItIsAskedFor(t *testing.T) {
	if code, body := get(t.Context()); code != 200 || body != "hello" {
		t.Errorf("got %d %q; want hello", code, body)
	}
	if code, body := ask(t, http.MethodGet, ""); code != 200 || body != "{}\n" {
		t.Errorf("GET /faults: %d %q; want {}", code, body)
	}
}

func TestStatusIsAnsweredUntilItHeals(t *testing.T) {
	set(t, `{"status":500}`)
	if code, body := get(t.Context()); code != 500 || !strings.Contains(body, "PUT /faults") {
		t.Errorf("got %d %q; want 500 that says why", code, body)
	}
	if code, body := ask(t, http.MethodGet, ""); code != 200 || body != `{"status":500}`+"\n" {
		t.Errorf("GET /faults: %d %q; want the setting", code, body)
	}
	set(t, `{"delay":"1ms"}`) // replaces the whole
	if code, _ := get(t.Context()); code != 200 {
		t.Errorf("got %d after another setting; want 200", code)
	}
	set(t, `{}`)
	if code, _ := get(t.Context()); code != 200 {
		t.Errorf("got %d after it healed; want 200", code)
	}
}

func TestDelayComesBeforeTheAnswerAndEndsWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set(t, `{"delay":"300ms"}`)
		began := time.Now()
		if code, _ := get(t.Context()); code != 200 || time.Since(began) != 300*time.Millisecond {
			t.Errorf("got %d after %v; want 200 after 300ms", code, time.Since(began))
		}
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if code, _ := get(ctx); code != 503 || time.Since(began) != 100*time.Millisecond {
			t.Errorf("got %d after %v; want 503 after the 100ms of its context", code, time.Since(began))
		}
	})
}

func TestSlotsAndHoldAreTheCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set(t, `{"slots":4,"hold":"20ms"}`)
		began := time.Now()
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() { get(t.Context()) })
		}
		all.Wait()
		if took := time.Since(began); took != 200*time.Millisecond {
			t.Errorf("40 requests took %v; want 200ms, for 4 in each 20ms", took)
		}
	})
}

func TestRequestThatEndsInTheQueueTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set(t, `{"slots":1,"hold":"100ms"}`)
		go get(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if code, _ := get(ctx); code != 503 {
			t.Errorf("the request that had no time got %d; want 503", code)
		}
		began := time.Now()
		if code, _ := get(t.Context()); code != 200 || time.Since(began) != 190*time.Millisecond {
			t.Errorf("got %d after %v; want 200 after the 90ms that are left of the first, and 100ms", code, time.Since(began))
		}
	})
}

func TestClockIsOffByWhatIsSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, offset := range []time.Duration{time.Hour, -90 * time.Minute} {
			set(t, fmt.Sprintf(`{"clock":%q}`, offset))
			if got := fault.Now().Sub(time.Now()); got != offset {
				t.Errorf("Now() is off by %v; want %v", got, offset)
			}
		}
		set(t, `{}`)
		if got := fault.Now().Sub(time.Now()); got != 0 {
			t.Errorf("Now() is off by %v after it healed", got)
		}
	})
}

func TestRequestsThatAreNotMeantAreServed(t *testing.T) {
	for _, c := range []struct {
		setting, method, key string
		want                 int
	}{
		{`{"status":500,"method":"POST"}`, http.MethodPost, "k", 500},
		{`{"status":500,"method":"POST"}`, http.MethodGet, "", 200},
		{`{"status":500,"unkeyed":true}`, http.MethodGet, "", 500},
		{`{"status":500,"unkeyed":true}`, http.MethodPost, "k", 200},
		{`{"status":500,"method":"POST","unkeyed":true}`, http.MethodPost, "", 500},
		{`{"status":500,"method":"POST","unkeyed":true}`, http.MethodPost, "k", 200},
		{`{"status":500,"method":"POST","unkeyed":true}`, http.MethodGet, "", 200},
	} {
		set(t, c.setting)
		r := httptest.NewRequest(c.method, "/orders/1", nil)
		if c.key != "" {
			r.Header.Set("Idempotency-Key", c.key)
		}
		w := httptest.NewRecorder()
		fault.Traffic(hello).ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %s with the key %q is answered %d; want %d", c.setting, c.method, c.key, w.Code, c.want)
		}
	}
}

func TestRenewedConnectionsServeOneRequestEach(t *testing.T) {
	s := httptest.NewServer(fault.Traffic(hello))
	defer s.Close()
	connections := func() int {
		seen := map[string]bool{}
		for range 3 {
			trace := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { seen[c.Conn.LocalAddr().String()] = true }}
			r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, s.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := s.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return len(seen)
	}
	if n := connections(); n != 1 {
		t.Errorf("3 requests took %d connections; want 1", n)
	}
	set(t, `{"renew":true}`)
	if n := connections(); n < 3 {
		t.Errorf("3 requests took %d connections; want one each", n)
	}
}

func TestExecutionsAreCountedByRequestUntilTheSettingIsReplaced(t *testing.T) {
	counts := func() (int, string) {
		w := httptest.NewRecorder()
		fault.Admin(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/faults/executions", nil))
		return w.Code, w.Body.String()
	}
	send := func(id string) {
		r := httptest.NewRequest(http.MethodGet, "/orders/1", nil)
		r.Header.Set("X-Request-Id", id)
		fault.Traffic(hello).ServeHTTP(httptest.NewRecorder(), r)
	}
	if code, _ := counts(); code != http.StatusConflict {
		t.Errorf("got %d while nothing is counted; want 409", code)
	}
	set(t, `{"count":true,"status":500}`) // what fails was begun too
	for _, id := range []string{"a", "b", "a", "a"} {
		send(id)
	}
	if code, body := counts(); code != 200 || body != `{"a":3,"b":1}`+"\n" {
		t.Errorf("got %d %q; want a three times and b once", code, body)
	}
	set(t, `{"count":true}`)
	send("c")
	if code, body := counts(); code != 200 || body != `{"c":1}`+"\n" {
		t.Errorf("got %d %q after another setting; want c alone", code, body)
	}
	for n := range 1 << 17 {
		send(strconv.Itoa(n))
	}
	if code, body := counts(); code != http.StatusInsufficientStorage {
		t.Errorf("got %d %.100q for more requests than are counted; want 507", code, body)
	}
}

// Through a whole server, whose limits on time a stream outlives.
func TestStreamStaysOpenWhateverIsSetUntilItsClientLeaves(t *testing.T) {
	set(t, `{"stream":"/orders/stream"}`)
	ended := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fault.Traffic(hello).ServeHTTP(w, r)
		if r.URL.Path == "/orders/stream" {
			close(ended)
		}
	}))
	s.Config.ReadTimeout, s.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	s.Start()
	defer s.Close()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/orders/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	set(t, `{"status":500}`)
	select {
	case <-ended:
		t.Fatal("the stream has ended; want it open for as long as its client stays")
	case <-time.After(200 * time.Millisecond):
	}
	leave()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream outlives its client")
	}
}

func TestWrongSettingIsNamedAndChangesNothing(t *testing.T) {
	set(t, `{"status":503}`)
	for _, tc := range []struct{ body, want string }{
		{`{"stat":500}`, `unknown field \"stat\"`},
		{`{"status":"500"}`, "the field status is a string"},
		{`{"status":200}`, "the field status is 200; want 400 to 599"},
		{`{"status":600}`, "the field status is 600"},
		{`{"delay":300}`, "the field delay is a number"},
		{`{"delay":"300"}`, `the field delay is \"300\"; want a time`},
		{`{"delay":"-1s"}`, "the field delay"},
		{`{"delay":"2h"}`, "the field delay"},
		{`{"slots":-1}`, "the field slots is -1"},
		{`{"slots":1.5}`, "the field slots"},
		{`{"slots":70000}`, "the field slots is 70000"},
		{`{"slots":4,"hold":"x"}`, "the field hold"},
		{`{"hold":"20ms"}`, "without slots"},
		{`{"clock":"tomorrow"}`, "the field clock"},
		{`{"crash":7}`, "the field crash"},
		{`{"method":"post","status":500}`, "the field method is \\\"post\\\""},
		{`{"method":"POST"}`, "want status, delay or slots"},
		{`{"unkeyed":true,"renew":true}`, "want status, delay or slots"},
		{`{"stream":"orders"}`, "the field stream"},
		{`{} {}`, "goes on after"},
		{`[]`, "no setting of faults"},
		{``, "no setting of faults"},
	} {
		if code, said := ask(t, http.MethodPut, tc.body); code != 400 || !strings.Contains(said, tc.want) {
			t.Errorf("PUT %s: %d %s; want 400 with %s", tc.body, code, said, tc.want)
		}
	}
	if code, said := ask(t, http.MethodPut, `{"crash":"`+strings.Repeat("x", 5000)+`"}`); code != 413 {
		t.Errorf("PUT of 5 kB: %d %s; want 413", code, said)
	}
	if code, _ := ask(t, http.MethodPost, "{}"); code != 405 {
		t.Errorf("POST: %d; want 405", code)
	}
	if code, _ := get(t.Context()); code != 503 {
		t.Errorf("got %d; want the 503 that was set before", code)
	}
}

func TestOtherPathsOfTheAdminPortAreServed(t *testing.T) {
	w := httptest.NewRecorder()
	fault.Admin(hello).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if w.Body.String() != "hello" {
		t.Errorf("got %d %q; want hello", w.Code, w.Body)
	}
}

// The test runs itself once more, as the process that dies.
func TestCrashKillsAtItsPointAndAtNoOther(t *testing.T) {
	const self = "ROLLCALL_TEST_CRASH"
	if os.Getenv(self) != "" {
		set(t, `{"crash":"order.committed"}`)
		defer fmt.Println("deferred")
		fault.Point("order.begun")
		fmt.Println("passed")
		fault.Point("order.committed")
		fmt.Println("alive")
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), self+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if err == nil || err.Error() != "signal: killed" {
		t.Errorf("the process ended with %v; want signal: killed", err)
	}
	if string(said) != "passed\n" {
		t.Errorf("it said %q; want that it passed the other point, and nothing more", said)
	}
}
