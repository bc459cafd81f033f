package kitmesh_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	"github.com/go-kit/kit/sd/lb"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

func newBalancer(t *testing.T, mesh *discovery.Mesh, factory sd.Factory, judge func(error) outcome.Code) *kitmesh.Balancer {
	t.Helper()
	b, err := kitmesh.NewBalancer(newInstancer(t, mesh), factory, judge)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// calls makes endpoints that do as it says.
func calls(do func(ctx context.Context, addr string) (any, error)) sd.Factory {
	return func(addr string) (endpoint.Endpoint, io.Closer, error) {
		return func(ctx context.Context, _ any) (any, error) { return do(ctx, addr) }, nil, nil
	}
}

// call asks the Balancer for an endpoint, and calls it.
func call(ctx context.Context, b lb.Balancer) (any, error) {
	e, err := b.Endpoint()
	if err != nil {
		return nil, err
	}
	return e(ctx, nil)
}

// learner is a policy that notes what it is told.
type learner struct {
	balancer.PeakEWMA
	mu    sync.Mutex
	codes []outcome.Code
}

func (l *learner) Learn(e *balancer.Endpoint, r outcome.Result) {
	l.mu.Lock()
	l.codes = append(l.codes, r.Code)
	l.mu.Unlock()
	l.PeakEWMA.Learn(e, r)
}

type answered int

func (answered) Error() string     { return "an answer" }
func (a answered) StatusCode() int { return int(a) }

func TestOutcomeOfEachCallIsNoted(t *testing.T) {
	boom := errors.New("boom")
	wrapped := func(op string, err error) error {
		return &url.Error{Op: "Get", Err: &net.OpError{Op: op, Err: err}}
	}
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, addr string) (any, error)
		want outcome.Code
	}{
		{"an answer", func(context.Context, string) (any, error) { return "well", nil }, outcome.OK},
		{"a refused dial", func(context.Context, string) (any, error) { return nil, wrapped("dial", syscall.ECONNREFUSED) }, outcome.Unreachable},
		{"no descriptor left", func(context.Context, string) (any, error) { return nil, wrapped("dial", syscall.EMFILE) }, outcome.Unsent},
		{"a reset", func(context.Context, string) (any, error) { return nil, wrapped("read", syscall.ECONNRESET) }, outcome.Broken},
		{"an end of file", func(context.Context, string) (any, error) { return nil, fmt.Errorf("read: %w", io.EOF) }, outcome.Broken},
		{"a client's error", func(context.Context, string) (any, error) { return nil, &url.Error{Op: "Get", Err: boom} }, outcome.Broken},
		{"503", func(context.Context, string) (any, error) { return nil, answered(503) }, outcome.Gateway},
		{"404", func(context.Context, string) (any, error) { return nil, answered(404) }, outcome.OK},
		{"another error", func(context.Context, string) (any, error) { return nil, boom }, outcome.Error},
		{"an error that is judged", func(context.Context, string) (any, error) { return nil, errNotFound }, outcome.OK},
		{"a short wait", func(ctx context.Context, _ string) (any, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			<-ctx.Done()
			return nil, ctx.Err() // of a context of its own: not the caller's
		}, outcome.Error},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var policy learner
				var source catalog.Fixed
				set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
				b := newBalancer(t, open(t, discovery.Config{Source: &source, HTTP: httpmesh.Config{Policy: &policy}}), calls(c.do), judged)
				_, got := call(t.Context(), b)
				if _, want := c.do(t.Context(), ""); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("got the error %v; want it as it is, %v", got, want)
				}
				if len(policy.codes) != 1 || policy.codes[0] != c.want {
					t.Errorf("noted %v; want %v", policy.codes, c.want)
				}
			})
		})
	}
}

func TestEachCallIsToldAsARequestOfOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		type begun struct{}
		begin := func(ctx context.Context, service, _ string) context.Context {
			return context.WithValue(ctx, begun{}, service)
		}
		trace := &discovery.Trace{HTTP: &httpmesh.Trace{Begin: begin, Done: func(ctx context.Context, r *httpmesh.Report) {
			if ctx.Value(begun{}) != r.Service {
				t.Errorf("the context is not the one that Begin has returned, for %s", r.Service)
			}
			line := fmt.Sprint(r.Service, " ", r.Outcome, " ", r.Elapsed)
			for _, try := range r.Tries {
				line += fmt.Sprint(", ", try.Instance.ID, " ", try.Outcome, " ", try.Latency, " ", try.Err, " ", try.Used)
			}
			told = append(told, line)
		}}}
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
		ill := false
		b := newBalancer(t, open(t, discovery.Config{Source: &source, Trace: trace}), calls(func(context.Context, string) (any, error) {
			time.Sleep(time.Second)
			if ill {
				return nil, answered(503)
			}
			return "well", nil
		}), nil)
		want := func(lines ...string) {
			t.Helper()
			if !slices.Equal(told, lines) {
				t.Errorf("told of %q; want %q", told, lines)
			}
			told = nil
		}
		_, _ = call(t.Context(), b)
		want("user ok 1s, a ok 1s <nil> true")
		ill = true
		_, _ = call(t.Context(), b)
		want("user gateway 1s, a gateway 1s an answer false")
		one, err := b.Endpoint()
		if err != nil {
			t.Fatal(err)
		}
		set(t, &source, at("a", "10.0.0.1", catalog.StateDraining))
		_, _ = one(t.Context(), nil)
		want("user no_instance 0s")
	})
}

