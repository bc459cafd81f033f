//go:build faults

package fault_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
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
