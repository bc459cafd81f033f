package health_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/observability/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fine(context.Context) error { return nil }

func broken(err error) health.Check { return func(context.Context) error { return err } }

var errDisk = errors.New("disk full")

func TestOnlyWhatDecidesTakesReadinessAway(t *testing.T) {
	for name, tc := range map[string]struct {
		store, consul health.Check
		want          error
	}{
		"all fine":            {fine, fine, nil},
		"a detail is broken":  {fine, broken(errDisk), nil},
		"the store is broken": {broken(errDisk), fine, errDisk},
	} {
		t.Run(name, func(t *testing.T) {
			checks := health.New(health.Config{})
			defer checks.Close()
			checks.Add("store", health.Required, tc.store)
			checks.Add("consul", health.Informational, tc.consul)
			if got := checks.Ready(); !errors.Is(got, tc.want) || (tc.want == nil) != (got == nil) {
				t.Errorf("Ready() = %v; want %v", got, tc.want)
			}
		})
	}
}

func TestReadyNamesEveryReason(t *testing.T) {
	checks := health.New(health.Config{})
	defer checks.Close()
	checks.Add("store", health.Required, broken(errDisk))
	checks.Add("listener", health.Required, broken(errors.New("not open")))
	want := "not ready: store: disk full; listener: not open"
	if got := checks.Ready(); got == nil || got.Error() != want {
		t.Errorf("Ready() = %v; want %s", got, want)
	}
}

func TestDrainingIsNotReadyAndStillLive(t *testing.T) {
	checks := health.New(health.Config{})
	defer checks.Close()
	checks.Add("store", health.Required, fine)
	checks.SetDraining()
	if got := checks.Ready(); !errors.Is(got, health.ErrDraining) || !strings.HasPrefix(got.Error(), "draining") {
		t.Errorf("Ready() = %v; want an error that begins with draining", got)
	}
	if code, page := get(t, checks.ReadyHandler(), "/readyz"); code != 503 || page["status"] != "draining" {
		t.Errorf("/readyz = %d %v; want 503 draining", code, page)
	}
	if code, page := get(t, checks.LiveHandler(), "/livez"); code != 200 || page["status"] != "live" {
		t.Errorf("/livez = %d %v; want 200 live", code, page)
	}
}

func TestReadyPageTellsEachDependencyAndWhy(t *testing.T) {
	checks := health.New(health.Config{})
	defer checks.Close()
	checks.Add("store", health.Required, broken(errDisk))
	checks.Add("consul", health.Informational, fine)
	code, page := get(t, checks.ReadyHandler(), "/readyz")
	want := map[string]any{
		"status": "not ready",
		"why":    "not ready: store: disk full",
		"dependencies": []any{
			map[string]any{"name": "store", "ok": false, "required": true, "why": "disk full"},
			map[string]any{"name": "consul", "ok": true, "required": false},
		},
	}
	if diff := cmp.Diff(want, page); code != 503 || diff != "" {
		t.Errorf("/readyz = %d; want 503; page (-want +got):\n%s", code, diff)
	}
	_, page = get(t, checks.ReadyHandler(), "/readyz?verbose")
	store := page["dependencies"].([]any)[0].(map[string]any)
	if _, ok := store["checked"].(map[string]any)["took_ms"]; !ok {
		t.Errorf("/readyz?verbose says %v of the store; want when it was checked", store)
	}
}

func TestHungCheckCostsItsLimitAndRunsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := health.New(health.Config{Timeout: time.Second})
		var runs atomic.Int32
		release := make(chan struct{})
		checks.Add("store", health.Required, func(context.Context) error { // as bad as a check can be: deaf to its context
			runs.Add(1)
			<-release
			return nil
		})
		began := time.Now()
		for range 3 {
			if err := checks.Ready(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Ready() = %v; want a deadline exceeded", err)
			}
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("three looks took %v; want their limit of 1s each", took)
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("the hung check was started %d times; want 1", n)
		}
		close(release)
		synctest.Wait()
		if err := checks.Ready(); err != nil {
			t.Errorf("Ready() = %v after the check came back; want nil", err)
		}
		checks.Close()
	})
}