var errNotFound = errors.New("not found")

func judged(err error) outcome.Code {
	if errors.Is(err, errNotFound) {
		return outcome.OK
	}
	return outcome.None
}

func TestSilenceIsTheInstancesFaultAfterPatienceAndNobodysBefore(t *testing.T) {
	for _, c := range []struct {
		timeout time.Duration
		cancel  bool
		want    outcome.Code
	}{
		{900 * time.Millisecond, false, outcome.Timeout},
		{time.Second, false, outcome.Silent},
		{900 * time.Millisecond, true, outcome.Canceled},
		{time.Second, true, outcome.Silent},
	} {
		synctest.Test(t, func(t *testing.T) {
			var policy learner
			var source catalog.Fixed
			set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
			b := newBalancer(t, open(t, discovery.Config{Source: &source, HTTP: httpmesh.Config{Policy: &policy}}), calls(func(ctx context.Context, _ string) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}), nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if c.cancel {
				time.AfterFunc(c.timeout, cancel)
			} else {
				ctx, cancel = context.WithTimeout(ctx, c.timeout)
				defer cancel()
			}
			if _, err := call(ctx, b); err == nil {
				t.Error("got an answer")
			}
			if len(policy.codes) != 1 || policy.codes[0] != c.want {
				t.Errorf("%v, canceled %v: noted %v; want %v", c.timeout, c.cancel, policy.codes, c.want)
			}
		})
	}
}

func TestBalancerAndTheMeshsRequestsShareOneHealth(t *testing.T) {
	var a answers
	well := a.instance(t, "user", "well")
	mesh := meshOver(t, "user", dead(t), well)
	b := newBalancer(t, mesh, calls(func(ctx context.Context, addr string) (any, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			err = conn.Close()
		}
		return addr, err
	}), nil)
	failed := 0
	for range 40 {
		addr, err := call(within(t), b)
		switch {
		case err != nil:
			failed++
		case addr != well.Addr():
			t.Fatalf("%v answers", addr)
		}
	}
	if failed > 1 {
		t.Errorf("%d calls met the dead instance; want one, which ejects it", failed)
	}
	var report httpmesh.Report
	req, err := http.NewRequestWithContext(httpmesh.WithReport(within(t), &report), http.MethodGet, "http://user/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := mesh.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if failed == 1 && (report.Counts.Ejected != 1 || len(report.Tries) != 1) {
		t.Errorf("the mesh's own request knows of %d ejected and made %d tries; want 1 and 1", report.Counts.Ejected, len(report.Tries))
	}
}

func TestRetryOfGoKitOverABalancerGoesToAnotherInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing), at("b", "10.0.0.2", catalog.StatePassing), at("c", "10.0.0.3", catalog.StatePassing))
		b := newBalancer(t, open(t, discovery.Config{Source: &source}), calls(func(_ context.Context, addr string) (any, error) {
			if addr != "10.0.0.3:80" {
				return nil, &net.OpError{Op: "read", Err: syscall.ECONNRESET}
			}
			return addr, nil
		}), nil)
		retry := lb.Retry(3, time.Second, b)
		for n := range 20 {
			if got, err := retry(t.Context(), nil); got != "10.0.0.3:80" {
				t.Fatalf("call %d: got %v, %v; want an answer of c", n, got, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

func TestBalancerOfAServiceWithoutInstancesHasNoEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StateDraining))
		b := newBalancer(t, open(t, discovery.Config{Source: &source}), calls(nil), nil)
		synctest.Wait()
		e, err := b.Endpoint()
		if e != nil || !errors.Is(err, lb.ErrNoEndpoints) || !errors.Is(err, catalog.ErrNoInstance) {
			t.Errorf("got %v; want ErrNoEndpoints and ErrNoInstance", err)
		}
		b.Close()
		if _, err := b.Endpoint(); !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("got %v after Close; want ErrClosed", err)
		}
	})
}

func TestFirstCallWaitsForTheFirstAnswerWithinItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &silent{answer: make(chan struct{})}
		set(t, &source.Fixed, at("a", "10.0.0.1", catalog.StatePassing))
		b := newBalancer(t, open(t, discovery.Config{Source: source}), calls(func(_ context.Context, addr string) (any, error) { return addr, nil }), nil)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := call(short, b); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("got %v after %v; want the deadline after 1s", err, time.Since(begin))
		}
		time.AfterFunc(time.Second, func() { close(source.answer) })
		if got, err := call(t.Context(), b); got != "10.0.0.1:80" {
			t.Errorf("got %v, %v; want an answer", got, err)
		}
	})
}

// thing is what a factory made.
type thing struct {
	closed atomic.Int32
	busy   atomic.Int32
	fault  atomic.Pointer[string]
}

