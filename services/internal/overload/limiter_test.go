package overload_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

// hanging is a handler whose requests wait until they are let go.
type hanging struct{ inside, release chan struct{} }

func hang() *hanging {
	return &hanging{inside: make(chan struct{}, 100), release: make(chan struct{})}
}

func (h *hanging) ServeHTTP(http.ResponseWriter, *http.Request) {
	h.inside <- struct{}{}
	<-h.release
}

func serve(h http.Handler, method string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, "/orders/1", nil))
	return w
}

func TestWhatIsShedIsToldToGoElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hang()
		var shed []overload.Kind
		_, limited := limited(t, overload.Config{Start: 1, Shed: func(k overload.Kind) { shed = append(shed, k) }}, h)
		var first sync.WaitGroup
		first.Go(func() { serve(limited, http.MethodPost) })
		<-h.inside
		w := serve(limited, http.MethodPost)
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != 503 || w.Code != 503 || p.Detail == "" {
			t.Errorf("got %d %s, %v; want a 503 problem", w.Code, w.Body, err)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/problem+json", "Retry-After": "1", "Rollcall-Reason": "overload", "Cache-Control": "no-store",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s is %q; want %q", name, got, want)
			}
		}
		if len(h.inside) > 0 {
			t.Error("what was shed reached the handler")
		}
		close(h.release)
		first.Wait()
		if len(shed) != 1 || shed[0] != overload.Write {
			t.Errorf("told of %v; want one write", shed)
		}
	})
}

func TestReadsAndWritesHaveALimitEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hang()
		l, limited := limited(t, overload.Config{Start: 1}, h)
		var held sync.WaitGroup
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			held.Go(func() { serve(limited, method) })
			<-h.inside
		}
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE", "BREW"} {
			if w := serve(limited, method); w.Code != 503 {
				t.Errorf("%s is answered %d; want 503", method, w.Code)
			}
		}
		for _, kind := range []overload.Kind{overload.Read, overload.Write} {
			if limit, atWork := l.Now(kind); limit != 1 || atWork != 1 {
				t.Errorf("%s: %d of %d at work; want 1 of 1", kind, atWork, limit)
			}
		}
		close(h.release)
		held.Wait()
		for _, kind := range []overload.Kind{overload.Read, overload.Write} {
			if _, atWork := l.Now(kind); atWork != 0 {
				t.Errorf("%s: %d at work in the end; want none", kind, atWork)
			}
		}
	})
}

func TestPanicGivesThePlaceUp(t *testing.T) {
	l, h := limited(t, overload.Config{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic went no further")
			}
		}()
		serve(h, http.MethodGet)
	}()
	if _, atWork := l.Now(overload.Read); atWork != 0 {
		t.Errorf("%d at work after the panic; want none", atWork)
	}
}

func TestRouteIsKnownOutsideOfTheLimiter(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{user}", func(http.ResponseWriter, *http.Request) {})
	_, h := limited(t, overload.Config{}, mux)
	r := httptest.NewRequest(http.MethodGet, "/orders/1", nil)
	h.ServeHTTP(httptest.NewRecorder(), r)
	if r.Pattern != "GET /orders/{user}" {
		t.Errorf("the pattern is %q; want the route's", r.Pattern)
	}
}

func TestWrongConfigIsNamed(t *testing.T) {
	for want, cfg := range map[string]overload.Config{
		"Start is -1":      {Start: -1},
		"Least is -2":      {Least: -2},
		"Most is -3":       {Most: -3},
		"Remeasure is -1s": {Remeasure: -time.Second},
		"MaxBody is -4":    {MaxBody: -4},
	} {
		if _, err := overload.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) = %v; want an error with %q", cfg, err, want)
		}
	}
}

func TestBeginAndEndOfAnOverloadAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		_, h := limited(t, overload.Config{Changed: func(kind overload.Kind, over bool) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(kind, over))
		}}, slots(4, held))
		load{handler: h, perSecond: 3 * capacity, lasts: 5 * time.Second}.run()
		load{handler: h, perSecond: capacity / 4, lasts: 5 * time.Second}.run()
		if got := strings.Join(told, ", "); got != "readtrue, readfalse" {
			t.Errorf("told %s; want that reads are too many, and then that they are not", got)
		}
	})
}

// peer is a service that answers after a time.
type peer time.Duration

