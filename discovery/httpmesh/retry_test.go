package httpmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

const post = http.MethodPost

func wantWords(t *testing.T, a answer, want string) {
	t.Helper()
	if got := words(a.report); got != want {
		t.Errorf("got %q; want %q (error: %v)", got, want, a.err)
	}
}

func TestPostGoesToAnotherInstanceIntactAfterARefusedDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		f.add("order", "order-b", nil).mode.Store("refuse")
		f.add("order", "order-c", echo)
		body := &stream{text: strings.NewReader("a streamed body")}
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/orders/1", body)
		if a.err != nil || a.body != "a streamed body" {
			t.Errorf("got %q, %v; want the body echoed", a.body, a.err)
		}
		wantWords(t, a, "order-a unreachable, order-b unreachable, order-c ok, ok")
		body.wantClosedOnce(t)
	})
}

func TestDialIntoABlackHoleCostsTheDialTimeoutForEveryMethod(t *testing.T) {
	for _, method := range []string{http.MethodGet, post, http.MethodDelete} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.add("order", "order-a", nil).mode.Store("swallow")
			f.add("order", "order-b", echo)
			start := time.Now()
			a := send(t, f.transport(httpmesh.Config{}), method, "http://order/", &stream{text: strings.NewReader("x")})
			if took := time.Since(start); a.err != nil || took != 300*time.Millisecond {
				t.Errorf("%s: got %v after %v; want an answer after 300ms", method, a.err, took)
			}
			wantWords(t, a, "order-a stalled, order-b ok, ok")
		})
	}
}

func TestThreeTriesAreAllThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for _, id := range []string{"order-a", "order-b", "order-c", "order-d"} {
			f.add("order", id, nil).mode.Store("swallow")
		}
		body := &stream{text: strings.NewReader("x")}
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", body)
		wantWords(t, a, "order-a stalled, order-b stalled, order-c stalled, stalled")
		want := "order: no instance answered (4 known, 4 ready, 3 tried): try order-c (10.0.0.3:8080): "
		var e *httpmesh.Error
		if !errors.As(a.err, &e) || !strings.HasPrefix(e.Error(), want) {
			t.Errorf("got %v; want %s", a.err, want)
		}
		body.wantClosedOnce(t)
	})
}

// A catalog may be full of addresses at which nobody listens: to find that out
// costs nobody anything.
func TestDialsThatAreRefusedDoNotCountWhileAnotherInstanceIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for n := range 8 {
			f.add("order", fmt.Sprintf("order-%d", n), nil).mode.Store("refuse")
		}
		f.add("order", "order-z", echo)
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", &stream{text: strings.NewReader("x")})
		if a.err != nil || len(a.report.Tries) != 9 {
			t.Errorf("got %v after %d tries; want the ninth to be served", a.err, len(a.report.Tries))
		}
	})
}

func TestThoseWhoRefusedAreNotTriedAgainBeyondTheThreeTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for _, id := range []string{"order-a", "order-b", "order-c", "order-d"} {
			f.add("order", id, nil).mode.Store("refuse")
		}
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", &stream{text: strings.NewReader("x")})
		wantWords(t, a, "order-a unreachable, order-b unreachable, order-c unreachable, order-d unreachable, unreachable")
		want := "order: no instance answered (4 known, 4 ready, 2 of them ejected, 4 tried): try order-d (10.0.0.4:8080): dial tcp 10.0.0.4:8080: connection refused"
		var e *httpmesh.Error
		if !errors.As(a.err, &e) || e.Error() != want || e.Timeout() {
			t.Errorf("got %v; want %s", a.err, want)
		}
	})
}

