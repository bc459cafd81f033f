package httpmesh_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// shares sends GETs one after the other for a while, 100 a second, and returns
// how many each instance answered well, and how many failed.
func shares(t *testing.T, client *http.Client, d time.Duration) (got map[string]int, failed int) {
	t.Helper()
	got = map[string]int{}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		resp, err := client.Get("http://order/")
		if err != nil {
			failed++
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			failed++
			continue
		}
		got[string(body)]++
	}
	return got, failed
}

func TestInstanceThatAnswers500IsEjectedAndBackInUseAfterItHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var ill atomic.Bool
		bad := f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
			if ill.Load() {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			_, _ = io.WriteString(w, "order-a")
		})
		f.add("order", "order-b", nil)
		f.add("order", "order-c", nil)
		transport := f.transport(httpmesh.Config{Policy: balancer.PeakEWMA{}})
		client := &http.Client{Transport: transport}

		if got, failed := shares(t, client, 3*time.Second); failed != 0 || got["order-a"] < 80 || got["order-a"] > 120 {
			t.Fatalf("all well: got %v, %d failed; want about 100 each", got, failed)
		}
		ill.Store(true)
		if _, failed := shares(t, client, 2*time.Second); failed > 5 {
			t.Errorf("while it is ill: %d failed; want the 5 that eject it at most", failed)
		}
		if c := transport.Balancer("order").Counts(time.Now()); c.Ejected != 1 {
			t.Errorf("got %+v; want one ejected", c)
		}
		calls := bad.calls.Load()
		if _, failed := shares(t, client, 28*time.Second); failed > 5 || bad.calls.Load()-calls > 5 {
			t.Errorf("after that: %d failed, %d calls to it; want a trial after 2, 6, 14 and 30 seconds", failed, bad.calls.Load()-calls)
		}
		ill.Store(false)
		if _, failed := shares(t, client, 31*time.Second); failed != 0 {
			t.Errorf("after it healed: %d failed; want none", failed)
		}
		if got, failed := shares(t, client, 3*time.Second); failed != 0 || got["order-a"] < 80 || got["order-a"] > 120 {
			t.Errorf("healed: got %v, %d failed; want about 100 each again", got, failed)
		}
	})
}

func TestEveryInstanceFailingLeavesAHalfInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for _, id := range []string{"order-a", "order-b", "order-c", "order-d"} {
			f.add("order", id, status(http.StatusInternalServerError))
		}
		transport := f.transport(httpmesh.Config{Policy: balancer.PeakEWMA{}})
		for range 1000 {
			a := send(t, transport, http.MethodGet, "http://order/", nil)
			if a.status != http.StatusInternalServerError || a.report.Counts.Ejected > 2 {
				t.Fatalf("got %d, %v with %+v; want each 500 handed on, and two ejected at most", a.status, a.err, a.report.Counts)
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestRequestThatTheLastOneInUseFailedGoesToAnEjectedOneAtOnce(t *testing.T) {
	for code, word := range map[int]string{http.StatusBadGateway: "gateway", http.StatusServiceUnavailable: "gateway", http.StatusTooManyRequests: "busy"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			a := f.add("order", "order-a", nil)
			f.add("order", "order-b", status(code))
			transport := f.transport(httpmesh.Config{})
			a.mode.Store("refuse")
			wantWords(t, send(t, transport, post, "http://order/", nil), "order-a unreachable, order-b "+word+", "+word) // which ejects order-a
			a.mode.Store("serve")
			start := time.Now()
			got := send(t, transport, http.MethodGet, "http://order/", nil)
			wantWords(t, got, "order-b "+word+", order-a ok, ok")
			if took := time.Since(start); got.body != "order-a" || took != 0 {
				t.Errorf("%d: got %q after %v; want order-a at once", code, got.body, took)
			}
		})
	}
}

func TestRequestThatEachReadyOneHasFailedIsServedByACriticalOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		f.add("order", "order-b", nil, func(i *catalog.Instance) { i.State = catalog.StateCritical })
		transport := f.transport(httpmesh.Config{})
		start := time.Now()
		for range 3 {
			wantWords(t, send(t, transport, post, "http://order/", strings.NewReader("body")), "order-a unreachable, order-b ok, ok")
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v; want no pause", took)
		}
	})
}