func TestProbesCannotStampede(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := health.New(health.Config{KeepFor: time.Second})
		var runs atomic.Int32
		checks.Add("store", health.Required, func(context.Context) error {
			runs.Add(1)
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		var probes sync.WaitGroup
		for range 100 {
			probes.Go(func() {
				if err := checks.Ready(); err != nil {
					t.Errorf("Ready() = %v; want nil", err)
				}
			})
		}
		probes.Wait()
		if n := runs.Load(); n != 1 {
			t.Errorf("100 probes at once ran the check %d times; want 1", n)
		}
		_ = checks.Ready()
		if n := runs.Load(); n != 1 {
			t.Errorf("a probe right after them ran the check again")
		}
		time.Sleep(time.Second)
		_ = checks.Ready()
		if n := runs.Load(); n != 2 {
			t.Errorf("the check ran %d times after its answer was old; want 2", n)
		}
		checks.Close()
	})
}

func TestOneHungCheckDoesNotHideTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := health.New(health.Config{Timeout: time.Second})
		checks.Add("consul", health.Informational, func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) })
		checks.Add("store", health.Required, broken(errDisk))
		report := checks.Report(t.Context())
		if !errors.Is(report.Err(), errDisk) {
			t.Errorf("report says %v; want the store's error", report.Err())
		}
		checks.Close()
	})
}

func TestChangeOfReadinessThatAnyRunFindsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := health.New(health.Config{})
		defer checks.Close()
		var store, cache, consul atomic.Bool
		for name, on := range map[string]*atomic.Bool{"store": &store, "cache": &cache, "consul": &consul} {
			on.Store(true)
			checks.Add(name, health.Role(name != "consul"), func(context.Context) error {
				if on.Load() {
					return nil
				}
				return errDisk
			})
		}
		var told atomic.Int32
		checks.OnChange(func() {
			told.Add(1)
			_ = checks.Ready() // as a registration does
		})
		look := func(what string, want int32) {
			t.Helper()
			time.Sleep(time.Second)
			checks.Report(t.Context())
			synctest.Wait()
			if got := told.Load(); got != want {
				t.Errorf("%s: %d changes were told; want %d", what, got, want)
			}
		}
		look("ready for the first time", 1)
		look("nothing changed", 1)
		store.Store(false)
		look("the store fails", 2)
		cache.Store(false)
		look("the cache fails too", 2)
		store.Store(true)
		look("the cache still fails", 2)
		cache.Store(true)
		look("all is fine", 3)
		consul.Store(false)
		look("an informational one fails", 3)
		checks.SetDraining()
		look("draining", 3)
	})
}

func TestProberThatGivesUpIsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := health.New(health.Config{Timeout: time.Minute})
		defer checks.Close()
		slow := make(chan struct{})
		checks.Add("store", health.Required, func(context.Context) error { <-slow; return nil })
		changes := 0
		checks.OnChange(func() { changes++ })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := checks.Report(ctx).Err(); err == nil {
			t.Error("the report is fine; want no answer so far")
		}
		close(slow)
		synctest.Wait()
		if changes != 1 {
			t.Errorf("%d changes were told; want the one to ready", changes)
		}
	})
}

func TestPanicInACheckIsItsAnswer(t *testing.T) {
	checks := health.New(health.Config{})
	defer checks.Close()
	checks.Add("store", health.Required, func(context.Context) error { panic("nil map") })
	if err := checks.Ready(); err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Errorf("Ready() = %v; want the panic as the reason", err)
	}
}

func TestCloseEndsAndJoinsARunningCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := health.New(health.Config{Timeout: time.Hour})
		checks.Add("store", health.Required, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		checks.Report(ctx)
		checks.Close()
		checks.Close()
		if err := checks.Ready(); !errors.Is(err, health.ErrClosed) {
			t.Errorf("Ready() = %v after Close; want ErrClosed", err)
		}
	})
}

func get(t *testing.T, h http.Handler, url string) (int, map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))
	page := map[string]any{}
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
		t.Fatalf("%s is no JSON object: %v\n%s", url, err, w.Body)
	}
	return w.Code, page
}
