package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clean takes away the environment of whoever runs the tests.
func clean(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "CONSUL_") {
			t.Setenv(name, "")
		}
	}
}

func TestAddressIsCheckedAndTheErrorSaysWhatIsWanted(t *testing.T) {
	clean(t)
	for value, problem := range map[string]string{
		"127.0.0.1:8500":             "",
		"localhost:8500":             "",
		"consul:8500":                "",
		"[::1]:8500":                 "",
		"http://consul:8500":         "",
		"https://consul.example:443": "",
		"https://proxy:443/consul":   "",
		"https://proxy/consul/":      "",
		"http://consul:8500/":        "",
		"consul:8500/":               "",
		"consul:8500/consul":         "",
		"https://consul.example.com": "",
		"http://consul":              "",
		"HTTP://consul:8500":         "",
		"unix:///run/consul.sock":    "",
		"consul":                     "no port",
		"http://consul:":             "no port",
		"https://proxy/a%2Fb":        "needs escapes",
		"consul:8500?":               "has more than an address",
		":8500":                      "no host",
		"http://:8500":               "no host",
		"consul:0":                   "port is not 1 to 65535",
		"consul:65536":               "port is not 1 to 65535",
		"consul:http":                "not an address",
		"::1:8500":                   "not an address",
		"ftp://consul:21":            "unknown scheme ftp",
		"unix://":                    "no path",
		"user:secret@consul:8500":    "has more than an address",
		"consul:8500?dc=dc1":         "has more than an address",
		"con sul:8500":               "not an address",
		"http://consul:8500\n":       "not an address",
	} {
		for _, field := range []string{"Address", "CONSUL_HTTP_ADDR"} {
			cfg := Config{}
			if field == "Address" {
				cfg.Address = value
				t.Setenv("CONSUL_HTTP_ADDR", "")
			} else {
				t.Setenv("CONSUL_HTTP_ADDR", value)
			}
			_, err := New(cfg)
			switch {
			case problem == "" && err != nil:
				t.Errorf("%s %q: got %v; want no error", field, value, err)
			case problem != "" && err == nil:
				t.Errorf("%s %q: got no error; want %q", field, value, problem)
			case problem != "":
				for _, want := range []string{field, fmt.Sprintf("%q", value), problem, "want host:port"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("%s %q: got %q; want it to say %q", field, value, err, want)
					}
				}
			}
		}
	}
}

func TestWrongSettingsAreErrorsThatNameTheField(t *testing.T) {
	clean(t)
	for want, cfg := range map[string]Config{
		"MaxConns is 200; want 0 to 199":         {MaxConns: 200},
		"MaxConns is -1; want 0 to 199":          {MaxConns: -1},
		"DialTimeout is -1s; want 0 or more":     {DialTimeout: -time.Second},
		"no-such-file":                           {TokenFile: "no-such-file"},
		"both client cert and client key":        {CertFile: "cert.pem"},
		"Error loading CA File: open nowhere.pm": {CAFile: "nowhere.pm"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
	t.Setenv("CONSUL_HTTP_SSL", "perhaps")
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), `CONSUL_HTTP_SSL is "perhaps"; want true or false`) {
		t.Errorf("got %v; want an error about CONSUL_HTTP_SSL", err)
	}
}

// seen is what the agent saw of a call.
type seen struct{ Host, Path, Query, Token string }

// agent answers every call with what it saw of it.
func agent(t *testing.T, l net.Listener) {
	t.Helper()
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode([]string{r.Host, r.URL.Path, r.URL.RawQuery, r.Header.Get("X-Consul-Token")})
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
}

