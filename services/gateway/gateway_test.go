package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/services/gateway"
	"github.com/rollcall-mesh/rollcall/services/gateway/routing"
	"github.com/rollcall-mesh/rollcall/services/gateway/split"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit is how long a test waits for what should come at once.
const limit = 20 * time.Second

// door is a gateway in front of services that are handlers.
type door struct {
	t      *testing.T
	url    string
	fleet  *catalog.Fixed
	client *http.Client
}

type options struct {
	answerTimeout time.Duration
	stream        time.Duration
	learned       []gateway.Route
	proxies       string // a network
	headers       string // of theirs
	splits        func() *split.Splits
	quiet         bool // no line in the log for each request
	tls           *tls.Config
}

func open(t *testing.T, o options) *door {
	t.Helper()
	d := &door{t: t, fleet: &catalog.Fixed{}, client: &http.Client{Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	mesh, err := discovery.Open(t.Context(), discovery.Config{Source: d.fleet, HTTP: httpmesh.Config{DialTimeout: 2 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	if o.quiet {
		log = slog.New(slog.DiscardHandler)
	}
	cfg := gateway.Config{Splits: o.splits, Transport: mesh.RoundTripper(), AnswerTimeout: o.answerTimeout, ProxyHeaders: o.headers, Log: log}
	if o.proxies != "" {
		cfg.Proxies = []netip.Prefix{netip.MustParsePrefix(o.proxies)}
	}
	cfg.Learned = func() *routing.Table { return routing.NewTable(o.learned...) }
	g, err := gateway.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if o.stream == 0 {
		o.stream = limit
	}
	server := web.New(web.Config{Log: log, TLS: o.tls, Limits: web.Limits{
		ReadHeaderTimeout: limit, StreamTimeout: o.stream, IdleTimeout: limit, MaxHeaderBytes: 16 << 10, MaxConnections: 100,
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.url = "http://" + l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l, g.Door(gateway.Route{Prefix: "/users", Service: "user"}, gateway.Route{Prefix: "/orders", Service: "order"})); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		d.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		serving.Wait()
		if err := mesh.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// serve makes h the one instance of the service.
func (d *door) serve(service, id string, h http.HandlerFunc) {
	d.t.Helper()
	s := httptest.NewServer(h)
	d.t.Cleanup(s.Close)
	d.offer(service, id, s.Listener.Addr().String())
}

func (d *door) offer(service, id, addr string) {
	d.t.Helper()
	at := netip.MustParseAddrPort(addr)
	if err := d.fleet.Set(service, catalog.Instance{ID: id, Host: at.Addr().String(), Port: int(at.Port())}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *door) request(method, target string, body io.Reader, header ...string) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.url+target, body)
	if err != nil {
		d.t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		r.Header.Add(header[n], header[n+1])
	}
	return r
}

func (d *door) do(r *http.Request) (*http.Response, string) {
	d.t.Helper()
	resp, err := d.client.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp, string(body)
}

func TestRequestGoesOnExactlyAsItCame(t *testing.T) {
	d := open(t, options{})
	d.serve("order", "order-1", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s host=%s body=%s", r.Method, r.RequestURI, r.Host, body)
	})
	for _, target := range []string{
		"/orders/1",
		"/orders",
		"/orders/",
		"/orders/a%2Fb",
		"/orders/%41",
		"/orders//1",
		"/orders/./1",
		"/orders/../users/1",
		"/orders/%2e%2e/users",
		"/orders/1?x=1;y=2&z=%zz",
		"/orders/1?",
	} {
		want := "PATCH " + target + " host=order body=hello"
		resp, body := d.do(d.request(http.MethodPatch, target, strings.NewReader("hello")))
		if resp.StatusCode != 200 || body != want {
			t.Errorf("%s: got %s %q; want %q", target, resp.Status, body, want)
		}
	}
}

func TestOtherPathsAreAProblem(t *testing.T) {
	d := open(t, options{})
	called := func(http.ResponseWriter, *http.Request) { t.Error("the service was asked") }
	d.serve("user", "user-1", called)
	d.serve("order", "order-1", called)
	for _, target := range []string{"/userspace", "/users%2F1", "//users/1", "/Users/1", "/orders.", "/nothing/users"} {
		resp, body := d.do(d.request(http.MethodGet, target, nil))
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 404 || got != "application/problem+json" || resp.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: got %s %s %s; want a 404 problem with the request's ID", target, resp.Status, got, body)
		}
	}
}

func TestWhatClientsMayNotSayIsReplaced(t *testing.T) {
	d := open(t, options{})
	seen := make(chan http.Header, 1)
	d.serve("user", "user-1", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
	d.do(d.request(http.MethodGet, "/users/1", nil,
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Forwarded-Proto", "https", "X-Forwarded-Prefix", "/evil",
		"Forwarded", "for=6.6.6.6", "Rollcall-Service", "user", "Rollcall-Anything", "x", "X-Served-By", "me",
		"Connection", "X-Hop", "X-Hop", "x", "Keep-Alive", "x", "Proxy-Authorization", "secret",
		"X-Request-Id", "id-1", "Authorization", "Bearer token"))
	got := <-seen
	for name, want := range map[string]string{
		"X-Forwarded-For":     "127.0.0.1",
		"X-Forwarded-Host":    strings.TrimPrefix(d.url, "http://"),
		"X-Forwarded-Proto":   "http",
		"X-Forwarded-Prefix":  "",
		"Forwarded":           `for=127.0.0.1;host="` + strings.TrimPrefix(d.url, "http://") + `";proto=http`,
		"Rollcall-Service":    "user", // the mesh's own
		"Rollcall-Anything":   "",
		"X-Served-By":         "",
		"X-Hop":               "",
		"Keep-Alive":          "",
		"Proxy-Authorization": "",
		"X-Request-Id":        "id-1",
		"Authorization":       "Bearer token",
	} {
		if have := strings.Join(got.Values(name), ","); have != want {
			t.Errorf("%s is %q; want %q", name, have, want)
		}
	}
}

func TestAnswerNamesTheInstanceThatServed(t *testing.T) {
	d := open(t, options{})
	d.serve("user", "user-1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Served-By", "a liar")
		w.Header().Set("X-Request-Id", "another")
		w.Header().Set("Location", "/users/4")
		w.WriteHeader(http.StatusCreated)
	})
	resp, _ := d.do(d.request(http.MethodPost, "/users", strings.NewReader("{}"), "X-Request-Id", "id-1"))
	for name, want := range map[string]string{"X-Served-By": "user-1", "X-Request-Id": "id-1", "Location": "/users/4"} {
		if got := resp.Header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q; want one, %q", name, got, want)
		}
	}
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("got %s; want 201", resp.Status)
	}
}

// unserved is what a problem of the gateway tells.
type unserved struct {
	Type, Title, Detail, Instance, Service string
	Status, Known, Tried                   int
}

func (d *door) unserved(resp *http.Response, body string) unserved {
	d.t.Helper()
	var p unserved
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil || resp.Header.Get("Content-Type") != "application/problem+json" {
		d.t.Fatalf("got %s %s %v; want a problem", resp.Status, body, err)
	}
	if p.Status != resp.StatusCode || p.Title == "" || p.Type == "" || !strings.Contains(p.Detail, p.Service) {
		d.t.Errorf("the problem %s does not say what it should", body)
	}
	return p
}

func TestServiceWithoutAnInstanceIs503(t *testing.T) {
	d := open(t, options{})
	resp, body := d.do(d.request(http.MethodGet, "/users/1", nil))
	p := d.unserved(resp, body)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || p.Service != "user" || p.Known != 0 || p.Tried != 0 || p.Instance != "/users/1" {
		t.Errorf("got %s, Retry-After %q, %+v; want 503, 1, no user known or tried", resp.Status, resp.Header.Get("Retry-After"), p)
	}
}

func TestUnreachableServiceIs503AndSaysHowManyWereTried(t *testing.T) {
	d := open(t, options{})
	var gone []catalog.Instance
	for n := range 2 {
		s := httptest.NewServer(nil)
		at := netip.MustParseAddrPort(s.Listener.Addr().String())
		gone = append(gone, catalog.Instance{ID: fmt.Sprint("order-", n), Host: at.Addr().String(), Port: int(at.Port())})
		s.Close()
	}
	if err := d.fleet.Set("order", gone...); err != nil {
		t.Fatal(err)
	}
	for _, body := range []io.Reader{nil, strings.NewReader(`{"item":"Desk"}`)} {
		method := http.MethodGet
		if body != nil {
			method = http.MethodPost
		}
		resp, text := d.do(d.request(method, "/orders/1", body))
		p := d.unserved(resp, text)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || p.Service != "order" || p.Known != 2 || p.Tried != 2 {
			t.Errorf("%s: got %s, %+v; want 503, 2 known, 2 tried", method, resp.Status, p)
		}
	}
}

func TestConnectionLivesOnAfterAnUploadThatNobodyRead(t *testing.T) {
	d := open(t, options{})
	for n := range 3 {
		reused := false
		req := d.request(http.MethodPost, "/orders/1", strings.NewReader(strings.Repeat("x", 3000)))
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused },
		}))
		resp, _ := d.do(req)
		if resp.StatusCode != 503 || reused != (n > 0) {
			t.Errorf("request %d: got %s, connection reused: %t; want 503, and the first one's connection", n, resp.Status, reused)
		}
	}
}

