package httpmesh_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestNewNamesEveryWrongSetting(t *testing.T) {
	_, err := httpmesh.New(httpmesh.Config{DialTimeout: -1, MaxRetries: 11})
	want := "httpmesh: Source is nil; want a catalog.Source\n" +
		"httpmesh: DialTimeout is -1ns; want more than 0, or 0 for 300ms\n" +
		"httpmesh: MaxRetries is 11; want at most 10, or negative for none"
	if err == nil || err.Error() != want {
		t.Errorf("got %v; want\n%s", err, want)
	}
}

func TestURLMustNameAServiceAndNothingElse(t *testing.T) {
	f := newFleet(t)
	transport := f.transport(httpmesh.Config{Trace: &httpmesh.Trace{Done: func(context.Context, *httpmesh.Report) { t.Error("told of a request that names no service") }}})
	for _, c := range []struct{ url, want string }{
		{"http://order:8080/x", `has host "order:8080"; want the name of a service, without a port`},
		{"http://[::1]/x", "which is an address; want the name of a service"},
		{"http://[::1]:80/x", "which is an address"},
		{"http://10.0.0.1/x", "which is an address"},
		{"http://10.0.0.1:80/x", "which is an address"},
		{"http://localhost/x", `has host "localhost"; want the name of a service, as it is registered`},
		{"http://LOCALHOST:8080/x", "as it is registered; for a host outside the mesh list it in Config.Outside"},
		{"http://example.com/x", `URL http://example.com/x has host "example.com", which has a dot; want the name of a service; for a host outside the mesh list it in Config.Outside`},
		{"http://order./x", "has a dot"},
		{"http://a:secret@order/x", "has a user"},
		{"ftp://order/x", `has scheme "ftp"`},
		{"https://order:443/x", "without a port"},
		{"//order/x", "has scheme"},
		{"http:///x", "has no host"},
	} {
		body := &stream{text: strings.NewReader("x")}
		r, err := http.NewRequestWithContext(t.Context(), post, c.url, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := transport.RoundTrip(r)
		if err == nil {
			resp.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v; want an error with %q", c.url, err, c.want)
		}
		body.wantClosedOnce(t)
	}
}

func TestUnknownServiceIsNoInstanceAndNeverALookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		dials := 0
		transport := newTransport(t, httpmesh.Config{Source: &f.source}.WithDial(func(context.Context, string, string) (net.Conn, error) {
			dials++
			return nil, errors.New("dialled")
		}))
		for _, name := range []string{"nobody", "no-body_2"} {
			body := &stream{text: strings.NewReader("x")}
			a := send(t, transport, post, "http://"+name+"/", body)
			if want := "pick " + name + ": no instance ready (0 known): no instance"; !errors.Is(a.err, catalog.ErrNoInstance) || a.err.Error() != want {
				t.Errorf("got %v; want %s", a.err, want)
			}
			wantWords(t, a, "no_instance")
			body.wantClosedOnce(t)
			if transport.Balancer(name) != nil {
				t.Errorf("%s: got a balancer", name)
			}
		}
		if dials != 0 || transport.Routes() != 0 {
			t.Errorf("got %d dials and %d routes kept; want none", dials, transport.Routes())
		}
	})
}

func TestRequestGoesOutWithItsServiceAndTheCallersStaysAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var seen *http.Request
		f.add("order", "order-a", func(_ http.ResponseWriter, r *http.Request) { seen = r })
		transport := f.transport(httpmesh.Config{})
		for _, c := range []struct{ host, want string }{{"order", "order"}, {"", "order"}, {"shop.example:8080", "shop.example:8080"}} {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "http://order/orders/1?q=a%20b", nil)
			r.RequestURI, r.Host = "", c.host
			r.Header.Set("X-Request-Id", "7")
			before := r.Clone(t.Context())
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if seen.Host != c.want || seen.Header.Get(httpmesh.ServiceHeader) != "order" || seen.URL.String() != "/orders/1?q=a%20b" ||
				seen.Header.Get("X-Request-Id") != "7" || seen.Header.Get("Accept-Encoding") != "" {
				t.Errorf("host %q: sent %s to %s with %v", c.host, seen.URL, seen.Host, seen.Header)
			}
			if diff := cmp.Diff(before.Header, r.Header); diff != "" || r.URL.String() != before.URL.String() || r.Host != c.host {
				t.Errorf("the caller's request was changed: %s %s", r.URL, diff)
			}
		}
		// A header that is nil is one without entries.
		resp, err := transport.RoundTrip(&http.Request{URL: &url.URL{Scheme: "http", Host: "order"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	})
}

func TestReportTellsWhereARequestWentAndWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil).mode.Store("refuse")
		f.add("order", "order-b", status(503))
		f.add("order", "order-c", nil, func(i *catalog.Instance) { i.State = catalog.StateDraining })
		time.Sleep(time.Hour)
		var told []*httpmesh.Report
		picks := 0
		transport := f.transport(httpmesh.Config{Trace: &httpmesh.Trace{
			Done:     func(_ context.Context, r *httpmesh.Report) { told = append(told, r) },
			Balancer: balancer.Trace{Picked: func(string, bool) { picks++ }},
		}})
		a := send(t, transport, "", "http://order/", nil)
		want := httpmesh.Report{
			Service: "order", Method: "GET", Outcome: outcome.Gateway,
			Counts: balancer.Counts{Known: 3, Ready: 2, Ejected: 1, Draining: 1},
			Proven: time.Now().Add(-time.Hour),
			Tries: []httpmesh.Try{
				{Instance: a.report.Tries[0].Instance, Outcome: outcome.Unreachable, Err: a.report.Tries[0].Err},
				{Instance: a.report.Tries[1].Instance, Outcome: outcome.Gateway, Status: 503, Used: true, After: outcome.Unreachable},
			},
		}
		sameError := cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })
		if diff := cmp.Diff(want, a.report, sameError); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
		if len(told) != 1 || picks != 2 {
			t.Fatalf("told of %d requests and %d picks; want 1 and 2", len(told), picks)
		}
		if diff := cmp.Diff(want, *told[0], sameError); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}

func TestLoadLastsUntilTheBodyEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(resp *http.Response, cancel func())
	}{
		{"read to the end", func(resp *http.Response, _ func()) { _, _ = io.ReadAll(resp.Body) }},
		{"closed", func(resp *http.Response, _ func()) { _ = resp.Body.Close() }},
		{"closed by many", func(resp *http.Response, _ func()) {
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() { _ = resp.Body.Close() })
				all.Go(func() { _, _ = resp.Body.Read(make([]byte, 1)) })
			}
			all.Wait()
		}},
		{"canceled", func(resp *http.Response, cancel func()) {
			cancel()
			if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.Canceled) {
				panic(fmt.Sprintf("got %v; want the cancel", err))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.WriteString(w, "half")
					_ = http.NewResponseController(w).Flush()
					nap(r, time.Second)
					_, _ = io.WriteString(w, "whole")
				})
				f.add("order", "order-b", nil)
				transport := f.transport(httpmesh.Config{})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, "GET", "http://order/", nil)
				if err != nil {
					t.Fatal(err)
				}
				resp, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				e := transport.Balancer("order").Endpoints()[0]
				if e.InFlight() != 1 {
					t.Errorf("got %d in flight before the body's end; want 1", e.InFlight())
				}
				c.end(resp, cancel)
				if e.InFlight() != 0 {
					t.Errorf("got %d in flight after the body's end; want 0", e.InFlight())
				}
				if err := transport.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAnswerWithoutABodyIsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", status(204))
		transport := f.transport(httpmesh.Config{})
		for _, method := range []string{"GET", "HEAD"} {
			r, err := http.NewRequestWithContext(t.Context(), method, "http://order/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			if e := transport.Balancer("order").Endpoints()[0]; e.InFlight() != 0 {
				t.Errorf("%s: got %d in flight; want 0", method, e.InFlight())
			}
			_ = resp.Body.Close()
		}
		if err := transport.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStreamsAndTrailersPassBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Lines")
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			lines := bufio.NewScanner(r.Body)
			n := 0
			for lines.Scan() {
				n++
				_, _ = fmt.Fprintf(w, "<%s>\n", lines.Text())
				_ = rc.Flush()
			}
			w.Header().Set("X-Lines", strconv.Itoa(n)+" "+r.Trailer.Get("X-Sent"))
		})
		transport := f.transport(httpmesh.Config{})
		out, in := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), post, "http://order/", out)
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Sent": nil}
		go func() { _, _ = io.WriteString(in, "one\n") }()
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got := bufio.NewScanner(resp.Body)
		for _, word := range []string{"one", "two", "three"} {
			if word != "one" {
				_, _ = io.WriteString(in, word+"\n")
			}
			if !got.Scan() || got.Text() != "<"+word+">" {
				t.Fatalf("got %q, %v; want <%s> as soon as it was sent", got.Text(), got.Err(), word)
			}
		}
		r.Trailer.Set("X-Sent", "all")
		_ = in.Close()
		if got.Scan() || resp.Trailer.Get("X-Lines") != "3 all" {
			t.Errorf("got %q and trailers %v; want the end and X-Lines: 3 all", got.Text(), resp.Trailer)
		}
	})
}

func TestCompressedBodyPassesAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "not really")
		})
		if a := send(t, f.transport(httpmesh.Config{}), "GET", "http://order/", nil); a.err != nil || a.body != "not really" {
			t.Errorf("got %q, %v; want the bytes of the instance", a.body, a.err)
		}
	})
}

// upgraded switches to a protocol that answers each line with itself in
// brackets.
func upgraded(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", "lines")
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	for {
		line, err := both.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = fmt.Fprintf(both, "<%s>\n", strings.TrimSpace(line))
		_ = both.Flush()
	}
}

func TestUpgradedConnectionIsReadAndWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", upgraded)
		f.add("order", "order-b", upgraded)
		transport := f.transport(httpmesh.Config{})
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://order/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "lines")
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		both, ok := resp.Body.(io.ReadWriteCloser)
		if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("got %d with a %T; want a body to write to", resp.StatusCode, resp.Body)
		}
		time.Sleep(time.Minute) // TryTimeout has no say
		_, _ = io.WriteString(both, "hello\n")
		if line, err := bufio.NewReader(both).ReadString('\n'); err != nil || line != "<hello>\n" {
			t.Errorf("got %q, %v; want <hello>", line, err)
		}
		e := transport.Balancer("order").Endpoints()[0]
		if e.InFlight() != 1 {
			t.Errorf("got %d in flight; want 1 until it is closed", e.InFlight())
		}
		_ = both.Close()
		if e.InFlight() != 0 {
			t.Errorf("got %d in flight after Close; want 0", e.InFlight())
		}
	})
}

func TestConnectionsOfAnEndpointThatLeftAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				slow(w, r)
			}
		})
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{})
		done := make(chan answer)
		go func() { done <- send(t, transport, post, "http://order/slow", nil) }()
		synctest.Wait()
		if a := send(t, transport, "GET", "http://order/", nil); a.err != nil {
			t.Fatal(a.err)
		}
		if got := transport.Open(); got != 2 {
			t.Fatalf("got %d connections; want one in use and one idle", got)
		}
		f.list("order", f.instances["order"][1])
		if a := send(t, transport, "GET", "http://order/", nil); a.body != "order-b" {
			t.Fatalf("got %q, %v; want order-b", a.body, a.err)
		}
		if got := transport.Open(); got != 2 {
			t.Errorf("got %d connections; want the one in use, and order-b's", got)
		}
		if a := <-done; a.err != nil || a.body != "slow" {
			t.Errorf("got %q, %v; want the request on the endpoint that left to be answered", a.body, a.err)
		}
		synctest.Wait()
		if got := transport.Open(); got != 1 {
			t.Errorf("got %d connections; want order-b's alone", got)
		}
	})
}

func TestIdleConnectionsOfAnEndpointThatLeftAreClosedWithoutAnotherRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil)
		f.add("order", "order-b", nil)
		transport := f.transport(httpmesh.Config{Policy: balancer.P2C{}})
		for range 10 {
			send(t, transport, "GET", "http://order/", nil)
		}
		if got := transport.Open(); got != 2 {
			t.Fatalf("got %d connections; want one to each", got)
		}
		left := time.Now()
		for _, stay := range []int{1, 0} {
			f.list("order", f.instances["order"][:stay]...)
			synctest.Wait()
			if got := transport.Open(); got != stay {
				t.Errorf("%d stay: got %d connections; want as many", stay, got)
			}
		}
		if took := time.Since(left); took != 0 {
			t.Errorf("took %v; want them closed at once", took)
		}
		if got := transport.Routes(); got != 0 {
			t.Errorf("got %d routes; want none for a service that nobody offers", got)
		}
	})
}

// following returns how many goroutines follow a service. Others of the process,
// such as timers of tests before, are none of ours.
func following() int {
	stacks := make([]byte, 1<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "(*Transport).follow(")
}

