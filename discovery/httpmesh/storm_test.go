package httpmesh_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// asked is how many requests reach the instances for each that callers make,
// 1,000 a second for 20 s, while every instance fails in the same way.
func asked(t *testing.T, cfg httpmesh.Config, fail http.HandlerFunc) (ratio float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var reached atomic.Int64
		for _, id := range []string{"order-a", "order-b", "order-c"} {
			f.add("order", id, func(w http.ResponseWriter, r *http.Request) {
				reached.Add(1)
				fail(w, r)
			})
		}
		transport := f.transport(cfg)
		const rate, seconds = 1000, 20
		var callers sync.WaitGroup
		for range rate * seconds {
			time.Sleep(time.Second / rate)
			callers.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://order/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				if resp, err := transport.RoundTrip(r); err == nil {
					_ = resp.Body.Close()
				}
			})
		}
		callers.Wait()
		ratio = float64(reached.Load()) / (rate * seconds)
	})
	return ratio
}

func TestRetryStormIsImpossibleWithEveryInstanceFailing(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"500": status(500),
		"503": status(503),
		"502": status(502),
		"429": status(429),
		"503, come again in a second": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"a connection that breaks": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		if got := asked(t, httpmesh.Config{}, fail); got < 1 || got >= 1.2 {
			t.Errorf("%s: %.2f requests reached the instances for each that was made; want 1 to 1.2", name, got)
		}
	}
	// And it is the budget that does it.
	if got := asked(t, httpmesh.Config{Budget: httpmesh.Budget{Ratio: 10}}, status(503)); got < 2 {
		t.Errorf("without a budget %.2f reached the instances for each; want 2 and more, or this test can't fail", got)
	}
}

// A dial costs an instance nothing but a packet, so it is free; still there is
// an end to them.
func TestEveryInstanceRefusingItsDialsCostsFiveDialsARequestAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var nodes []*node
		for _, id := range []string{"order-a", "order-b", "order-c"} {
			n := f.add("order", id, nil)
			n.mode.Store("refuse")
			nodes = append(nodes, n)
		}
		transport := f.transport(httpmesh.Config{})
		const requests = 1000
		var callers sync.WaitGroup
		for range requests {
			time.Sleep(time.Millisecond)
			callers.Go(func() { send(t, transport, http.MethodGet, "http://order/", nil) })
		}
		callers.Wait()
		dials := int64(0)
		for _, n := range nodes {
			dials += n.dials.Load()
		}
		if got := float64(dials) / requests; got < 1 || got > 5 {
			t.Errorf("got %.1f dials for each request; want 1 to 5", got)
		} else {
			t.Logf("%.1f dials for each request", got)
		}
	})
}

// Two hops: order asks user, which always fails. Order has tried, and says so;
// who asks order does not try it again.
func TestTwoHopsDoNotMultiplyTheirTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var users, orders atomic.Int64
		f.add("user", "user-a", func(w http.ResponseWriter, _ *http.Request) {
			users.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		f.add("user", "user-b", func(w http.ResponseWriter, _ *http.Request) {
			users.Add(1)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		transport := f.transport(httpmesh.Config{})
		for _, id := range []string{"order-a", "order-b"} {
			f.add("order", id, func(w http.ResponseWriter, r *http.Request) {
				orders.Add(1)
				out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user/", nil)
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := (&http.Client{Transport: transport}).Do(out)
				if err == nil {
					_ = resp.Body.Close()
				}
				w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonDownstream)
				w.WriteHeader(http.StatusServiceUnavailable)
			})
		}
		a := send(t, transport, http.MethodGet, "http://order/", nil)
		if a.status != http.StatusServiceUnavailable || orders.Load() != 1 || users.Load() != 2 {
			t.Errorf("got %d after %d tries at order and %d at user; want 503 after 1 and 2", a.status, orders.Load(), users.Load())
		}
	})
}

func TestDeadlineShrinksFromHopToHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		transport := f.transport(httpmesh.Config{TryTimeout: -1})
		said := make(chan string, 2)
		f.add("user", "user-a", func(_ http.ResponseWriter, r *http.Request) { said <- r.Header.Get(httpmesh.TimeoutHeader) })
		f.add("order", "order-a", httpmesh.Deadline(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			said <- r.Header.Get(httpmesh.TimeoutHeader)
			time.Sleep(400 * time.Millisecond)
			out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user/", nil)
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := (&http.Client{Transport: transport}).Do(out)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		})).ServeHTTP)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if a := sendWith(ctx, t, transport, http.MethodGet, "http://order/", nil); a.err != nil || a.status != http.StatusOK {
			t.Fatalf("got %d, %v; want 200", a.status, a.err)
		}
		if first, second := <-said, <-said; first != "1000" || second != "600" {
			t.Errorf("the first hop was told %q ms, the second %q; want 1000 and 600", first, second)
		}
	})
}

func TestWorkStopsWhenItsCallersTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		stopped := make(chan time.Duration, 1)
		f.add("order", "order-a", httpmesh.Deadline(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			start := time.Now()
			<-r.Context().Done()
			stopped <- time.Since(start)
		})).ServeHTTP)
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		sendWith(ctx, t, f.transport(httpmesh.Config{}), http.MethodGet, "http://order/", nil)
		if took := <-stopped; took > 250*time.Millisecond {
			t.Errorf("the handler worked on for %v; want 250ms", took)
		}
	})
}

func TestMalformedDeadlineIsA400ThatNamesTheHeader(t *testing.T) {
	h := httpmesh.Deadline(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") }))
	for _, said := range []string{"", "0", "-1", "soon", "1.5", "86400001", "99999999999999999999", " 5"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set(httpmesh.TimeoutHeader, said)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), httpmesh.TimeoutHeader) {
			t.Errorf("%q: got %d %s; want a 400 that names the header", said, w.Code, w.Body)
		}
	}
}

func TestCallerInAHurryIsNotTheInstancesFailure(t *testing.T) {
	for patience, ejected := range map[time.Duration]int{50 * time.Millisecond: 0, 900 * time.Millisecond: 0, 1100 * time.Millisecond: 1} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.add("order", "order-a", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			f.add("order", "order-b", nil)
			transport := f.transport(httpmesh.Config{TryTimeout: -1})
			ejections := 0
			for range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				sendWith(ctx, t, transport, http.MethodGet, "http://order/", nil)
				cancel()
				if ejections = transport.Balancer("order").Counts(time.Now()).Ejected; ejections > 0 {
					break
				}
				time.Sleep(4 * time.Second) // it is suspect for so long at most
			}
			if ejections != ejected {
				t.Errorf("callers who waited for %v: %d ejected; want %d", patience, ejections, ejected)
			}
		})
	}
}