func TestAddressesThatBelongToAnotherServiceAre503(t *testing.T) {
	d := open(t, options{})
	var moved []catalog.Instance
	for n := range 2 {
		s := httptest.NewServer(httpmesh.RequireService("user", http.NotFoundHandler()))
		t.Cleanup(s.Close)
		at := netip.MustParseAddrPort(s.Listener.Addr().String())
		moved = append(moved, catalog.Instance{ID: fmt.Sprint("order-", n), Host: at.Addr().String(), Port: int(at.Port())})
	}
	if err := d.fleet.Set("order", moved...); err != nil {
		t.Fatal(err)
	}
	resp, text := d.do(d.request(http.MethodGet, "/orders/1", nil))
	p := d.unserved(resp, text)
	if resp.StatusCode != 503 || p.Service != "order" || p.Known != 2 || p.Tried < 2 || resp.Header.Get(gateway.ServedByHeader) != "" {
		t.Errorf("got %s, %+v; want 503, 2 known, 2 or more tried, and nobody who served", resp.Status, p)
	}
}

func TestServiceThatDoesNotAnswerIs504(t *testing.T) {
	d := open(t, options{answerTimeout: 200 * time.Millisecond})
	d.serve("user", "user-1", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	for _, body := range []io.Reader{nil, strings.NewReader("{}")} {
		resp, text := d.do(d.request(http.MethodPost, "/users", body))
		p := d.unserved(resp, text)
		if resp.StatusCode != 504 || resp.Header.Get("X-Served-By") != "" || p.Service != "user" || p.Known != 1 || p.Tried != 1 {
			t.Errorf("got %s, %+v; want 504, 1 known, 1 tried", resp.Status, p)
		}
	}
}

func TestBrokenConnectionIs502AndNotTriedAgain(t *testing.T) {
	d := open(t, options{})
	var asked atomic.Int32
	d.serve("user", "user-1", func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	})
	resp, text := d.do(d.request(http.MethodPost, "/users", strings.NewReader("{}")))
	if p := d.unserved(resp, text); resp.StatusCode != 502 || resp.Header.Get("Retry-After") != "" || p.Tried != 1 || asked.Load() != 1 {
		t.Errorf("got %s %+v after %d calls; want 502 after one, and no Retry-After", resp.Status, p, asked.Load())
	}
}

