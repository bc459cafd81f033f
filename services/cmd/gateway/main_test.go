package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
	"github.com/rollcall-mesh/rollcall/services/internal/app"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long a test waits for what should come soon.
const limit = 30 * time.Second

// program is the gateway, run inside the test; its settings are the process's, so that
// there is one at a time.
type program struct {
	t             *testing.T
	traffic, page string // addresses
	log           *logtest.Buffer
}

func run(t *testing.T, consul string, args ...string) *program {
	t.Helper()
	p := &program{t: t, log: &logtest.Buffer{}}
	signals, code, at := make(chan os.Signal, 2), make(chan int, 1), make(chan string, 4)
	args = append([]string{"--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--consul=" + consul, "--settle=100ms", "--advertise-host=127.0.0.1"}, args...)
	ctx := context.WithoutCancel(t.Context())
	go func() {
		code <- app.Run(ctx, spec(), args, app.Process{
			Signals: signals, Stdout: io.Discard, Stderr: p.log,
			Listen: func(ctx context.Context, addr string) (net.Listener, error) {
				l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
				if err == nil {
					at <- l.Addr().String()
				}
				return l, err
			},
		})
	}()
	for _, addr := range []*string{&p.page, &p.traffic} {
		select {
		case *addr = <-at:
		case <-time.After(limit):
			t.Fatalf("it does not listen\n%s", p.log)
		}
	}
	t.Cleanup(func() {
		signals <- syscall.SIGTERM
		if got := <-code; got != app.ExitDrained {
			t.Errorf("it ended with %d\n%s", got, p.log)
		}
	})
	return p
}

// eventually waits until a command says what is wanted.
func (p *program) eventually(command, want string) {
	p.t.Helper()
	var said []byte
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		said, _ = exec.CommandContext(p.t.Context(), "sh", "-c", command).CombinedOutput()
		if strings.Contains(string(said), want) {
			return
		}
	}
	p.t.Fatalf("%s: %s\nwant %q\n%s", command, said, want, p.log)
}

// commands are those of the how-to that use curl, with the addresses of the test.
func (p *program) commands(consul, greeter string) map[string]string {
	p.t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		p.t.Skipf("needs curl: %v", err)
	}
	page, err := os.ReadFile("../../../docs/how-to/gateway.md")
	if err != nil {
		p.t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(greeter)
	if err != nil {
		p.t.Fatal(err)
	}
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\$ curl (.*)$`).FindAllStringSubmatch(string(page), -1) {
		command := strings.NewReplacer("localhost:8500", consul, "localhost:8080", p.traffic, "localhost:8081", p.page, `"Port": 9000`, `"Port": `+port).Replace(m[1])
		where := m[1][strings.LastIndexByte(m[1], '/')+1:]
		if strings.Contains(m[1], "/v1/kv/") {
			where = "put"
		}
		all[where] = "curl --silent --show-error --noproxy '*' " + command
	}
	for _, where := range []string{"register", "1", "routes", "splits", "put"} {
		if all[where] == "" {
			p.t.Fatalf("the page has no command that ends with /%s: %q", where, all)
		}
	}
	return all
}

func TestStrangerIsReachableAsTheHowToSays(t *testing.T) {
	greeter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello at %s", r.URL.Path) }))
	t.Cleanup(greeter.Close)
	consul, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	reachable(t, consul, greeter.Listener.Addr().String())
}

func TestStrangerIsReachableOverARealConsul(t *testing.T) {
	greeter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello at %s", r.URL.Path) }))
	t.Cleanup(greeter.Close)
	reachable(t, consultest.Real(t).Addr(), greeter.Listener.Addr().String())
}

func reachable(t *testing.T, consul, greeter string) {
	t.Helper()
	p := run(t, consul, "--pinned=none", "--routes=learned")
	do := p.commands(consul, greeter)
	p.eventually("curl --silent --noproxy '*' "+p.page+"/readyz", `"status": "ready"`)
	p.eventually(do["1"], "nothing is at /greet/1")
	p.eventually(do["register"]+" && echo done", "done")
	p.eventually(do["1"], "hello at /greet/1")
	p.eventually(strings.Replace(do["1"], "/greet/", "/hello/", 1), "hello at /1")
	p.eventually(do["splits"], `"services"`)
	p.eventually(do["routes"], `"service": "greeter"`)
	p.eventually("curl --silent --noproxy '*' "+p.page+"/metrics", "rollcall_gateway_routes 2")

	status := "curl --silent --noproxy '*' " + p.page + "/debug/splits"
	p.eventually(do["put"], "true")
	p.eventually(status, `"sticky": "cookie:session"`)
	put := "curl --silent --noproxy '*' -X PUT " + consul + "/v1/kv/rollcall/gateway/splits -d "
	p.eventually(put+`'{"greeter": [{"to": "version=v2", "percent": 10}]}'`, "true")
	p.eventually(status, `"percent": 10`)
	p.eventually(put+`'{"greeter": [{"to": "v2"}]}'`, "true")
	p.eventually(status, "line 1: a rule of greeter: to is")
	p.eventually(status, `"percent": 10`) // the last good ones
	p.eventually(do["1"], "hello at /greet/1")
}

func TestWrongRoutesAndNetworksStopTheStart(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"--pinned=/users", "ROLLCALL_PINNED (--pinned)"},
		{"--trusted-proxies=10.0.0.0/33", "ROLLCALL_TRUSTED_PROXIES (--trusted-proxies)"},
		{"--proxy-headers=x", "ROLLCALL_PROXY_HEADERS (--proxy-headers)"},
		{"--routes=all", "ROLLCALL_ROUTES (--routes)"},
		{"--consul-ui=localhost:8500", "ROLLCALL_CONSUL_UI (--consul-ui)"},
		{"--prometheus-ui=http://localhost:9090/?x=1", "ROLLCALL_PROMETHEUS_UI (--prometheus-ui)"},
		{"--mesh-try=yes", "ROLLCALL_MESH_TRY (--mesh-try)"},
	} {
		var log logtest.Buffer
		code := app.Run(t.Context(), spec(), []string{tc.arg}, app.Process{Stdout: io.Discard, Stderr: &log})
		if got := log.String(); code != app.ExitSetting || !strings.Contains(got, tc.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want %d and one line with %s", tc.arg, code, got, app.ExitSetting, tc.want)
		}
	}
}

func TestNetworksAreReadWithOrWithoutALength(t *testing.T) {
	got, err := parseNetworks(" 10.1.2.3/8, 192.0.2.1,2001:db8::/32 ,")
	if want := "[10.0.0.0/8 192.0.2.1/32 2001:db8::/32]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %v, %v; want %s", got, err, want)
	}
}