// Both containers are dead, and the caller is owed an answer within a second.
func TestAddressesThatSwallowPacketsAreTriedTwiceAtMostWhenNobodyElseIsLeft(t *testing.T) {
	for _, c := range []struct {
		ids  []string
		want string
	}{
		{[]string{"order-a", "order-b"}, "order-a stalled, order-b stalled, stalled"},
		{[]string{"order-a"}, "order-a stalled, order-a stalled, stalled"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			for _, id := range c.ids {
				f.add("order", id, nil).mode.Store("swallow")
			}
			start := time.Now()
			a := send(t, f.transport(httpmesh.Config{}), http.MethodGet, "http://order/", nil)
			if took := time.Since(start); a.err == nil || took < 600*time.Millisecond || took > 650*time.Millisecond {
				t.Errorf("got %v after %v; want an error after two dials of 300ms", a.err, took)
			}
			wantWords(t, a, c.want)
		})
	}
}

func TestEjectedOneIsNotTriedAfterTwoDialsThatTimedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for _, id := range []string{"order-a", "order-b", "order-c"} {
			f.add("order", id, nil).mode.Store("swallow")
		}
		transport := f.transport(httpmesh.Config{})
		send(t, transport, http.MethodGet, "http://order/", nil) // which ejects order-a, when its dial fails
		time.Sleep(3 * time.Second)
		start := time.Now()
		a := send(t, transport, http.MethodGet, "http://order/", nil)
		wantWords(t, a, "order-b stalled, order-c stalled, stalled")
		if took := time.Since(start); took > 650*time.Millisecond {
			t.Errorf("took %v; want two dials of 300ms", took)
		}
	})
}

// To wait for it here would only move its queue to us.
func TestOnlyInstanceThatShedsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		start := time.Now()
		a := send(t, f.transport(httpmesh.Config{}), http.MethodGet, "http://order/", nil)
		if a.err != nil || a.status != http.StatusServiceUnavailable || len(a.report.Tries) != 1 || time.Since(start) != 0 {
			t.Errorf("got %d, %v in %d tries after %v; want its 503 at once", a.status, a.err, len(a.report.Tries), time.Since(start))
		}
	})
}

func TestRetriesCanBeTurnedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		f.add("order", "order-b", nil)
		a := send(t, f.transport(httpmesh.Config{MaxRetries: -1}), "GET", "http://order/", nil)
		wantWords(t, a, "order-a unreachable, unreachable")
	})
}

func TestContextSaysHowOftenItsRequestsAreTried(t *testing.T) {
	for _, c := range []struct {
		tries int
		want  string
	}{
		{-1, "order-a stalled, stalled"},
		{1, "order-a stalled, stalled"},
		{2, "order-a stalled, order-b stalled, stalled"},
		{4, "order-a stalled, order-b stalled, order-c stalled, order-d ok, ok"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			for _, id := range []string{"order-a", "order-b", "order-c"} {
				f.add("order", id, nil).mode.Store("swallow")
			}
			f.add("order", "order-d", echo)
			a := sendWith(httpmesh.WithMaxTries(t.Context(), c.tries), t, f.transport(httpmesh.Config{}), post, "http://order/", nil)
			wantWords(t, a, c.want)
		})
	}
}

func TestBalancerForIsTheOneThatRequestsUseAndHasTheLatestInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", echo)
		transport := f.transport(httpmesh.Config{})
		b, err := transport.BalancerFor(t.Context(), "order", false)
		if err != nil || b != transport.Balancers("order")[0] || len(b.Endpoints()) != 1 {
			t.Fatalf("got %v, %v; want that of requests, with one instance", b, err)
		}
		f.add("order", "order-b", echo)
		if b, err = transport.BalancerFor(t.Context(), "order", false); err != nil || len(b.Endpoints()) != 2 {
			t.Errorf("got %v; want two instances", err)
		}
		if err := transport.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := transport.BalancerFor(t.Context(), "order", false); !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("got %v after Close; want ErrClosed", err)
		}
	})
}