func TestOneGoroutineFollowsAServiceHoweverOftenItComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil)
		all := f.instances["order"]
		transport := f.transport(httpmesh.Config{})
		for n := range 100 {
			f.list("order", all...)
			if a := send(t, transport, "GET", "http://order/", nil); a.err != nil {
				t.Fatal(a.err)
			}
			if synctest.Wait(); following() != 1 {
				t.Fatalf("%d goroutines follow the service; want one", following())
			}
			f.list("order")
			if n%2 == 0 { // half of the time a request finds that nobody is left
				send(t, transport, "GET", "http://order/", nil)
			}
			synctest.Wait()
		}
		if n := following(); n != 0 || transport.Open() != 0 {
			t.Errorf("got %d goroutines that follow it and %d connections; want none", n, transport.Open())
		}
	})
}

func TestConnectionIsRenewedByAgeAndNoRequestIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		var closes atomic.Int64
		n := f.add("order", "order-a", func(_ http.ResponseWriter, r *http.Request) {
			if r.Close {
				closes.Add(1)
			}
		})
		transport := f.transport(httpmesh.Config{MaxConnAge: time.Minute})
		for range 10 * 60 {
			if a := send(t, transport, post, "http://order/", nil); a.err != nil || len(a.report.Tries) != 1 {
				t.Fatalf("got %v in %d tries; want each answered at once", a.err, len(a.report.Tries))
			}
			time.Sleep(time.Second)
		}
		// Each lives for a minute, give or take a tenth, and for the second
		// until it is used next.
		if dials := n.dials.Load(); dials < 9 || dials > 12 || closes.Load() < dials-1 {
			t.Errorf("got %d connections in 10 minutes, %d of them asked to close; want about 10, all but the last", dials, closes.Load())
		}
	})
}

func TestConnectionsLiveOnWhenMaxConnAgeIsNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		n := f.add("order", "order-a", nil)
		transport := f.transport(httpmesh.Config{MaxConnAge: -1, IdleTimeout: time.Minute})
		for range 60 {
			send(t, transport, "GET", "http://order/", nil)
			time.Sleep(30 * time.Second)
		}
		if dials := n.dials.Load(); dials != 1 {
			t.Errorf("got %d connections in half an hour; want 1", dials)
		}
	})
}

// between is a policy that does something once, after its choice.
type between struct {
	inOrder
	done atomic.Bool
	do   func()
}

func (p *between) Pick(tier balancer.Tier, q balancer.Request) *balancer.Endpoint {
	picked := p.inOrder.Pick(tier, q)
	if !p.done.Swap(true) {
		p.do()
	}
	return picked
}

func TestConnectionToAnEndpointThatLeftBetweenPickAndDialIsClosedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil)
		f.add("order", "order-b", nil)
		policy := &between{}
		transport := f.transport(httpmesh.Config{Policy: policy})
		policy.do = func() {
			f.list("order", f.instances["order"][1])
			go func() { send(t, transport, "GET", "http://order/", nil) }()
			synctest.Wait()
		}
		if a := send(t, transport, "GET", "http://order/", nil); a.body != "order-a" {
			t.Fatalf("got %q, %v; want order-a, as picked", a.body, a.err)
		}
		synctest.Wait()
		if got := transport.Open(); got != 1 {
			t.Errorf("got %d connections; want order-b's alone", got)
		}
	})
}

func TestTwoIDsAtOneAddressLeakNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		n := f.add("order", "order-a", nil)
		a := f.instances["order"][0]
		b, c := a, a
		b.ID, c.ID = "order-b", "order-c"
		transport := f.transport(httpmesh.Config{Policy: balancer.P2C{}})
		for _, set := range [][]catalog.Instance{{a, b}, {b}, {b, c}, {a, c}, {c}} {
			f.list("order", set...)
			for range 10 {
				if got := send(t, transport, "GET", "http://order/", nil); got.err != nil {
					t.Fatal(got.err)
				}
			}
			synctest.Wait()
			if got := transport.Open(); got != len(set) {
				t.Errorf("got %d connections for %d IDs; want one each", got, len(set))
			}
		}
		if n.dials.Load() != 4 {
			t.Errorf("got %d dials; want 4: a, b, c, and a again", n.dials.Load())
		}
	})
}

func TestServiceThatNobodyOffersAnyMoreIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil)
		transport := f.transport(httpmesh.Config{})
		send(t, transport, "GET", "http://order/", nil)
		f.list("order")
		if a := send(t, transport, "GET", "http://order/", nil); !errors.Is(a.err, catalog.ErrNoInstance) {
			t.Errorf("got %v; want ErrNoInstance", a.err)
		}
		synctest.Wait()
		if transport.Routes() != 0 || transport.Open() != 0 {
			t.Errorf("got %d routes and %d connections; want none", transport.Routes(), transport.Open())
		}
	})
}

