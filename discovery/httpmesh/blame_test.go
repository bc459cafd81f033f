package httpmesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// wantHealthy checks that nothing is held against any instance.
func wantHealthy(t *testing.T, transport *httpmesh.Transport) {
	t.Helper()
	for _, e := range transport.Balancer("order").Endpoints() {
		if s := e.State(time.Now()); s != outlier.Healthy || e.Ejection() != (outlier.Ejection{}) {
			t.Errorf("%s is %v, ejected %+v; want healthy, and never ejected", e.Instance().ID, s, e.Ejection())
		}
	}
}

// An instance that hung on POSTs without a key answered 504 to half of them for
// good, for the gateway's own clock ended the wait with a cause.
func TestInstanceThatHangsOnPostsIsEjectedThoughItsGetsAreWell(t *testing.T) {
	ends := map[string]func(ctx context.Context) (context.Context, context.CancelFunc){
		"the caller's deadline": func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 3*time.Second)
		},
		"a clock of the caller's": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			timer := time.AfterFunc(3*time.Second, func() { cancel(fmt.Errorf("no answer: %w", context.DeadlineExceeded)) })
			return ctx, func() { timer.Stop(); cancel(nil) }
		},
		"the caller, who leaves": func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			timer := time.AfterFunc(3*time.Second, cancel)
			return ctx, func() { timer.Stop(); cancel() }
		},
	}
	for name, within := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.add("order", "order-a", func(_ http.ResponseWriter, r *http.Request) {
					if _, _ = io.Copy(io.Discard, r.Body); r.Method == post {
						<-r.Context().Done()
					}
				})
				f.add("order", "order-b", nil)
				f.add("order", "order-c", nil)
				transport := f.transport(httpmesh.Config{Policy: balancer.PeakEWMA{}})
				failed := 0
				for range 60 {
					ctx, cancel := within(t.Context())
					if a := sendWith(ctx, t, transport, post, "http://order/", strings.NewReader("x")); a.err != nil {
						failed++
					}
					cancel()
					for range 3 {
						if a := send(t, transport, http.MethodGet, "http://order/", nil); a.status != 200 {
							t.Fatalf("a GET failed: %v", a.err)
						}
						time.Sleep(10 * time.Millisecond)
					}
				}
				if c := transport.Balancer("order").Counts(time.Now()); failed > 4 || c.Ejected != 1 {
					t.Errorf("%d POSTs failed, %+v; want the three that eject it, one on trial, and it is out", failed, c)
				}
			})
		})
	}
}

func TestSilenceOfAllInstancesIsProvenOfNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		for _, id := range []string{"order-a", "order-b", "order-c"} {
			f.add("order", id, func(_ http.ResponseWriter, r *http.Request) {
				if _, _ = io.Copy(io.Discard, r.Body); r.Method == post {
					<-r.Context().Done()
				}
			})
		}
		transport := f.transport(httpmesh.Config{Policy: balancer.PeakEWMA{}})
		for range 60 {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			sendWith(ctx, t, transport, post, "http://order/", nil)
			cancel()
			send(t, transport, http.MethodGet, "http://order/", nil)
			if c := transport.Balancer("order").Counts(time.Now()); c.Ejected != 0 {
				t.Fatalf("got %+v; want none ejected for what all do", c)
			}
		}
	})
}

// Healthy instances were ejected.
func TestCallersOwnMistakeBlamesNone(t *testing.T) {
	broken := errors.New("the disk is gone")
	for name, spoil := range map[string]func(r *http.Request){
		"a body shorter than its Content-Length": func(r *http.Request) { r.ContentLength = 10 },
		"a body longer than its Content-Length":  func(r *http.Request) { r.ContentLength = 1 },
		"a body whose Read fails": func(r *http.Request) {
			r.Body, r.GetBody, r.ContentLength = io.NopCloser(&stream{text: strings.NewReader("four"), err: broken}), nil, -1
		},
		"a body whose Read fails, and that can be had again": func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(&stream{text: strings.NewReader("four"), err: broken}), -1
		},
		"a header that can't be sent": func(r *http.Request) { r.Header.Set("X", "a\nb") },
	} {
		for _, method := range []string{post, http.MethodPut, http.MethodGet} {
			t.Run(name+", "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := newFleet(t)
					f.add("order", "order-a", echo)
					f.add("order", "order-b", echo)
					transport := f.transport(httpmesh.Config{})
					for range 10 {
						var report httpmesh.Report
						r, err := http.NewRequestWithContext(httpmesh.WithReport(t.Context(), &report), method, "http://order/", strings.NewReader("four"))
						if err != nil {
							t.Fatal(err)
						}
						spoil(r)
						resp, err := transport.RoundTrip(r)
						if err == nil { // to the part that is right
							resp.Body.Close()
							continue
						}
						if got := words(report); got != "order-a caller_error, caller_error" {
							t.Errorf("got %s, %v; want one try, and the caller's error", got, err)
						}
					}
					wantHealthy(t, transport)
				})
			})
		}
	}
}