func TestOnlyInstanceIsTriedAgainAfterAShortPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		start := time.Now()
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", nil)
		wantWords(t, a, "order-a unreachable, order-a unreachable, order-a unreachable, unreachable")
		if took := time.Since(start); took == 0 || took > 150*time.Millisecond {
			t.Errorf("took %v; want a pause of up to 50ms, and one of up to 100ms", took)
		}
	})
}

func TestPauseEndsWithTheCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		transport := f.transport(httpmesh.Config{})
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			start := time.Now()
			a := sendWith(ctx, t, transport, "GET", "http://order/", nil)
			if took := time.Since(start); a.err == nil || took > time.Millisecond {
				t.Errorf("got %v after %v; want an error after 1ms at the latest", a.err, took)
			}
			cancel()
		}
	})
}

func TestGetIsRepeatedAfterAResetAndPostIsNot(t *testing.T) {
	for _, c := range []struct{ method, want string }{
		{"GET", "order-a broken, order-b ok, ok"},
		{"", "order-a broken, order-b ok, ok"},
		{"HEAD", "order-a broken, order-b ok, ok"},
		{"OPTIONS", "order-a broken, order-b ok, ok"},
		{"TRACE", "order-a broken, order-b ok, ok"},
		{"POST", "order-a broken, broken"},
		{"PUT", "order-a broken, broken"},
		{"DELETE", "order-a broken, broken"},
		{"PATCH", "order-a broken, broken"},
	} {
		t.Run(c.method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.add("order", "order-a", abort)
				b := f.add("order", "order-b", nil)
				a := send(t, f.transport(httpmesh.Config{}), c.method, "http://order/", nil)
				wantWords(t, a, c.want)
				if strings.HasSuffix(c.want, ", transport") && b.calls.Load() != 0 {
					t.Error("an unsafe request was sent twice")
				}
			})
		})
	}
}

func TestPostIsNotRepeatedAfterAByteWasWrittenEvenIfItsBodyCanBeHadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", abort)
		b := f.add("order", "order-b", echo)
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", strings.NewReader("has GetBody"))
		wantWords(t, a, "order-a broken, broken")
		if b.calls.Load() != 0 {
			t.Error("a POST was sent twice")
		}
	})
}

func TestGetWithAStreamedBodyIsNotRepeatedOnceItWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			abort(w, r)
		})
		f.add("order", "order-b", echo)
		body := &stream{text: strings.NewReader("x")}
		a := send(t, f.transport(httpmesh.Config{}), "GET", "http://order/", body)
		wantWords(t, a, "order-a broken, broken")
		body.wantClosedOnce(t)

		a = send(t, f.transport(httpmesh.Config{}), "GET", "http://order/", strings.NewReader("has GetBody"))
		wantWords(t, a, "order-a broken, order-b ok, ok")
		if a.body != "has GetBody" {
			t.Errorf("got %q; want the body sent again", a.body)
		}
	})
}

func TestAnswerIsFinalUnlessItSaysThatAnotherInstanceMayDo(t *testing.T) {
	for _, c := range []struct {
		code   int
		method string
		word   string
	}{
		{301, "GET", "ok"},
		{404, "GET", "ok"},
		{408, "GET", "ok"},
		{425, "GET", "ok"},
		{500, "GET", "error"},
		{501, "GET", "ok"},
		{504, "GET", "gateway_timeout"},
		{429, post, "busy"},
		{502, post, "gateway"},
		{503, post, "gateway"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			f.add("order", "order-a", status(c.code))
			b := f.add("order", "order-b", nil)
			a := send(t, f.transport(httpmesh.Config{}), c.method, "http://order/", nil)
			if a.status != c.code || b.calls.Load() != 0 {
				t.Errorf("%s: got %d; want the %d of the first instance", c.method, a.status, c.code)
			}
			wantWords(t, a, "order-a "+c.word+", "+c.word)
		})
	}
}

func guarded(service string) http.HandlerFunc {
	return httpmesh.RequireService(service, http.HandlerFunc(echo)).ServeHTTP
}