func (p peer) RoundTrip(r *http.Request) (*http.Response, error) {
	timer := time.NewTimer(time.Duration(p))
	defer timer.Stop()
	select {
	case <-timer.C:
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// asks is a handler that asks a peer.
func asks(transport http.RoundTripper) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user/users/1", nil)
		if err != nil {
			panic(err)
		}
		resp, err := transport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = io.Copy(w, resp.Body)
		resp.Body.Close()
	})
}

func TestSlowPeerIsNoOverload(t *testing.T) {
	for _, tc := range []struct {
		name      string
		transport http.RoundTripper
		sheds     bool
	}{
		{"outside", overload.Outside(peer(800 * time.Millisecond)), false},
		{"inside, to show that this test can fail", peer(800 * time.Millisecond), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, h := limited(t, overload.Config{}, asks(tc.transport))
				// 80 wait at once.
				got := load{handler: h, perSecond: 100, lasts: time.Minute}.run()
				if (got.shed() > 0) != tc.sheds {
					t.Errorf("%v; want some shed: %v", got, tc.sheds)
				}
				if _, atWork := l.Now(overload.Read); atWork != 0 {
					t.Errorf("%d at work in the end; want none", atWork)
				}
			})
		})
	}
}

func TestTimeAtAPeerDoesNotHideOurOwnOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		work, ask := slots(4, held), asks(overload.Outside(peer(50*time.Millisecond)))
		_, h := limited(t, overload.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ask.ServeHTTP(w, r)
			work.ServeHTTP(w, r)
		}))
		got := load{handler: h, perSecond: 3 * capacity, lasts: overloop}.run()
		served := got.served()
		// What waits at the peer comes back whatever the limit, in waves that
		// the limit has no room for; so this is worse than without a peer.
		if len(served) < int(capacity*overloop.Seconds()*.7) || served.p99() >= 5*(held+50*time.Millisecond) {
			t.Errorf("%v; want 70%% of %v, and p99 below 5 × the unloaded 70ms", got, capacity*overloop.Seconds())
		}
	})
}

func TestCallsAtTheSameTimeAndLateOnesKeepTheCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := overload.Outside(peer(time.Second))
		var late sync.WaitGroup
		l, h := limited(t, overload.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var two sync.WaitGroup
			for range 2 {
				two.Go(func() { asks(transport).ServeHTTP(httptest.NewRecorder(), r) })
			}
			two.Wait()
			late.Go(func() { asks(transport).ServeHTTP(httptest.NewRecorder(), r) }) // outlives the request
			time.Sleep(100 * time.Millisecond)
		}))
		atWork := func(want int) {
			t.Helper()
			synctest.Wait()
			if _, got := l.Now(overload.Read); got != want {
				t.Errorf("%d at work; want %d", got, want)
			}
		}
		var one sync.WaitGroup
		one.Go(func() { serve(h, http.MethodGet) })
		atWork(0) // both calls are under way
		one.Wait()
		atWork(0)
		late.Wait()
		atWork(0)
	})
}

func TestAnyNumberOfGoroutinesMayCome(t *testing.T) {
	l, h := limited(t, overload.Config{Start: 4}, asks(overload.Outside(peer(time.Millisecond))))
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 50 {
				serve(h, http.MethodGet)
				serve(h, http.MethodPost)
				l.Now(overload.Write)
			}
		})
	}
	all.Wait()
	for _, kind := range []overload.Kind{overload.Read, overload.Write} {
		if _, atWork := l.Now(kind); atWork != 0 {
			t.Errorf("%s: %d at work in the end; want none", kind, atWork)
		}
	}
}

func BenchmarkHandler(b *testing.B) {
	l, err := overload.New(overload.Config{})
	if err != nil {
		b.Fatal(err)
	}
	h := l.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(nil, r)
	}
}

func ExampleLimiter() {
	limits, err := overload.New(overload.Config{Start: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	var h http.Handler
	h = limits.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/again" {
			return
		}
		second := httptest.NewRecorder()
		h.ServeHTTP(second, httptest.NewRequest(http.MethodGet, "/again", nil)) // while the first is at work
		fmt.Fprint(w, second.Code, " ", second.Header().Get("Rollcall-Reason"))
	}))
	first := httptest.NewRecorder()
	h.ServeHTTP(first, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(first.Code, first.Body)
	// Output: 200 503 overload
}