func TestBodyThatCannotBeHadAgainBlamesNoneAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		f.add("order", "order-b", nil)
		f.add("order", "order-c", nil)
		r, err := http.NewRequestWithContext(t.Context(), post, "http://order/", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("it is gone")
		r.GetBody = func() (io.ReadCloser, error) { return nil, gone }
		transport := f.transport(httpmesh.Config{})
		_, err = transport.RoundTrip(r)
		var e *httpmesh.Error
		if !errors.Is(err, gone) || !errors.As(err, &e) || e.Report.Outcome != outcome.CallerError {
			t.Errorf("got %v; want the error of GetBody", err)
		}
		for _, e := range transport.Balancer("order").Endpoints()[1:] {
			if e.State(time.Now()) != outlier.Healthy || e.InFlight() != 0 {
				t.Errorf("%s is %v with %d in flight", e.Instance().ID, e.State(time.Now()), e.InFlight())
			}
		}
	})
}

// 63 of 1,188 requests failed, and healthy instances were ejected.
func TestServerThatClosesIdleConnectionsCostsNoRequestAndIsNotBlamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.idle = 200 * time.Millisecond
		f.add("order", "order-a", nil)
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{Policy: balancer.PeakEWMA{}})
		for n := range 1000 {
			if a := send(t, transport, http.MethodGet, "http://order/", nil); a.status != 200 {
				t.Fatalf("request %d: %v", n, a.err)
			}
			time.Sleep(50*time.Millisecond + rand.N(100*time.Millisecond))
		}
		wantHealthy(t, transport)
	})
}

// closer answers the first request of each connection, reads the next, and
// closes: as a server does whose time for idle connections is over just then.
func closer(t *testing.T, f *fleet, id string) (executions *atomic.Int64) {
	t.Helper()
	executions = new(atomic.Int64)
	n := f.add("order", id, nil)
	_ = n.server.Close()
	n.serving.Wait()
	n.done = make(chan struct{})
	n.serving.Go(func() {
		for {
			c, err := n.Accept()
			if err != nil {
				return
			}
			n.serving.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for answers := 0; ; answers++ {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					executions.Add(1)
					if answers == 1 {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
			})
		}
	})
	t.Cleanup(func() { close(n.done) })
	return executions
}

func TestRepeatsThatNetHTTPWouldMakeAreOursAndForSafeMethodsOnly(t *testing.T) {
	for _, c := range []struct {
		name, method, header string
		body                 string
		words                string
		executions           int64
	}{
		{"a get", http.MethodGet, "", "", "order-a idle_closed, order-a ok, ok", 3},
		{"a post", post, "", "", "order-a idle_closed, idle_closed", 2},
		{"a post with a body", post, "", "x", "order-a idle_closed, idle_closed", 2},
		{"a post with X-Idempotency-Key", post, "X-Idempotency-Key", "x", "order-a idle_closed, idle_closed", 2},
		{"a post with X-Idempotency-Key and no body", post, "X-Idempotency-Key", "", "order-a idle_closed, idle_closed", 2},
		{"a post with Idempotency-Key", post, "Idempotency-Key", "x", "order-a idle_closed, order-a ok, ok", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				executions := closer(t, f, "order-a")
				transport := f.transport(httpmesh.Config{})
				send(t, transport, http.MethodGet, "http://order/", nil)
				var report httpmesh.Report
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
				}
				r, err := http.NewRequestWithContext(httpmesh.WithReport(t.Context(), &report), c.method, "http://order/", body)
				if err != nil {
					t.Fatal(err)
				}
				if c.header != "" {
					r.Header.Set(c.header, "k")
				}
				resp, err := transport.RoundTrip(r)
				if err == nil {
					resp.Body.Close()
				}
				if got := words(report); got != c.words || executions.Load() != c.executions {
					t.Errorf("got %s, %v, %d executions with the first; want %s, %d", got, err, executions.Load(), c.words, c.executions)
				}
				wantHealthy(t, transport)
			})
		})
	}
}