func ask(t *testing.T, cfg Config) seen {
	t.Helper()
	client, closeIdle, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer closeIdle()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	peers, err := client.Status().PeersWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	return seen{Host: peers[0], Path: peers[1], Query: peers[2], Token: peers[3]}
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestEnvironmentIsHonouredAndOverridden(t *testing.T) {
	clean(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	agent(t, l)
	dir := t.TempDir()
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", l.Addr().String())
	t.Setenv("CONSUL_HTTP_TOKEN", "from-env")
	if got := ask(t, Config{}); got.Token != "from-env" || got.Host != l.Addr().String() {
		t.Errorf("got %+v; want address and token of the environment", got)
	}
	if got := ask(t, Config{Token: "from-config", Datacenter: "dc2"}); got.Token != "from-config" || got.Query != "dc=dc2" {
		t.Errorf("got %+v; want token from-config, query dc=dc2", got)
	}
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", file)
	if got := ask(t, Config{}); got.Token != "from-file" {
		t.Errorf("got token %q; want from-file", got.Token)
	}
	if got := ask(t, Config{Token: "from-config"}); got.Token != "from-config" {
		t.Errorf("got token %q; want from-config", got.Token)
	}
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", "")
	if got := ask(t, Config{TokenFile: file}); got.Token != "from-file" {
		t.Errorf("got token %q; want from-file", got.Token)
	}
}

func TestPathOfTheAddressIsPutBeforeEveryCall(t *testing.T) {
	clean(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	agent(t, l)
	t.Setenv("CONSUL_HTTP_ADDR", "192.0.2.1:1") // the Address wins
	for before, after := range map[string]string{"http://": "/consul", "": "/consul/"} {
		if got := ask(t, Config{Address: before + l.Addr().String() + after}); got.Path != "/consul/v1/status/peers" {
			t.Errorf("%s…%s: got path %q; want /consul/v1/status/peers", before, after, got.Path)
		}
	}
}

func TestSlashAtTheEndOfTheAddressIsNoPath(t *testing.T) {
	clean(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	agent(t, l)
	for before, after := range map[string]string{"http://": "/", "": "/", "HTTP://": "//"} {
		if got := ask(t, Config{Address: before + l.Addr().String() + after}); got.Path != "/v1/status/peers" {
			t.Errorf("%s…%s: got path %q; want /v1/status/peers", before, after, got.Path)
		}
	}
}

func TestAddressWithoutAPortHasItsSchemes(t *testing.T) {
	clean(t)
	for address, want := range map[string]string{"http://consul.example": "consul.example:80", "https://consul.example/consul": "consul.example:443"} {
		var dialled string
		cfg := Config{Address: address}
		where, err := cfg.where()
		if err != nil {
			t.Fatal(err)
		}
		c := newTransport(cfg, where)
		c.DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = addr
			return nil, io.EOF
		}
		client := &http.Client{Transport: c}
		if resp, err := client.Get(where.String()); err == nil {
			resp.Body.Close()
		}
		if dialled != want || cfg.HostPort() != want {
			t.Errorf("%s: dialled %q, HostPort is %q; want %q", address, dialled, cfg.HostPort(), want)
		}
	}
}

func TestNamespaceAndPartitionGoAlong(t *testing.T) {
	clean(t)
	l := listen(t, "tcp", "127.0.0.1:0")
	agent(t, l)
	if got := ask(t, Config{Address: l.Addr().String(), Namespace: "team", Partition: "east"}); got.Query != "ns=team&partition=east" {
		t.Errorf("got query %q; want ns=team&partition=east", got.Query)
	}
}

func TestUnixSocketIsDialledWithKeepAlive(t *testing.T) {
	clean(t)
	path := filepath.Join(t.TempDir(), "consul.sock")
	l := &counted{Listener: listen(t, "unix", path)}
	agent(t, l)
	client, closeIdle, err := Open(Config{Address: "unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	defer closeIdle()
	for range 5 {
		if _, err := client.Status().Peers(); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.n.Load(); n != 1 {
		t.Errorf("got %d connections for 5 calls; want 1", n)
	}
}

type counted struct {
	net.Listener
	n atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.n.Add(1)
	}
	return conn, err
}

func TestFaultsAreToldApart(t *testing.T) {
	reset := &url.Error{Op: "Get", URL: "http://consul", Err: &net.OpError{Op: "dial", Err: errors.New("refused")}}
	for _, c := range []struct {
		err                 error
		unreachable, denied bool
		code                int
	}{
		{reset, true, false, 0},
		{fmt.Errorf("ask: %w", io.EOF), true, false, 0},
		{io.ErrUnexpectedEOF, true, false, 0},
		{context.DeadlineExceeded, true, false, 0},
		{&json.SyntaxError{}, false, false, 0},
		{fmt.Errorf("ask: %w", api.StatusError{Code: 429}), false, false, 429},
		{api.StatusError{Code: 403}, false, true, 403},
		{api.StatusError{Code: 500}, false, false, 500},
		{nil, false, false, 0},
	} {
		if got := Unreachable(c.err); got != c.unreachable {
			t.Errorf("Unreachable(%v): got %v; want %v", c.err, got, c.unreachable)
		}
		if got := Denied(c.err); got != c.denied {
			t.Errorf("Denied(%v): got %v; want %v", c.err, got, c.denied)
		}
		if got := StatusCode(c.err); got != c.code {
			t.Errorf("StatusCode(%v): got %d; want %d", c.err, got, c.code)
		}
	}
}

func TestLongRefusalsAreClipped(t *testing.T) {
	err := Clip(api.StatusError{Code: 502, Body: strings.Repeat("é", 10_000)})
	if n := len(err.Error()); n > 300 || StatusCode(err) != 502 {
		t.Errorf("got %d bytes, code %d; want at most 300, code 502", n, StatusCode(err))
	}
	if err := io.EOF; !errors.Is(Clip(err), err) {
		t.Error("another error was changed")
	}
}

func TestBackoffDoublesWithFullJitterUpToItsBound(t *testing.T) {
	for _, c := range []struct {
		err  error
		most time.Duration
	}{{io.EOF, time.Second}, {api.StatusError{Code: 429}, 10 * time.Second}} {
		var b Backoff
		want := 100 * time.Millisecond
		for n := range 1000 {
			if got := b.bound(c.err); got != want {
				t.Fatalf("%v, failure %d: bound is %s; want %s", c.err, n+1, got, want)
			}
			want = min(2*want, c.most)
		}
		var sum time.Duration
		for range 1000 {
			got := b.Next(c.err)
			if got < 0 || got > c.most {
				t.Fatalf("waits %s; want 0 to %s", got, c.most)
			}
			sum += got
		}
		if mean := sum / 1000; mean < c.most*4/10 || mean > c.most*6/10 {
			t.Errorf("waits %s on average; want about half of %s", mean, c.most)
		}
		b.Reset()
		if got := b.bound(c.err); got != 100*time.Millisecond {
			t.Errorf("after Reset: bound is %s; want 100ms", got)
		}
	}
}

// A Consul that has just come back refuses until it has a leader, which takes a
// second or two: who had waited for it for long must not wait on for ten.
func TestRefusalAfterAnAbsenceIsWaitedForShortlyAtFirst(t *testing.T) {
	var b Backoff
	for range 1000 {
		b.bound(io.EOF)
	}
	refusal := api.StatusError{Code: 500, Body: "No cluster leader"}
	for n, want := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 10000} {
		if got := b.bound(refusal); got != want*time.Millisecond {
			t.Errorf("refusal %d: the bound is %v; want %v", n+1, got, want*time.Millisecond)
		}
	}
	if got := b.bound(io.EOF); got != time.Second {
		t.Errorf("away again: the bound is %v; want 1s", got)
	}
}

func ExampleNew() {
	client, err := New(Config{Address: "consul"})
	fmt.Println(client, err)
	// Output: <nil> consul: Address is "consul" (no port); want host:port, http://host:port, https://host:port or unix:///path
}

func TestHostPortIsWhereTheClientConnects(t *testing.T) {
	for _, c := range []struct{ address, env, want string }{
		{"", "", "127.0.0.1:8500"},
		{"", "https://consul.internal:8501", "consul.internal:8501"},
		{"[::1]:8500", "consul.internal:8501", "[::1]:8500"},
		{"unix:///run/consul.sock", "", ""},
		{"nonsense", "", ""},
		{"http://consul", "", "consul:80"},
		{"https://consul.example.com/", "", "consul.example.com:443"},
		{"https://[::1]", "", "[::1]:443"},
		{"consul:8500/prefix/", "", "consul:8500"},
	} {
		t.Setenv("CONSUL_HTTP_ADDR", c.env)
		if got := (Config{Address: c.address}).HostPort(); got != c.want {
			t.Errorf("Address %q, CONSUL_HTTP_ADDR %q: got %q; want %q", c.address, c.env, got, c.want)
		}
	}
}