func TestMisdirectedRequestIsTriedElsewhere(t *testing.T) {
	for _, c := range []struct {
		name, method string
		body         func() io.Reader
		want         string
	}{
		{"get", "GET", func() io.Reader { return nil }, "order-a misdirected, order-b ok, ok"},
		{"post without a body", post, func() io.Reader { return nil }, "order-a misdirected, order-b ok, ok"},
		{"post that can be had again", post, func() io.Reader { return strings.NewReader("x") }, "order-a misdirected, order-b ok, ok"},
		{"post that was read", post, func() io.Reader { return &stream{text: strings.NewReader("x")} }, "order-a misdirected, misdirected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.ReadAll(r.Body)
					guarded("user")(w, r)
				})
				f.add("order", "order-b", guarded("order"))
				transport := f.transport(httpmesh.Config{})
				a := send(t, transport, c.method, "http://order/", c.body())
				wantWords(t, a, c.want)
				if misdirected := !strings.HasSuffix(c.want, "ok"); misdirected != (a.status == 421) {
					t.Errorf("got %d", a.status)
				}
				for _, e := range transport.Balancer("order").Endpoints() {
					if e.InFlight() != 0 {
						t.Errorf("%s: got %d in flight", e.Instance().ID, e.InFlight())
					}
				}
			})
		})
	}
}

// The address of one that has vanished may be anybody's: a proxy that answers 404
// to whatever it does not know, say.
func TestAnswerOfAForeignServerAtTheAddressOfAMissingInstanceIsNotTheServices(t *testing.T) {
	foreign := status(http.StatusNotFound)
	missing := func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Hour) }
	ours := func(*catalog.Instance) {}
	for name, c := range map[string]struct {
		first, second http.HandlerFunc
		state         func(*catalog.Instance) // of the first
		want          string                  // of a GET after another one
		status        int
	}{
		"missing and foreign":               {foreign, guarded("order"), missing, "order-b ok, ok", 200}, // dropped by the first request
		"missing and ours":                  {guarded("order"), guarded("order"), missing, "order-a ok, ok", 200},
		"foreign, but in the registry":      {foreign, guarded("order"), ours, "order-a ok, ok", 404},
		"missing, and nobody says the name": {foreign, status(200), missing, "order-a ok, ok", 404},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.add("order", "order-a", c.first, c.state)
				f.add("order", "order-b", c.second)
				policy := &flipped{}
				transport := f.transport(httpmesh.Config{Policy: policy})
				send(t, transport, "GET", "http://order/", nil) // goes to order-b
				policy.on = true
				send(t, transport, post, "http://order/", strings.NewReader("body"))
				a := send(t, transport, "GET", "http://order/", nil)
				wantWords(t, a, c.want)
				if a.status != c.status {
					t.Errorf("got %d; want %d", a.status, c.status)
				}
			})
		})
	}
}

// flipped picks the last one first until it is on.
type flipped struct {
	inOrder
	on bool
}

func (p *flipped) Pick(tier balancer.Tier, q balancer.Request) (last *balancer.Endpoint) {
	if p.on {
		return p.inOrder.Pick(tier, q)
	}
	for e := range tier.All(q) {
		last = e
	}
	return last
}

func TestPostThatAForeignServerAnsweredArrivesAtTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", status(http.StatusNotFound), func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Hour) })
		f.add("order", "order-b", guarded("order"))
		policy := &flipped{}
		transport := f.transport(httpmesh.Config{Policy: policy})
		send(t, transport, "GET", "http://order/", nil)
		policy.on = true
		a := send(t, transport, post, "http://order/", strings.NewReader("body"))
		wantWords(t, a, "order-a foreign, order-b ok, ok")
		if a.body != "body" {
			t.Errorf("got %q; want the body, whole", a.body)
		}
	})
}

