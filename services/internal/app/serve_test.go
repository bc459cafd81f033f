package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
	"github.com/rollcall-mesh/rollcall/internal/metricstest"
	"github.com/rollcall-mesh/rollcall/observability/health"
)

// limit is how long a test waits for what should come soon.
const limit = 30 * time.Second

// program is a service that runs inside the test.
type program struct {
	t       *testing.T
	signals chan os.Signal
	log     *logtest.Buffer
	code    chan int
	traffic string // the URL of the traffic port
	rpcs    string // the address of the gRPC port
	admin   string
	client  *http.Client
	closed  chan string // what OnClose was told, in order
	broken  atomic.Bool // its store
}

// both is what is served on both ports.
type both struct {
	http.Handler
	register func(grpc.ServiceRegistrar)
}

// begin runs the service h, and waits until it serves.
func begin(t *testing.T, consul string, h http.Handler, args ...string) *program {
	t.Helper()
	return beginAs(t, Spec{Name: "user"}, consul, h, args...)
}

// beginAs is begin, of a service that is also what spec says.
func beginAs(t *testing.T, spec Spec, consul string, h http.Handler, args ...string) *program {
	t.Helper()
	return beginBuilt(t, spec, func(*Runtime, *Parts) {}, consul, h, args...)
}

// beginBuilt is beginAs, where built sees what Build finds and may change what it
// makes.
func beginBuilt(t *testing.T, spec Spec, built func(*Runtime, *Parts), consul string, h http.Handler, args ...string) *program {
	t.Helper()
	p := &program{
		t: t, signals: make(chan os.Signal, 2), log: &logtest.Buffer{}, code: make(chan int, 1),
		client: &http.Client{Transport: &http.Transport{}}, closed: make(chan string, 8),
	}
	spec.Build = func(_ context.Context, r *Runtime) (Parts, error) {
		r.OnClose(func() error { p.closed <- "store"; return nil })
		r.OnClose(func() error { p.closed <- "cache"; return nil })
		r.Health.Add("store", health.Required, func(context.Context) error {
			if p.broken.Load() {
				return errors.New("disk full")
			}
			return nil
		})
		parts := Parts{Handler: h}
		if b, ok := h.(both); ok {
			parts.GRPC = b.register
		}
		built(r, &parts)
		return parts, nil
	}
	args = append([]string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--consul=" + consul, "--settle=100ms", "--log-format=json"}, args...)
	at := make(chan string, 3)
	ctx := context.WithoutCancel(t.Context())
	go func() {
		p.code <- Run(ctx, spec, args, Process{
			Signals: p.signals, Stdout: io.Discard, Stderr: p.log,
			Listen: func(ctx context.Context, addr string) (net.Listener, error) {
				l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
				if err == nil {
					at <- "http://" + l.Addr().String()
				}
				return l, err
			},
		})
	}()
	t.Cleanup(p.client.CloseIdleConnections)
	p.admin, p.traffic = wait(t, at), wait(t, at)
	if _, ok := h.(both); ok {
		p.rpcs = strings.TrimPrefix(wait(t, at), "http://")
	}
	p.eventually("it serves", func() bool { return strings.Contains(p.log.String(), `"msg":"serving"`) })
	return p
}

func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func (p *program) eventually(what string, ok func() bool) {
	p.t.Helper()
	end := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(end) {
			p.t.Fatalf("never: %s\n%s", what, p.log)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// exit waits for the exit code.
func (p *program) exit(want int) {
	p.t.Helper()
	if got := wait(p.t, p.code); got != want {
		p.t.Errorf("exit code %d; want %d\n%s", got, want, p.log)
	}
}

func (p *program) get(url string) (int, string, error) {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// nobody is an address that refuses connections.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })

func TestServiceServesAndIsReadyWithoutConsul(t *testing.T) {
	t.Parallel()
	p := begin(t, nobody(t), hello)
	if code, body, err := p.get(p.traffic + "/"); code != 200 || body != "hello" {
		t.Errorf("got %d %q %v; want hello", code, body, err)
	}
	code, body, err := p.get(p.admin + "/readyz")
	if code != 200 {
		t.Errorf("/readyz: got %d %s %v; want 200: Consul does not decide", code, body, err)
	}
	var page struct {
		Dependencies []struct {
			Name, Why string
			OK        bool
		}
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	for _, d := range page.Dependencies {
		if (d.Name == "registration") == d.OK || (d.Why == "") != d.OK {
			t.Errorf("%s is %v (%s)", d.Name, d.OK, d.Why)
		}
	}
	for path, want := range map[string]string{
		"/livez": "live", "/metrics": `rollcall_build_info`, "/debug/discovery": `"registrations"`, "/debug/pprof/": "goroutine",
	} {
		if code, body, err := p.get(p.admin + path); code != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: got %d %v; want 200 with %s", path, code, err, want)
		}
	}
	if code, body, _ := p.get(p.admin + "/nothing"); code != 404 || !strings.Contains(body, `"status":404`) {
		t.Errorf("/nothing on the admin port: got %d %s; want a 404 problem", code, body)
	}
	if code, _, _ := p.get(p.traffic + "/metrics"); code != 200 {
		t.Errorf("/metrics on the traffic port: got %d; want the service's own answer", code)
	}

	began := time.Now()
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the drain took %v; want less than 10s", took)
	}
	if first, second := wait(t, p.closed), wait(t, p.closed); first != "cache" || second != "store" {
		t.Errorf("closed %s before %s; want the last opened first", first, second)
	}
	if _, _, err := p.get(p.admin + "/livez"); err == nil {
		t.Error("the admin port still answers")
	}
}

func TestMetricsOfAServiceAreCleanByPromtool(t *testing.T) {
	t.Parallel()
	p := begin(t, nobody(t), hello)
	if code, body, err := p.get(p.traffic + "/"); code != 200 || body != "hello" {
		t.Errorf("got %d %q %v; want hello", code, body, err)
	}
	_, page, err := p.get(p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
	metricstest.Promtool(t, page)
}

func TestRequestForAnotherServiceIsRefusedExceptAtTheEdge(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		spec Spec
		want int
	}{
		{Spec{Name: "user"}, http.StatusMisdirectedRequest},
		{Spec{Name: "gateway", Edge: true}, http.StatusOK},
	} {
		p := beginAs(t, tc.spec, nobody(t), hello)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.traffic+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Rollcall-Service", "order")
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s: got %s; want %d", tc.spec.Name, resp.Status, tc.want)
		}
		p.signals <- syscall.SIGINT
		p.exit(ExitDrained)
	}
}

func TestWordsBetweenServicesDoNotLeaveTheEdge(t *testing.T) {
	t.Parallel()
	busy := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Rollcall-Reason", "overload")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for _, tc := range []struct {
		spec Spec
		want string
	}{
		{Spec{Name: "user"}, "overload"},
		{Spec{Name: "gateway", Edge: true}, ""},
	} {
		p := beginAs(t, tc.spec, nobody(t), busy)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.traffic+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Rollcall-Reason"); got != tc.want {
			t.Errorf("%s: the reason is %q; want %q", tc.spec.Name, got, tc.want)
		}
		p.signals <- syscall.SIGINT
		p.exit(ExitDrained)
	}
}