func TestOnlyReadyOneThatShedsDoesNotMoveItsQueueToTheCriticalOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		f.add("order", "order-b", nil, func(i *catalog.Instance) { i.State = catalog.StateCritical })
		a := send(t, f.transport(httpmesh.Config{}), http.MethodGet, "http://order/", nil)
		wantWords(t, a, "order-a overload, overload")
	})
}

// The only one in use may be slow, and who was ejected may be dead.
func TestNoTryRunsBesideTheLastOneInUseAtAnEjectedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("swallow")
		f.add("order", "order-b", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				nap(r, 3*time.Second)
			}
			_, _ = io.WriteString(w, "order-b")
		})
		transport := f.transport(httpmesh.Config{})
		send(t, transport, http.MethodGet, "http://order/", nil) // which ejects order-a, when its dial fails
		time.Sleep(3 * time.Second)
		wantWords(t, send(t, transport, http.MethodGet, "http://order/slow", nil), "order-b ok, ok")
	})
}

// Or all who come within the DialTimeout would find a dead instance for
// themselves.
func TestOneDialAtATimeFindsOutWhetherAnInstanceIsThere(t *testing.T) {
	for name, policy := range map[string]balancer.Policy{"PeakEWMA": balancer.PeakEWMA{}, "P2C": balancer.P2C{}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				dead := f.add("order", "order-a", nil)
				dead.mode.Store("swallow")
				for _, id := range []string{"order-b", "order-c"} {
					f.add("order", id, func(_ http.ResponseWriter, r *http.Request) { nap(r, 100*time.Millisecond) })
				}
				transport := f.transport(httpmesh.Config{Policy: policy})
				var callers sync.WaitGroup
				for range 300 { // within the 300 ms that a dial may take
					callers.Go(func() {
						if a := send(t, transport, http.MethodGet, "http://order/", nil); a.status != http.StatusOK {
							t.Errorf("got %d, %v; want 200", a.status, a.err)
						}
					})
					synctest.Wait()
					time.Sleep(time.Millisecond)
				}
				callers.Wait()
				if got := dead.dials.Load(); got != 1 {
					t.Errorf("got %d dials to the dead one; want 1", got)
				}
			})
		})
	}
}

func TestShedRequestGoesToAnotherInstanceAndEjectsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		shed := f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{})
		start := time.Now()
		for range 20 {
			a := send(t, transport, post, "http://order/", strings.NewReader("body"))
			time.Sleep(200 * time.Millisecond) // it is suspect for so long at most
			wantWords(t, a, "order-a overload, order-b ok, ok")
			if a.report.Counts.Ejected != 0 {
				t.Fatalf("got %+v; want nobody ejected", a.report.Counts)
			}
		}
		if shed.calls.Load() != 20 || time.Since(start) != 20*200*time.Millisecond {
			t.Errorf("%d were shed, in %v; want 20 and no pause of ours", shed.calls.Load(), time.Since(start))
		}
	})
}

func TestAnswersThatSayNothingOfTheInstanceNeitherEndARowOfFailuresNorBeginOne(t *testing.T) {
	downstream := func(w http.ResponseWriter) {
		w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonDownstream)
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for name, c := range map[string]struct {
		answer func(n int64, w http.ResponseWriter)
		want   int
	}{
		"500, and in between 503 for another service": {func(n int64, w http.ResponseWriter) {
			if n%2 == 0 {
				downstream(w)
			} else {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}, 1},
		"500, and in between 429": {func(n int64, w http.ResponseWriter) {
			w.WriteHeader([]int{http.StatusTooManyRequests, http.StatusInternalServerError}[n%2])
		}, 1},
		"500, and in between 200": {func(n int64, w http.ResponseWriter) {
			w.WriteHeader([]int{http.StatusOK, http.StatusInternalServerError}[n%2])
		}, 0},
		"503 for another service": {func(_ int64, w http.ResponseWriter) { downstream(w) }, 0},
		"429":                     {func(_ int64, w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			var n atomic.Int64
			f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) { c.answer(n.Add(1), w) })
			f.add("order", "order-b", nil)
			transport := f.transport(httpmesh.Config{MaxRetries: -1})
			for range 12 {
				send(t, transport, http.MethodGet, "http://order/", nil)
				if transport.Balancer("order").Counts(time.Now()).Ejected == 0 {
					time.Sleep(4 * time.Second) // it is suspect for so long at most
				}
			}
			if got := transport.Balancer("order").Counts(time.Now()).Ejected; got != c.want {
				t.Errorf("%s: %d ejected after 12; want %d", name, got, c.want)
			}
		})
	}
}