func TestAnswerOfAForeignServerIsAnErrorWhenNobodyElseIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", status(http.StatusNotFound), func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Hour) })
		f.add("order", "order-b", guarded("order"))
		transport := f.transport(httpmesh.Config{Policy: &flipped{}})
		send(t, transport, "GET", "http://order/", nil) // goes to order-b
		f.list("order", f.instances["order"][0])
		a := send(t, transport, "GET", "http://order/", nil)
		wantWords(t, a, "order-a foreign, order-a foreign, order-a foreign, foreign")
		if a.err == nil || !strings.Contains(a.err.Error(), "no instance of the service") {
			t.Errorf("got %d, %v; want an error", a.status, a.err)
		}
	})
}

// A server that answers before it wants the body leaves it unread.
func TestMisdirectedPostWhoseBodyWasNotReadYetIsTriedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", guarded("user"))
		f.add("order", "order-b", guarded("order"))
		body := &stream{text: strings.NewReader("wait for it")}
		var report httpmesh.Report
		r, err := http.NewRequestWithContext(httpmesh.WithReport(t.Context(), &report), post, "http://order/", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Expect", "100-continue")
		resp, err := f.transport(httpmesh.Config{}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || string(text) != "wait for it" || resp.Body.Close() != nil {
			t.Errorf("got %q, %v; want the body echoed", text, err)
		}
		wantWords(t, answer{report: report}, "order-a misdirected, order-b ok, ok")
		body.wantClosedOnce(t)
	})
}

func TestBodyThatTheAnswerMadeNeedlessIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", status(413))
		body := &stream{text: strings.NewReader("too large")}
		r, err := http.NewRequestWithContext(t.Context(), post, "http://order/", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Expect", "100-continue")
		resp, err := f.transport(httpmesh.Config{}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		body.wantClosedOnce(t)
		if resp.StatusCode != 413 || body.read.Load() != 0 {
			t.Errorf("got %d, %d bytes read; want 413 and none", resp.StatusCode, body.read.Load())
		}
	})
}

func TestWhenAllAreMisdirectedTheCallerGetsThe421(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", guarded("user"))
		f.add("order", "order-b", guarded("user"))
		a := send(t, f.transport(httpmesh.Config{}), "GET", "http://order/orders", nil)
		if a.status != 421 || !strings.Contains(a.body, `"detail":"the request is meant for \"order\"; this is \"user\""`) {
			t.Errorf("got %d %s; want the problem", a.status, a.body)
		}
		if a.report.Outcome != outcome.Misdirected || len(a.report.Tries) != 3 {
			t.Errorf("got %s; want misdirected after three tries", words(a.report))
		}
	})
}

func TestMissingInstanceWhoseAddressIsAnothersIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", guarded("user"), func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Minute) })
		f.add("order", "order-b", guarded("order"))
		transport := f.transport(httpmesh.Config{})
		wantWords(t, send(t, transport, "GET", "http://order/", nil), "order-a misdirected, order-b ok, ok")
		wantWords(t, send(t, transport, "GET", "http://order/", nil), "order-b ok, ok")
	})
}

func TestHungInstanceIsLeftAfterTheTryTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", hang)
		f.add("order", "order-b", nil)
		start := time.Now()
		a := send(t, f.transport(httpmesh.Config{}), "GET", "http://order/", nil)
		wantWords(t, a, "order-a silent, order-b ok, ok")
		if took := time.Since(start); took != time.Second || a.report.Elapsed != took || a.report.Tries[0].Latency != took {
			t.Errorf("took %v, the report says %v; want 1s", took, a.report.Elapsed)
		}
	})
}

// slow answers after three seconds.
func slow(w http.ResponseWriter, r *http.Request) {
	nap(r, 3*time.Second)
	_, _ = io.WriteString(w, "slow")
}