// The first instance has read the body when it breaks; so the gateway must have
// kept it.
func TestPostWithAKeyIsServedByAnotherInstanceWhenOneBreaksInTheMiddle(t *testing.T) {
	d := open(t, options{})
	type got struct{ key, body string }
	var mu sync.Mutex
	var asked []got
	var instances []catalog.Instance
	for n := range 2 {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			asked = append(asked, got{r.Header.Get("Idempotency-Key"), string(body)})
			first := len(asked) == 1
			mu.Unlock()
			if first {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusCreated)
		}))
		t.Cleanup(s.Close)
		at := netip.MustParseAddrPort(s.Listener.Addr().String())
		instances = append(instances, catalog.Instance{ID: fmt.Sprint("user-", n), Host: at.Addr().String(), Port: int(at.Port())})
	}
	if err := d.fleet.Set("user", instances...); err != nil {
		t.Fatal(err)
	}
	resp, body := d.do(d.request(http.MethodPost, "/users", strings.NewReader(`{"name":"Bob"}`), "Idempotency-Key", "key-1"))
	want := got{"key-1", `{"name":"Bob"}`}
	if resp.StatusCode != http.StatusCreated || len(asked) != 2 || asked[0] != want || asked[1] != want {
		t.Errorf("got %s %q after %+v; want a 201 after two whole requests", resp.Status, body, asked)
	}
}