// later is a source that has its first answer when it is told.
type later struct{ *catalog.Feed }

func (later) KeepAlive(string) {}

func (l later) Latest(ctx context.Context, _ string) (*catalog.Snapshot, error) {
	return l.Feed.Latest(ctx)
}

func TestWaitForTheFirstSnapshotEndsWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		source := later{catalog.NewFeed("order")}
		transport := f.transport(httpmesh.Config{Source: source})
		for _, c := range []struct {
			ctx  func() (context.Context, context.CancelFunc)
			want string
		}{
			{func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), time.Second) }, "timeout"},
			{func() (context.Context, context.CancelFunc) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				return ctx, cancel
			}, "canceled"},
		} {
			ctx, cancel := c.ctx()
			body := &stream{text: strings.NewReader("x")}
			wantWords(t, sendWith(ctx, t, transport, post, "http://order/", body), c.want)
			body.wantClosedOnce(t)
			cancel()
		}
		source.Close(nil)
		wantWords(t, send(t, transport, "GET", "http://order/", nil), "closed")
	})
}

func TestShutdownWaitsForBodiesAndRefusesNewRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			nap(r, 3*time.Second)
			_, _ = io.WriteString(w, " and half")
		})
		transport := f.transport(httpmesh.Config{})
		done := make(chan answer)
		go func() { done <- send(t, transport, "GET", "http://order/", nil) }()
		time.Sleep(time.Second)
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := transport.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 requests are still in flight") {
			t.Errorf("got %v; want the deadline and the number in flight", err)
		}
		body := &stream{text: strings.NewReader("x")}
		a := send(t, transport, post, "http://order/", body)
		if !errors.Is(a.err, catalog.ErrClosed) || a.report.Outcome != outcome.Closed {
			t.Errorf("got %v (%s); want ErrClosed", a.err, a.report.Outcome)
		}
		body.wantClosedOnce(t)
		stopped := make(chan error)
		go func() { stopped <- transport.Shutdown(t.Context()) }()
		if a := <-done; a.err != nil || a.body != "half and half" {
			t.Errorf("got %q, %v; want the whole answer", a.body, a.err)
		}
		if err := <-stopped; err != nil || time.Since(start) != 2*time.Second {
			t.Errorf("got %v after %v; want nil when the body ended, after 2s", err, time.Since(start))
		}
	})
}

func TestCloseBreaksOffWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", hang)
		f.add("user", "user-a", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			nap(r, time.Hour)
		})
		f.add("cart", "cart-a", nil).mode.Store("swallow")
		f.add("dead", "dead-a", nil).mode.Store("refuse")
		transport := f.transport(httpmesh.Config{DialTimeout: time.Hour, MaxRetries: 10})
		done := make(chan answer)
		for _, service := range []string{"order", "user", "cart"} {
			go func() { done <- send(t, transport, post, "http://"+service+"/", nil) }()
		}
		time.Sleep(time.Second)
		start := time.Now()
		for range 2 {
			if err := transport.Close(); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			a := <-done
			if a.err == nil || a.report.Outcome != outcome.Closed && a.report.Service != "user" {
				t.Errorf("%s: got %v (%s); want closed", a.report.Service, a.err, words(a.report))
			}
			if a.report.Service != "user" && !errors.Is(a.err, catalog.ErrClosed) {
				t.Errorf("got %v; want ErrClosed", a.err)
			}
		}
		if time.Since(start) != 0 {
			t.Errorf("took %v; want no time at all", time.Since(start))
		}
		if err := transport.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestManyRequestsKeepTheirConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		n := f.add("order", "order-a", func(_ http.ResponseWriter, r *http.Request) { nap(r, time.Millisecond) })
		transport := f.transport(httpmesh.Config{})
		for range 5 {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					if a := send(t, transport, "GET", "http://order/", nil); a.err != nil {
						t.Error(a.err)
					}
				})
			}
			all.Wait()
		}
		if got := n.dials.Load(); got != 50 {
			t.Errorf("got %d dials for 250 requests, 50 at a time; want 50", got)
		}
		time.Sleep(61 * time.Second)
		if got := transport.Open(); got != 0 {
			t.Errorf("got %d connections after a minute of quiet; want none", got)
		}
	})
}

func TestCallersTraceIsStillCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		f.add("order", "order-a", nil)
		got := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { got++ }})
		if a := sendWith(ctx, t, f.transport(httpmesh.Config{}), "GET", "http://order/", nil); a.err != nil || got != 1 {
			t.Errorf("got %v and %d calls; want one", a.err, got)
		}
	})
}