func TestPatienceNeverCuts(t *testing.T) {
	for _, c := range []struct {
		name, method, upgrade string
		body                  func() io.Reader
		instances             int
		retries               int
		timeout               time.Duration
		tries                 int
	}{
		{name: "the only instance", method: "GET", instances: 1, tries: 1},
		{name: "the last instance", method: "GET", instances: 2, tries: 2},
		{name: "one of many", method: "GET", instances: 9, tries: 2},
		{name: "the only try", method: "GET", instances: 9, retries: -1, tries: 1},
		{name: "a post", method: post, instances: 2, tries: 1},
		{name: "an upgrade", method: "GET", upgrade: "websocket", instances: 2, tries: 1},
		{name: "a streamed body", method: "GET", body: func() io.Reader { return &stream{text: strings.NewReader("x")} }, instances: 2, tries: 1},
		{name: "when turned off", method: "GET", instances: 2, timeout: -1, tries: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				for n := range c.instances {
					f.add("order", fmt.Sprint(n), slow)
				}
				var body io.Reader
				if c.body != nil {
					body = c.body()
				}
				var report httpmesh.Report
				r, err := http.NewRequestWithContext(httpmesh.WithReport(t.Context(), &report), c.method, "http://order/", body)
				if err != nil {
					t.Fatal(err)
				}
				if c.upgrade != "" {
					r.Header.Set("Connection", "Upgrade")
					r.Header.Set("Upgrade", c.upgrade)
				}
				resp, err := f.transport(httpmesh.Config{MaxRetries: c.retries, TryTimeout: c.timeout}).RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(resp.Body)
				if err != nil || string(text) != "slow" || resp.Body.Close() != nil {
					t.Errorf("got %q, %v; want the slow answer", text, err)
				}
				if len(report.Tries) != c.tries {
					t.Errorf("got %s; want %d tries", words(report), c.tries)
				}
			})
		})
	}
}

func TestPatienceDoesNotCutTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			nap(r, time.Minute)
			_, _ = io.WriteString(w, "late")
		})
		f.add("order", "order-b", nil)
		a := send(t, f.transport(httpmesh.Config{}), "GET", "http://order/", nil)
		if a.err != nil || a.body != "late" {
			t.Errorf("got %q, %v; want the body that came late", a.body, a.err)
		}
	})
}

func TestCallersDeadlineEndsTheTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", hang)
		f.add("order", "order-b", hang)
		transport := f.transport(httpmesh.Config{})
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		start := time.Now()
		a := sendWith(ctx, t, transport, "GET", "http://order/", nil)
		wantWords(t, a, "order-a timeout, order-b timeout, timeout")
		var e *httpmesh.Error
		if !errors.As(a.err, &e) || !e.Timeout() || !errors.Is(a.err, context.DeadlineExceeded) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("got %v after %v; want the caller's deadline", a.err, time.Since(start))
		}
	})
}

func TestCancelEndsTheTriesAndIsNobodysFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", hang)
		f.add("order", "order-b", hang)
		transport := f.transport(httpmesh.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		a := sendWith(ctx, t, transport, "GET", "http://order/", nil)
		wantWords(t, a, "order-a canceled, canceled")
		if !errors.Is(a.err, context.Canceled) {
			t.Errorf("got %v; want the caller's cancel", a.err)
		}
	})
}

func TestCancelDuringADialIsNoFailedDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil, func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Minute) }).mode.Store("swallow")
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		a := sendWith(ctx, t, transport, "GET", "http://order/", nil)
		wantWords(t, a, "order-a canceled, canceled")
		if c := transport.Balancer("order").Counts(time.Now()); c.Missing != 1 {
			t.Errorf("got %+v; want the missing one still there", c)
		}
	})
}