func TestServicesOwnProblemsPassThrough(t *testing.T) {
	d := open(t, options{})
	d.serve("user", "user-1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		http.Error(w, "busy", http.StatusServiceUnavailable)
	})
	resp, body := d.do(d.request(http.MethodGet, "/users/1", nil))
	if resp.StatusCode != 503 || body != "busy\n" || resp.Header.Get("Retry-After") != "7" || resp.Header.Get("X-Served-By") != "user-1" {
		t.Errorf("got %s %q %v; want the service's own answer", resp.Status, body, resp.Header)
	}
}

func TestStreamsFlowBothWaysAtOnce(t *testing.T) {
	d := open(t, options{})
	d.serve("order", "order-1", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(w, "echo "+line)
			_ = control.Flush()
		}
	})
	body, feed := io.Pipe()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		fmt.Fprintln(feed, "one")
	}()
	resp, err := d.client.Do(d.request(http.MethodPost, "/orders/stream", body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-sent
	out := bufio.NewReader(resp.Body)
	for _, word := range []string{"one", "two", "three"} {
		if word != "one" { // only after the answer to the last: nothing may be held back
			fmt.Fprintln(feed, word)
		}
		if line, err := out.ReadString('\n'); err != nil || line != "echo "+word+"\n" {
			t.Fatalf("got %q, %v; want the echo of %s", line, err, word)
		}
	}
	feed.Close()
	if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 {
		t.Errorf("at the end: %q, %v", rest, err)
	}
}

func TestUpgradedConnectionsPass(t *testing.T) {
	d := open(t, options{})
	d.serve("user", "user-1", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nX-Request-Id: theirs\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		line, _ := rw.ReadString('\n')
		fmt.Fprint(conn, "echo "+line)
	})
	resp, err := d.client.Do(d.request(http.MethodGet, "/users/feed", nil, "Connection", "Upgrade", "Upgrade", "echo"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 101 || resp.Header.Get("X-Served-By") != "user-1" || len(resp.Header.Values("X-Request-Id")) != 1 {
		t.Fatalf("got %s, %v; want 101 by user-1, and one request ID", resp.Status, resp.Header)
	}
	both := resp.Body.(io.ReadWriter)
	fmt.Fprint(both, "hello\n")
	if line, err := bufio.NewReader(both).ReadString('\n'); line != "echo hello\n" {
		t.Errorf("got %q, %v; want the echo", line, err)
	}
}

func TestClientThatLeavesEndsTheRequestBehind(t *testing.T) {
	d := open(t, options{})
	began, ended := make(chan struct{}), make(chan struct{})
	d.serve("user", "user-1", func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	if resp, err := d.client.Do(d.request(http.MethodGet, "/users/1", nil).WithContext(ctx)); err == nil {
		resp.Body.Close()
		t.Fatal("the request was answered")
	}
	select {
	case <-ended:
	case <-time.After(limit):
		t.Error("the request to the service goes on")
	}
}

func TestClientThatStopsSendingIsTold408(t *testing.T) {
	d := open(t, options{stream: 300 * time.Millisecond})
	d.serve("user", "user-1", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %s; want 408", resp.Status)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	log := slog.New(slog.NewTextHandler(new(bytes.Buffer), nil))
	for want, cfg := range map[string]gateway.Config{
		"Transport":     {Log: log},
		"Log":           {Transport: http.DefaultTransport},
		"AnswerTimeout": {Log: log, Transport: http.DefaultTransport, AnswerTimeout: -1},
	} {
		if _, err := gateway.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v; want an error about %s", err, want)
		}
	}
}