// The rest needs real sockets.

func listed(t testing.TB, source *catalog.Fixed, servers ...*httptest.Server) {
	t.Helper()
	var instances []catalog.Instance
	for n, s := range servers {
		host, port, err := net.SplitHostPort(s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		instances = append(instances, catalog.Instance{ID: fmt.Sprintf("order-%d", n), Host: host, Port: number})
	}
	if err := source.Set("order", instances...); err != nil {
		t.Fatal(err)
	}
}

// refusing returns a server whose address refuses.
func refusing(t *testing.T) *httptest.Server {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s
}

// Seen with http.Transport behind ReverseProxy: it closes the body on a refused
// dial, and the second try ends in 502.
func TestPostThroughReverseProxyArrivesIntactAtTheSecondInstance(t *testing.T) {
	second := httptest.NewServer(httpmesh.RequireService("order", http.HandlerFunc(echo)))
	defer second.Close()
	var source catalog.Fixed
	listed(t, &source, refusing(t), second)
	transport := newTransport(t, httpmesh.Config{Source: &source, Policy: inOrder{}})
	gateway := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "order"}) },
	})
	defer gateway.Close()
	large := strings.Repeat("0123456789abcdef", 1<<16)
	for _, body := range []io.Reader{strings.NewReader(large), io.MultiReader(strings.NewReader(large))} { // with a length, and chunked
		r, err := http.NewRequestWithContext(t.Context(), post, gateway.URL+"/orders/1", body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := gateway.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || string(got) != large {
			t.Errorf("got %d, %d bytes, %v; want the %d bytes sent", resp.StatusCode, len(got), err, len(large))
		}
	}
	if e := transport.Balancer("order").Endpoints(); e[0].InFlight() != 0 || e[1].InFlight() != 0 {
		t.Error("a request is still in flight")
	}
}

func TestUpgradeThroughReverseProxy(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(upgraded))
	defer server.Close()
	var source catalog.Fixed
	listed(t, &source, refusing(t), server)
	transport := newTransport(t, httpmesh.Config{Source: &source, Policy: inOrder{}})
	gateway := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "order"}) },
	})
	defer gateway.Close()
	var dialer net.Dialer
	c, err := dialer.DialContext(t.Context(), "tcp", gateway.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v; want 101", resp, err)
	}
	_, _ = io.WriteString(c, "hello\n")
	if line, err := r.ReadString('\n'); err != nil || line != "<hello>\n" {
		t.Errorf("got %q, %v; want <hello>", line, err)
	}
	_ = c.Close()
	if err := transport.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// reset accepts, reads a request's first bytes, and resets the connection.
func reset(t *testing.T) net.Listener {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return l
}

func TestRealResetIsRepeatedForGetOnly(t *testing.T) {
	second := httptest.NewServer(http.HandlerFunc(echo))
	defer second.Close()
	var source catalog.Fixed
	listed(t, &source, &httptest.Server{Listener: reset(t)}, second)
	transport := newTransport(t, httpmesh.Config{Source: &source, Policy: inOrder{}})
	wantWords(t, send(t, transport, "GET", "http://order/", nil), "order-0 broken, order-1 ok, ok")
	time.Sleep(100 * time.Millisecond) // it is suspect for half of that
	wantWords(t, send(t, transport, post, "http://order/", strings.NewReader("x")), "order-0 broken, broken")
}

func TestManyGoroutinesShareATransportWhileInstancesComeAndGo(t *testing.T) {
	var servers []*httptest.Server
	for range 3 {
		s := httptest.NewServer(httpmesh.RequireService("order", http.HandlerFunc(echo)))
		defer s.Close()
		servers = append(servers, s)
	}
	servers = append(servers, refusing(t))
	var source catalog.Fixed
	listed(t, &source, servers...)
	transport := newTransport(t, httpmesh.Config{Source: &source})
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for k := range 100 {
				want := fmt.Sprintf("%d/%d", n, k)
				a := send(t, transport, post, "http://order/", &stream{text: strings.NewReader(want)})
				if a.err != nil || a.body != want {
					t.Errorf("got %q, %v; want %s", a.body, a.err, want)
				}
			}
		})
	}
	all.Go(func() {
		for k := range 200 {
			listed(t, &source, servers[k%2:3+k%2]...)
			time.Sleep(time.Millisecond)
		}
	})
	all.Wait()
	if err := transport.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