func TestHealthCommandAsksTheRunningService(t *testing.T) {
	t.Parallel()
	p := begin(t, nobody(t), hello)
	ask := func() (int, string) {
		var errs strings.Builder
		admin := strings.TrimPrefix(p.admin, "http://")
		code := Run(t.Context(), Spec{Name: "user"}, []string{"health", "--admin-listen=" + admin}, Process{Stdout: io.Discard, Stderr: &errs})
		return code, errs.String()
	}
	if code, said := ask(); code != 0 {
		t.Errorf("exit %d, %q; want 0 while it lives", code, said)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
	if code, said := ask(); code != 1 || !strings.Contains(said, "not live") {
		t.Errorf("exit %d, %q; want 1 and why, when it is gone", code, said)
	}
}

func TestRequestInFlightIsServedByADrain(t *testing.T) {
	t.Parallel()
	inside, release := make(chan struct{}), make(chan struct{})
	p := begin(t, nobody(t), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		fmt.Fprint(w, "served")
	}))
	type answer struct {
		code int
		body string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		code, body, err := p.get(p.traffic + "/")
		got <- answer{code, body, err}
	}()
	wait(t, inside)
	p.signals <- syscall.SIGTERM
	p.eventually("readiness says draining", func() bool {
		code, body, err := p.get(p.admin + "/readyz")
		return err == nil && code == 503 && strings.Contains(body, `"draining"`)
	})
	close(release)
	if a := wait(t, got); a.code != 200 || a.body != "served" {
		t.Errorf("the request in flight got %+v; want it served", a)
	}
	p.exit(ExitDrained)
}

func TestStreamEndsAtTheBoundOfADrain(t *testing.T) {
	t.Parallel()
	inside := make(chan struct{})
	p := begin(t, nobody(t), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
	}), "--drain-timeout=1s", "--settle-max=200ms")
	go func() { _, _, _ = p.get(p.traffic + "/") }()
	wait(t, inside)
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
	if !strings.Contains(p.log.String(), "1 requests were cut off") {
		t.Errorf("the log does not tell of the request that was cut off:\n%s", p.log)
	}
}