func (m *thing) Close() error {
	if m.busy.Load() != 0 {
		m.fault.Store(new("closed while it was called"))
	}
	m.closed.Add(1)
	return nil
}

func TestWhatTheFactoryMadeIsClosedWhenItsInstanceHasLeftAndItsLastCallHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		things := map[string]*thing{}
		answer := make(chan struct{})
		var source catalog.Fixed
		a, b := at("a", "10.0.0.1", catalog.StatePassing), at("b", "10.0.0.2", catalog.StatePassing)
		set(t, &source, a)
		balanced := newBalancer(t, open(t, discovery.Config{Source: &source}), func(addr string) (endpoint.Endpoint, io.Closer, error) {
			m := &thing{}
			things[addr] = m
			return func(context.Context, any) (any, error) {
				m.busy.Add(1)
				defer m.busy.Add(-1)
				<-answer
				return addr, nil
			}, m, nil
		}, nil)
		got := make(chan any)
		go func() {
			addr, _ := call(t.Context(), balanced)
			got <- addr
		}()
		synctest.Wait()
		set(t, &source, b)
		synctest.Wait()
		if n := things["10.0.0.1:80"].closed.Load(); n != 0 {
			t.Error("a was closed during a call")
		}
		close(answer)
		if addr := <-got; addr != "10.0.0.1:80" {
			t.Errorf("got %v; want the answer of a", addr)
		}
		synctest.Wait()
		if n := things["10.0.0.1:80"].closed.Load(); n != 1 {
			t.Errorf("a was closed %d times; want once, after its call", n)
		}
		if addr, err := call(t.Context(), balanced); addr != "10.0.0.2:80" {
			t.Errorf("got %v, %v; want b", addr, err)
		}
		for range 2 {
			balanced.Close()
		}
		if n := things["10.0.0.2:80"].closed.Load(); n != 1 {
			t.Errorf("b was closed %d times; want once, by Close", n)
		}
	})
}

func TestNothingThatAFactoryMadeLeaksOrIsClosedUnderACallWhenInstancesComeAndGo(t *testing.T) {
	var mu sync.Mutex
	var things []*thing
	var made atomic.Int64
	var source catalog.Fixed
	set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
	b := newBalancer(t, open(t, discovery.Config{Source: &source}), func(string) (endpoint.Endpoint, io.Closer, error) {
		m := &thing{}
		mu.Lock()
		things = append(things, m)
		mu.Unlock()
		made.Add(1)
		return func(context.Context, any) (any, error) {
			m.busy.Add(1)
			defer m.busy.Add(-1)
			if m.closed.Load() != 0 {
				m.fault.Store(new("called after it was closed"))
			}
			return nil, nil
		}, m, nil
	}, nil)
	var callers, writer sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		callers.Go(func() {
			for n := 0; n < 2000 || made.Load() < 10; n++ {
				if _, err := call(t.Context(), b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				_ = source.Set("user", at("a", fmt.Sprintf("10.0.0.%d", n%3+1), catalog.StatePassing))
			}
		}
	})
	callers.Wait()
	close(stop)
	writer.Wait()
	b.Close()
	for _, m := range things {
		if fault := m.fault.Load(); fault != nil || m.closed.Load() != 1 {
			t.Fatalf("closed %d times, and %v; want once, and well", m.closed.Load(), fault)
		}
	}
}

func TestInstanceForWhichTheFactoryFailsIsLeftForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var source catalog.Fixed
		set(t, &source, at("a", "10.0.0.1", catalog.StatePassing), at("b", "10.0.0.2", catalog.StatePassing))
		refused := errors.New("refused")
		asked := 0
		b := newBalancer(t, open(t, discovery.Config{Source: &source}), func(addr string) (endpoint.Endpoint, io.Closer, error) {
			if addr == "10.0.0.1:80" {
				asked++
				return nil, nil, refused
			}
			return endpoint.Nop, nil, nil
		}, nil)
		failed := 0
		for range 20 {
			if _, err := call(t.Context(), b); err != nil {
				failed++
				if !errors.Is(err, refused) {
					t.Errorf("got %v; want the factory's error", err)
				}
			}
		}
		if failed > 1 || failed != asked {
			t.Errorf("%d calls failed, the factory was asked %d times; want one at most: it is ejected", failed, asked)
		}
	})
}

func TestEndpointThatPanicsGivesItsLoadBack(t *testing.T) {
	var source catalog.Fixed
	set(t, &source, at("a", "10.0.0.1", catalog.StatePassing))
	mesh := open(t, discovery.Config{Source: &source, HTTP: httpmesh.Config{Outliers: &outlier.Config{}}})
	b := newBalancer(t, mesh, calls(func(context.Context, string) (any, error) { panic("a bug") }), nil)
	func() {
		defer func() { _ = recover() }()
		_, _ = call(t.Context(), b)
	}()
	for _, e := range mesh.RoundTripper().Balancers("user")[0].Endpoints() {
		if n := e.InFlight(); n != 0 {
			t.Errorf("%d calls are in flight; want none", n)
		}
	}
}