func TestFailedDialClosesTheIdleConnectionsToTheSamePlace(t *testing.T) {
	for _, c := range []struct {
		name  string
		heard time.Duration // when the instance answers the first request
		open  int           // idle connections after the second one's dial has failed
	}{
		{"nothing was heard since the dial began", 50 * time.Millisecond, 0},
		{"it answered meanwhile, so it is slow and not dead", 150 * time.Millisecond, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				n := f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
					nap(r, c.heard)
					w.(http.Flusher).Flush()
					nap(r, 200*time.Millisecond-c.heard)
				})
				transport := f.transport(httpmesh.Config{})
				first := make(chan answer)
				go func() { first <- send(t, transport, "GET", "http://order/", nil) }()
				time.Sleep(100 * time.Millisecond)
				n.mode.Store("swallow")
				ctx, cancel := context.WithTimeout(t.Context(), 80*time.Millisecond)
				defer cancel()
				// This one has to dial, and gives up before the dial does.
				wantWords(t, sendWith(ctx, t, transport, "GET", "http://order/", nil), "order-a timeout, timeout")
				if a := <-first; a.err != nil {
					t.Fatal(a.err)
				}
				if got := transport.Open(); got != 2 {
					t.Fatalf("got %d open; want an idle connection and a dial", got)
				}
				time.Sleep(3100 * time.Millisecond) // the dial fails
				if got := transport.Open(); got != c.open {
					t.Errorf("got %d open after the dial failed; want %d", got, c.open)
				}
			})
		})
	}
}

func TestUnreadablePostBodyIsTheCallersFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", echo)
		b := f.add("order", "order-b", echo)
		broken := errors.New("the disk is gone")
		body := &stream{text: strings.NewReader("half of it"), err: broken}
		a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", body)
		if !errors.Is(a.err, broken) || b.calls.Load() != 0 {
			t.Errorf("got %v; want the body's error, and no second try", a.err)
		}
		wantWords(t, a, "order-a caller_error, caller_error")
		body.wantClosedOnce(t)
	})
}

func TestRequestThatCannotBeSentIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil)
		f.add("order", "order-b", nil)
		var report httpmesh.Report
		r, err := http.NewRequestWithContext(httpmesh.WithReport(t.Context(), &report), "GET", "http://order/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["X"] = []string{"a\nb"}
		resp, err := f.transport(httpmesh.Config{}).RoundTrip(r)
		if err == nil {
			resp.Body.Close()
			t.Fatal("got an answer; want an error")
		}
		wantWords(t, answer{report: report, err: err}, "order-a caller_error, caller_error")
	})
}

// The server closes a connection that is idle, and the client has noticed when
// it comes to write: nothing was sent, so a POST can go elsewhere, or dial.
func TestPostIsRepeatedWhenTheIdleConnectionWasClosedBeforeAByteWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", echo)
		f.add("order", "order-b", echo)
		deaf := &deafDialer{dial: f.dial}
		transport := newTransport(t, httpmesh.Config{Source: &f.source, Policy: inOrder{}}.WithDial(deaf.Dial))
		if a := send(t, transport, post, "http://order/", strings.NewReader("first")); a.err != nil {
			t.Fatal(a.err)
		}
		deaf.last.refuseWrites()
		body := &stream{text: strings.NewReader("second")}
		a := send(t, transport, post, "http://order/", body)
		if a.err != nil || a.body != "second" {
			t.Errorf("got %q, %v; want the body echoed", a.body, a.err)
		}
		wantWords(t, a, "order-a unsent, order-b ok, ok")
		body.wantClosedOnce(t)
	})
}

// deafDialer gives connections whose writes can be made to fail.
type deafDialer struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	last *deafConn
}

type deafConn struct {
	net.Conn
	deaf chan struct{}
}

func (d *deafDialer) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := d.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.last = &deafConn{c, make(chan struct{})}
	return d.last, nil
}

func (c *deafConn) refuseWrites() { close(c.deaf) }

func (c *deafConn) Write(p []byte) (int, error) {
	select {
	case <-c.deaf:
		return 0, net.ErrClosed
	default:
		return c.Conn.Write(p)
	}
}