func TestErrorHasItsCauseWhenNoInstanceIsLeftAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			f.list("order") // it leaves
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		a := send(t, f.transport(httpmesh.Config{}), http.MethodGet, "http://order/", nil)
		if !errors.Is(a.err, catalog.ErrNoInstance) || a.report.Outcome != outcome.NoInstance || strings.Contains(a.err.Error(), "<nil>") || !strings.Contains(a.err.Error(), "503") {
			t.Errorf("got %v, %s; want that no instance is left, after a 503", a.err, words(a.report))
		}
	})
}

// One WebSocket handshake while Consul was wiped threw healthy instances out.
func TestAnswersThatCarryNoNameAreBelievedOfAMissingInstance(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a protocol that was switched": func(w http.ResponseWriter, _ *http.Request) {
			c, out, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			defer c.Close()
			_, _ = out.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_ = out.Flush()
		},
		"a connection that is refused": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				missing := func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Hour) }
				f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Upgrade") != "" {
						handler(w, r)
						return
					}
					guarded("order")(w, r)
				}, missing)
				transport := f.transport(httpmesh.Config{})
				send(t, transport, http.MethodGet, "http://order/", nil) // which says the name
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://order/", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "websocket")
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if c := transport.Balancer("order").Counts(time.Now()); resp.StatusCode == 404 || c.Missing != 1 || c.Ejected != 0 {
					t.Errorf("got %d, %+v; want the answer, and the instance in use", resp.StatusCode, c)
				}
			})
		})
	}
}

func TestForeignAnswerMakesItsInstanceSuspectAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", status(404), func(i *catalog.Instance) { i.MissingUntil = time.Now().Add(time.Hour) })
		f.add("order", "order-b", guarded("order"))
		policy := &flipped{}
		transport := f.transport(httpmesh.Config{Policy: policy})
		send(t, transport, http.MethodGet, "http://order/", nil)
		policy.on = true
		for range 10 {
			wantWords(t, send(t, transport, post, "http://order/", nil), "order-a foreign, order-b ok, ok")
			wantWords(t, send(t, transport, post, "http://order/", nil), "order-b ok, ok")
			time.Sleep(4 * time.Second)
		}
		if c := transport.Balancer("order").Counts(time.Now()); c.Ejected != 0 || c.Missing != 1 {
			t.Errorf("got %+v; want it still known", c)
		}
	})
}

func TestProtocolThatIsSwitchedUnaskedIsAnErrorAndNothingStaysOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
			c, out, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			_, _ = out.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
			_ = out.Flush()
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		})
		transport := f.transport(httpmesh.Config{})
		a := send(t, transport, http.MethodGet, "http://order/", nil)
		wantWords(t, a, "order-a error, error")
		if a.err == nil {
			t.Error("got no error")
		}
		if err := transport.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestOfferToSwitchToHTTP2IsNotPassedOn(t *testing.T) {
	for _, c := range []struct{ connection, upgrade, wantConnection, wantUpgrade string }{
		{"Upgrade, HTTP2-Settings", "h2c", "", ""},
		{"upgrade, http2-settings, X-Own", "H2C", "X-Own", ""},
		{"Upgrade, HTTP2-Settings", "websocket, h2c", "Upgrade", "websocket"},
		{"Upgrade", "websocket", "Upgrade", "websocket"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t)
			var got http.Header
			f.add("order", "order-a", func(_ http.ResponseWriter, r *http.Request) { got = r.Header })
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://order/", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Connection", c.connection)
			r.Header.Set("Upgrade", c.upgrade)
			if strings.Contains(strings.ToLower(c.connection), "http2") {
				r.Header.Set("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA")
			}
			resp, err := f.transport(httpmesh.Config{}).RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if got.Get("Connection") != c.wantConnection || got.Get("Upgrade") != c.wantUpgrade || got.Get("Http2-Settings") != "" {
				t.Errorf("%q, %q: got %q, %q, %q", c.connection, c.upgrade, got.Get("Connection"), got.Get("Upgrade"), got.Get("Http2-Settings"))
			}
			if r.Header.Get("Upgrade") != c.upgrade {
				t.Error("the caller's header was changed")
			}
		})
	}
}