// A quick refusal is not a quick answer.
func TestInstanceThatAnswers429AtOnceGetsLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		refuses := f.add("order", "order-a", status(http.StatusTooManyRequests))
		serves := f.add("order", "order-b", func(_ http.ResponseWriter, r *http.Request) { nap(r, 5*time.Millisecond) })
		transport := f.transport(httpmesh.Config{Policy: balancer.PeakEWMA{}, MaxRetries: -1})
		var callers sync.WaitGroup
		for range 2000 {
			callers.Go(func() { send(t, transport, http.MethodGet, "http://order/", nil) })
			time.Sleep(5 * time.Millisecond)
		}
		callers.Wait()
		if got := refuses.calls.Load(); got > serves.calls.Load()/5 {
			t.Errorf("it got %d of 2000; want a sixth at most", got)
		}
	})
}

func TestRetryAfterOfTheOnlyInstanceIsWaitedForWithinTheDeadline(t *testing.T) {
	for said, want := range map[string]string{
		"1":  "order-a gateway, order-a ok, ok", // and the second is a 200
		"2":  "order-a gateway, gateway",        // longer than we wait
		"0":  "order-a gateway, gateway",
		"":   "order-a gateway, gateway",
		"??": "order-a gateway, gateway",
	} {
		for _, deadline := range []time.Duration{5 * time.Second, 900 * time.Millisecond} {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				var ready time.Time
				f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
					if time.Now().Before(ready) {
						w.Header().Set("Retry-After", said)
						w.WriteHeader(http.StatusServiceUnavailable)
					}
				})
				ready = time.Now().Add(time.Second)
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				start, want, code := time.Now(), want, http.StatusServiceUnavailable
				if said == "1" && deadline > time.Second {
					code = http.StatusOK
				} else {
					want = "order-a gateway, gateway"
				}
				a := sendWith(ctx, t, f.transport(httpmesh.Config{}), http.MethodGet, "http://order/", nil)
				wantWords(t, a, want)
				took := time.Since(start)
				if waited := took >= time.Second && took <= 1100*time.Millisecond; a.status != code || waited != (code == http.StatusOK) || !waited && took != 0 {
					t.Errorf("Retry-After %q, %v to go: got %d after %v; want %d", said, deadline, a.status, took, code)
				}
			})
		}
	}
}

func TestPostWithAKeyIsSentAgainWholeWithItsKey(t *testing.T) {
	for name, fail := range map[string]http.HandlerFunc{
		"the connection breaks": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		},
		"a 503": status(http.StatusServiceUnavailable),
		"no answer in time": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.add("order", "order-a", fail)
			f.add("order", "order-b", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, r.Header.Get("Idempotency-Key")+" ")
				echo(w, r)
			})
			var report httpmesh.Report
			r, err := http.NewRequestWithContext(httpmesh.WithReport(t.Context(), &report), http.MethodPost, "http://order/", strings.NewReader("two laptops"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Idempotency-Key", "key-1")
			resp, err := f.transport(httpmesh.Config{}).RoundTrip(r)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if string(body) != "key-1 two laptops" || err != nil || len(report.Tries) != 2 {
				t.Errorf("%s: got %q, %v in %d tries; want the key and the body, in two", name, body, err, len(report.Tries))
			}
		})
	}
}

func TestInstanceWhoseBodiesBreakOffIsEjectedThoughItsHeadersAreWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			abort(w, r)
		})
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{Policy: balancer.P2C{}})
		failed := 0
		for range 200 {
			if a := send(t, transport, http.MethodGet, "http://order/", nil); a.err != nil {
				failed++
			}
			time.Sleep(10 * time.Millisecond)
		}
		if c := transport.Balancer("order").Counts(time.Now()); failed > 5 || c.Ejected != 1 {
			t.Errorf("%d failed, %+v; want the 5 that eject it at most", failed, c)
		}
	})
}