func TestSecondSignalCutsTheDrainShort(t *testing.T) {
	t.Parallel()
	inside := make(chan struct{})
	p := begin(t, nobody(t), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
	}), "--drain-timeout=1h")
	go func() { _, _, _ = p.get(p.traffic + "/") }()
	wait(t, inside)
	p.signals <- syscall.SIGTERM
	p.eventually("it drains", func() bool { return strings.Contains(p.log.String(), `"msg":"draining"`) })
	p.signals <- syscall.SIGTERM
	p.exit(ExitCut)
}

func TestStartThatFailsClosesWhatWasOpened(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	closed := 0
	spec := Spec{Name: "user", Build: func(_ context.Context, r *Runtime) (Parts, error) {
		r.OnClose(func() error { closed++; return nil })
		return Parts{Handler: hello}, nil
	}}
	var errs logtest.Buffer
	code := Run(t.Context(), spec, []string{"--listen=" + taken.Addr().String(), "--admin-listen=127.0.0.1:0", "--consul=" + nobody(t)},
		Process{Stdout: io.Discard, Stderr: &errs})
	if code != ExitFailed || closed != 1 || !strings.Contains(errs.String(), taken.Addr().String()) {
		t.Errorf("exit %d, closed %d times, said %s; want exit 1, closed, and the address that was taken", code, closed, &errs)
	}

	spec.Build = func(context.Context, *Runtime) (Parts, error) { return Parts{}, errors.New("disk full") }
	if code := Run(t.Context(), spec, []string{"--consul=" + nobody(t)}, Process{Stdout: io.Discard, Stderr: &errs}); code != ExitFailed || !strings.Contains(errs.String(), "disk full") {
		t.Errorf("exit %d, said %s; want exit 1 and why", code, &errs)
	}
}

func TestServiceThatCannotGoOnServingFails(t *testing.T) {
	t.Parallel()
	broken := &breakable{broke: make(chan struct{})}
	spec := Spec{Name: "user", Build: func(context.Context, *Runtime) (Parts, error) { return Parts{Handler: hello}, nil }}
	var log logtest.Buffer
	code := make(chan int, 1)
	ctx := t.Context()
	consul := nobody(t)
	go func() {
		code <- Run(ctx, spec, []string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--consul=" + consul},
			Process{Stdout: io.Discard, Stderr: &log, Listen: func(ctx context.Context, addr string) (net.Listener, error) {
				l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
				if err == nil && broken.Listener == nil {
					broken.Listener = l
					return broken, nil
				}
				return l, err
			}})
	}()
	end := time.Now().Add(limit)
	for !strings.Contains(log.String(), `"msg":"serving"`) && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	close(broken.broke)
	if got := wait(t, code); got != ExitFailed || !strings.Contains(log.String(), "no more files") {
		t.Errorf("exit %d; want 1 and why:\n%s", got, &log)
	}
}

// breakable is a listener whose Accept fails once it is told to.
type breakable struct {
	net.Listener
	broke chan struct{}
}

func (b *breakable) Accept() (net.Conn, error) {
	<-b.broke
	return nil, errors.New("no more files")
}

func TestDrainIsSeenInConsulBeforeTheListenerCloses(t *testing.T) {
	t.Parallel()
	consul := consultest.Real(t)
	client := consul.Client()
	p := begin(t, consul.Addr(), hello, "--settle=2s")
	p.eventually("the entry passes", func() bool {
		entries, _, err := client.Health().Service("user", "", true, nil)
		return err == nil && len(entries) == 1 && entries[0].Service.Meta["prometheus_port"] != "" && entries[0].Service.Meta["rollcall_admin"] == entries[0].Service.Meta["prometheus_port"] && len(entries[0].Checks) >= 2
	})
	p.signals <- syscall.SIGTERM
	seen := false
	for open := true; open; {
		_, _, err := p.get(p.traffic + "/")
		if open = err == nil; !open && !seen {
			t.Error("the listener closed before the entry was seen as draining")
		}
		entries, _, err := client.Health().Service("user", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			for _, c := range e.Checks {
				seen = seen || (c.Status == "critical" && strings.HasPrefix(c.Output, "draining"))
			}
		}
	}
	p.exit(ExitDrained)
	if entries, _, err := client.Health().Service("user", "", false, nil); err != nil || len(entries) != 0 {
		t.Errorf("after the exit: %d entries, %v; want none", len(entries), err)
	}
}