// 0 of 50 were, though the docs said so.
func TestPostThatWasNotDoneIsSentElsewhereWithItsBody(t *testing.T) {
	for name, refuse := range map[string]http.HandlerFunc{
		"shed": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		"misdirected": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			guarded("user")(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.add("order", "order-a", refuse)
				f.add("order", "order-b", echo)
				a := send(t, f.transport(httpmesh.Config{}), post, "http://order/", strings.NewReader("body"))
				if a.body != "body" || len(a.report.Tries) != 2 {
					t.Errorf("got %q, %s; want the body from the second", a.body, words(a.report))
				}
			})
		})
	}
}

func TestLostPacketOfADialEjectsNoneAndItsConnectionIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		lossy := f.add("order", "order-a", nil)
		lossy.mode.Store("lose")
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{})
		start := time.Now()
		wantWords(t, send(t, transport, post, "http://order/", strings.NewReader("x")), "order-a stalled, order-b ok, ok")
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("took %v; want 300ms", took)
		}
		e := transport.Balancer("order").Endpoints()[0]
		for range 6 { // while it is not known whether it is there, it gets nothing
			wantWords(t, send(t, transport, post, "http://order/", nil), "order-b ok, ok")
			if s := e.State(time.Now()); s != outlier.Suspect {
				t.Errorf("it is %v; want suspect", s)
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		wantHealthy(t, transport)
		wantWords(t, send(t, transport, post, "http://order/", nil), "order-a ok, ok")
		if n := lossy.dials.Load(); n != 1 {
			t.Errorf("dialled %d times; want the connection of the first dial used", n)
		}
	})
}

func TestDialThatIsNotAnsweredForThreeSecondsIsUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("swallow")
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{})
		send(t, transport, http.MethodGet, "http://order/", nil)
		e := transport.Balancer("order").Endpoints()[0]
		time.Sleep(2699 * time.Millisecond)
		if s := e.State(time.Now()); s != outlier.Suspect {
			t.Errorf("before: %v; want suspect", s)
		}
		time.Sleep(time.Millisecond)
		if synctest.Wait(); e.State(time.Now()) != outlier.Ejected || e.Ejection().Reason != outcome.Unreachable {
			t.Errorf("after 3s: %v, %+v; want ejected as unreachable", e.State(time.Now()), e.Ejection())
		}
	})
}

func TestDialsThatHangAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("swallow")
		transport := f.transport(httpmesh.Config{})
		for range 100 {
			go func() { send(t, transport, http.MethodGet, "http://order/", nil) }()
			time.Sleep(20 * time.Millisecond)
		}
		// Those that have hung for long, and those of the last 300 ms.
		if n := transport.Open(); n > 16+2*15+2 {
			t.Errorf("%d dials are under way; want 16 that hang, and those that are new", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := transport.Open(); n != 0 {
			t.Errorf("%d dials are under way at the end", n)
		}
	})
}

func TestLackOfDescriptorsHereIsNotTheInstancesFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("lack")
		f.add("order", "order-b", nil).mode.Store("lack")
		transport := f.transport(httpmesh.Config{})
		for range 10 {
			if a := send(t, transport, http.MethodGet, "http://order/", nil); a.err == nil || a.report.Outcome != outcome.Unsent {
				t.Errorf("got %v, %s; want unsent", a.err, words(a.report))
			}
		}
		wantHealthy(t, transport)
	})
}

func TestRequestThatGoesElsewhereIsNotSentByTheConnectionThatComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		late := f.add("order", "order-a", nil)
		late.mode.Store("lose")
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{DialTimeout: time.Second}) // the dial ends with it
		for range 50 {
			if a := send(t, transport, post, "http://order/", strings.NewReader("x")); a.status != 200 {
				t.Errorf("got %d, %v", a.status, a.err)
			}
			transport.CloseIdleConnections()
		}
		if calls := late.calls.Load() + f.nodes["10.0.0.2:8080"].calls.Load(); calls != 50 {
			t.Errorf("50 POSTs were done %d times", calls)
		}
	})
}

// Seen when an order was killed: one request used up its tries on the connections
// that had been idle there.
func TestRequestWhoseIdleConnectionWasClosedGoesElsewhereAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		executions := closer(t, f, "order-a")
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{})
		var first []*http.Response
		for range 10 { // at once, so that there are ten connections
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://order/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			first = append(first, resp)
		}
		for _, resp := range first {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		before := executions.Load()
		for range 5 {
			wantWords(t, send(t, transport, http.MethodGet, "http://order/", nil), "order-a idle_closed, order-b ok, ok")
		}
		if n := executions.Load() - before; n != 5 {
			t.Errorf("5 requests came to order-a %d times; want once each", n)
		}
		wantHealthy(t, transport)
	})
}
