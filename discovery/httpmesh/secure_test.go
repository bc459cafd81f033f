package httpmesh_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/internal/tlstest"
)

const get = http.MethodGet

// site is instances that speak TLS on real sockets, and the source that lists
// them as the service order.
type site struct {
	t         testing.TB
	authority *tlstest.Authority
	source    catalog.Fixed
	instances []catalog.Instance
}

func newSite(t testing.TB) *site { return &site{t: t, authority: tlstest.New(t, "site")} }

// list lists what listens at the address.
func (s *site) list(id string, at net.Addr, secure bool) {
	s.t.Helper()
	host, port, err := net.SplitHostPort(at.String())
	if err != nil {
		s.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	i := catalog.Instance{ID: id, Host: host, Port: number}
	if secure {
		i.Meta = map[string]string{catalog.MetaTLS: "true"}
	}
	s.instances = append(s.instances, i)
	if err := s.source.Set("order", s.instances...); err != nil {
		s.t.Fatal(err)
	}
}

// server is an instance, and counts its connections.
type server struct {
	*httptest.Server
	conns atomic.Int64
}

// add starts and lists an instance; nil for the handler answers the protocol. change
// may change it before it is started.
func (s *site) add(id string, handler http.HandlerFunc, change ...func(*httptest.Server)) *server {
	s.t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }
	}
	started := &server{Server: httptest.NewUnstartedServer(handler)}
	started.EnableHTTP2 = true
	started.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	started.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			started.conns.Add(1)
		}
	}
	started.TLS = &tls.Config{Certificates: []tls.Certificate{s.authority.Sign(time.Hour, "order").Certificate(s.t)}}
	for _, c := range change {
		c(started.Server)
	}
	started.StartTLS()
	s.t.Cleanup(started.Close)
	s.list(id, started.Listener.Addr(), true)
	return started
}

func with(pair tlstest.Pair) func(*httptest.Server) {
	return func(s *httptest.Server) {
		cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			panic(err)
		}
		s.TLS.Certificates = []tls.Certificate{cert}
	}
}

func http1(s *httptest.Server) { s.EnableHTTP2 = false }

// believes returns the TLS of a Config that believes the authority.
func believes(a *tlstest.Authority) func(string) *tls.Config {
	return func(string) *tls.Config { return &tls.Config{RootCAs: a.Pool()} }
}

func (s *site) transport(cfg httpmesh.Config) *httpmesh.Transport {
	s.t.Helper()
	cfg.Source = &s.source
	if cfg.Policy == nil {
		cfg.Policy = inOrder{}
	}
	if cfg.TLS == nil {
		cfg.TLS = believes(s.authority)
	}
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 5 * time.Second // a handshake takes long where all tests make one
	}
	return newTransport(s.t, cfg)
}

func TestEachSchemeUsesTheInstancesThatFitIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "plain") }))
	defer plain.Close()
	s.list("order-plain", plain.Listener.Addr(), false)
	s.add("order-tls", nil)
	transport := s.transport(httpmesh.Config{})
	for range 10 {
		if a := send(t, transport, get, "http://order/", nil); a.body != "plain" || a.report.Counts.Known != 1 {
			t.Fatalf("http: %q, %v, %+v; want the plain one's answer, of one known", a.body, a.err, a.report.Counts)
		}
		if a := send(t, transport, get, "https://order/", nil); a.body != "HTTP/2.0" || a.report.Counts.Known != 1 {
			t.Fatalf("https: %q, %v, %+v; want the TLS one's answer, of one known", a.body, a.err, a.report.Counts)
		}
	}
	if n := len(transport.Balancers("order")); n != 2 {
		t.Errorf("%d balancers; want one for each scheme", n)
	}
}

func TestWrongSchemeIsSaidBeforeAByteIsSent(t *testing.T) {
	t.Parallel()
	for scheme, want := range map[string]string{
		"http":  "send to http://order: nothing was sent, for all of its 1 instances speak TLS; want https://order: no instance",
		"https": "send to https://order: nothing was sent, for all of its 1 instances speak plain text, as their entries say (no rollcall-tls in their Meta); want http://order: no instance",
	} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var dials atomic.Int64
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					dials.Add(1)
					c.Close()
				}
			}()
			s.list("order-a", l.Addr(), scheme == "http")
			a := send(t, s.transport(httpmesh.Config{}), get, scheme+"://order/", nil)
			if a.err == nil || a.err.Error() != want || !errors.Is(a.err, catalog.ErrNoInstance) || words(a.report) != "wrong_scheme" || dials.Load() != 0 {
				t.Errorf("got %v, %q, %d dials; want %q, wrong_scheme, none", a.err, words(a.report), dials.Load(), want)
			}
		})
	}
}

func TestInstanceWhoseCertificateIsNotBelievedGetsNothingAndAnotherServes(t *testing.T) {
	t.Parallel()
	ours := tlstest.New(t, "site")
	for name, c := range map[string]struct {
		pair tlstest.Pair
		says []string
	}{
		"expired":           {ours.Sign(-time.Minute, "order"), []string{"certificate has expired", `["order"]`}},
		"another service's": {ours.Sign(time.Hour, "user"), []string{`not order`, `["user"]`}},
		"another root's":    {tlstest.New(t, "theirs").Sign(time.Hour, "order"), []string{"unknown authority", "CN=theirs"}},
	} {
		for _, protocol := range []string{"h1", "h2"} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				s := newSite(t)
				s.authority = ours
				changes := []func(*httptest.Server){with(c.pair)}
				if protocol == "h1" {
					changes = append(changes, http1)
				}
				bad := s.add("order-a", func(http.ResponseWriter, *http.Request) { t.Error("it was sent the request") }, changes...)
				id := identity(t, ours, "gateway")
				cfg := httpmesh.Config{TLS: id.Client}
				a := send(t, s.transport(cfg), post, "https://order/", strings.NewReader("x"))
				if words(a.report) == "" || a.err == nil || a.report.Outcome.String() != "untrusted" {
					t.Fatalf("got %v, %q; want untrusted", a.err, words(a.report))
				}
				for _, part := range append(c.says, "order-a", bad.Listener.Addr().String(), "until 20", `for "order"`) {
					if !strings.Contains(a.err.Error(), part) {
						t.Errorf("%q lacks %s", a.err, part)
					}
				}
				s.add("order-b", nil)
				if a := send(t, s.transport(cfg), post, "https://order/", strings.NewReader("x")); a.status != 200 || words(a.report) != "order-a untrusted, order-b ok, ok" {
					t.Errorf("got %d, %v, %q; want the other's answer", a.status, a.err, words(a.report))
				}
			})
		}
	}
}

// identity returns one of the authority, from files that are its own.
func identity(t testing.TB, a *tlstest.Authority, names ...string) *mtls.Identity {
	t.Helper()
	return open(t, a, t.TempDir(), nil, names...)
}

func open(t testing.TB, a *tlstest.Authority, folder string, callers []string, names ...string) *mtls.Identity {
	t.Helper()
	a.Write(folder, a.Sign(time.Hour, names...))
	id, err := mtls.Open(mtls.Config{
		CAFile: filepath.Join(folder, "ca.pem"), CertFile: filepath.Join(folder, "cert.pem"), KeyFile: filepath.Join(folder, "key.pem"),
		Callers: callers, Interval: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(id.Close)
	return id
}

func TestEntryThatSaysTLSOfAPlainPortIsUntrusted(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	s.list("order-a", plain.Listener.Addr(), true)
	a := send(t, s.transport(httpmesh.Config{MaxRetries: -1}), get, "https://order/", nil)
	if words(a.report) != "order-a untrusted, untrusted" || !strings.Contains(fmt.Sprint(a.err), "does not look like a TLS handshake") {
		t.Errorf("got %v, %q; want untrusted, and why", a.err, words(a.report))
	}
}

func TestServerThatDoesNotBelieveOurCertificateIsUntrustedOverBothProtocols(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"h1", "h2"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			admits := open(t, s.authority, t.TempDir(), []string{"gateway"}, "order")
			s.add("order-a", nil, func(h *httptest.Server) {
				cfg, err := admits.Server()
				if err != nil {
					t.Error(err)
				}
				h.TLS, h.EnableHTTP2 = cfg, protocol == "h2"
			})
			transport := s.transport(httpmesh.Config{MaxRetries: -1, TLS: identity(t, s.authority, "stranger").Client})
			// Over HTTP/1.1 the request may be on its way, and be lost with the
			// connection before the reason can be read.
			a := send(t, transport, get, "https://order/", nil)
			if outcome := words(a.report); outcome != "order-a untrusted, untrusted" && (protocol == "h2" || outcome != "order-a broken, broken") {
				t.Errorf("got %v, %q; want untrusted", a.err, outcome)
			}
			if a := send(t, s.transport(httpmesh.Config{TLS: identity(t, s.authority, "gateway").Client}), get, "https://order/", nil); a.status != 200 {
				t.Errorf("a caller that is named: %v", a.err)
			}
		})
	}
}

// gate holds requests until it is opened, and counts those inside.
type gate struct {
	inside atomic.Int64
	opened chan struct{}
}

func newGate() *gate { return &gate{opened: make(chan struct{})} }

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	g.inside.Add(1)
	select {
	case <-g.opened:
	case <-r.Context().Done():
	}
	_, _ = io.WriteString(w, r.Proto)
}

func TestRequestsShareAConnectionUpToTheBoundAndThenTakeAnother(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ours, theirs, requests int
		conns                  int64
	}{
		"one connection for a burst":       {0, 0, 50, 1},
		"our bound":                        {4, 0, 10, 3},
		"theirs":                           {0, 4, 10, 3},
		"no HTTP/2":                        {-1, 0, 10, 10},
		"their bound, below that of a try": {8, 1, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, held := newSite(t), newGate()
			a := s.add("order-a", held.serve, func(h *httptest.Server) {
				h.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: c.theirs}
			})
			transport := s.transport(httpmesh.Config{MaxStreams: c.ours, TryTimeout: -1, DialTimeout: time.Minute})
			var sending sync.WaitGroup
			for range c.requests {
				sending.Go(func() {
					if a := send(t, transport, get, "https://order/", nil); a.status != 200 || (a.body == "HTTP/2.0") != (c.ours >= 0) {
						t.Errorf("got %d, %q, %v, %q", a.status, a.body, a.err, words(a.report))
					}
				})
			}
			eventually(t, "all are inside at once", func() bool { return held.inside.Load() == int64(c.requests) })
			close(held.opened)
			sending.Wait()
			if n := a.conns.Load(); n != c.conns {
				t.Errorf("%d connections for %d requests at once; want %d", n, c.requests, c.conns)
			}
		})
	}
}

func TestFirstConnectionToAnInstanceWithoutHTTP2IsUsed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.add("order-a", nil, http1)
	transport := s.transport(httpmesh.Config{})
	for range 5 {
		if got := send(t, transport, get, "https://order/", nil); got.body != "HTTP/1.1" {
			t.Fatalf("got %q, %v", got.body, got.err)
		}
	}
	if n := a.conns.Load(); n != 1 {
		t.Errorf("%d connections; want 1", n)
	}
}

func TestUpgradeGoesOverHTTP1ThoughTheInstanceOffersHTTP2(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("order-a", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, r.Proto)
			return
		}
		upgraded(w, r)
	})
	transport := s.transport(httpmesh.Config{})
	if a := send(t, transport, get, "https://order/", nil); a.body != "HTTP/2.0" {
		t.Fatalf("got %q, %v", a.body, a.err)
	}
	r, err := http.NewRequestWithContext(t.Context(), get, "https://order/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.TLS == nil {
		t.Errorf("got %s, TLS %v", resp.Status, resp.TLS)
	}
}

func TestRefusedStreamAndGoAwayCostNoRequest(t *testing.T) {
	t.Parallel()
	refused := func(c h2conn, stream uint32) {
		if stream == 1 {
			c.write(frameReset, 0, stream, 0, 0, 0, refuse)
			return
		}
		c.ok(stream)
	}
	for name, asked := range map[string]func(c h2conn, stream uint32){
		"REFUSED_STREAM": refused,
		"GOAWAY before it": func(c h2conn, stream uint32) {
			if c.number == 0 {
				c.goAway(0, 0)
				return
			}
			c.ok(stream)
		},
		"GOAWAY with an error": func(c h2conn, stream uint32) {
			if c.number == 0 {
				c.goAway(0, 11) // ENHANCE_YOUR_CALM
				return
			}
			c.ok(stream)
		},
		"GOAWAY after it": func(c h2conn, stream uint32) {
			c.goAway(stream, 0)
			c.ok(stream)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.list("order-a", h2server(t, s.authority.Sign(time.Hour, "order"), asked), true)
			transport := s.transport(httpmesh.Config{})
			for range 3 {
				// Neither a GET nor keyed: it may be done once.
				a := send(t, transport, post, "https://order/", strings.NewReader("body"))
				if a.status != 200 {
					t.Fatalf("got %v, %q", a.err, words(a.report))
				}
				if n := len(a.report.Tries); n > 2 || n == 2 && a.report.Tries[0].Outcome.String() != "unsent" {
					t.Errorf("tries: %q; want one that was not sent at most", words(a.report))
				}
			}
			wantHealthy(t, transport)
		})
	}
}

func TestConnectionThatBreaksAmidARequestMayHaveServedIt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.list("order-a", h2server(t, s.authority.Sign(time.Hour, "order"), func(c h2conn, _ uint32) { c.Close() }), true)
	s.add("order-b", nil)
	if a := send(t, s.transport(httpmesh.Config{}), post, "https://order/", strings.NewReader("body")); words(a.report) != "order-a broken, broken" {
		t.Errorf("got %d, %v, %q; want no other try of a POST", a.status, a.err, words(a.report))
	}
	if a := send(t, s.transport(httpmesh.Config{}), get, "https://order/", nil); words(a.report) != "order-a broken, order-b ok, ok" {
		t.Errorf("got %d, %v, %q; want the other's answer to a GET", a.status, a.err, words(a.report))
	}
}

func TestConnectionThatSaysNothingIsUsedNoMore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var conns atomic.Int64
	s.list("order-a", h2server(t, s.authority.Sign(time.Hour, "order"), func(c h2conn, stream uint32) {
		conns.Store(int64(c.number) + 1)
		if c.number > 0 {
			c.ok(stream)
		}
	}), true)
	transport := s.transport(httpmesh.Config{TryTimeout: 50 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // of which the handshake may take some
	defer cancel()
	if a := sendWith(ctx, t, transport, get, "https://order/", nil); a.report.Outcome.String() != "silent" {
		t.Fatalf("got %v, %q; want silent", a.err, words(a.report))
	}
	if a := send(t, transport, get, "https://order/", nil); a.status != 200 || conns.Load() != 2 {
		t.Errorf("got %v, %q, over connection %d; want an answer over the second", a.err, words(a.report), conns.Load())
	}
}

func TestSharedConnectionIsRenewedByAgeWithoutALostRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.add("order-a", nil)
	transport := s.transport(httpmesh.Config{MaxConnAge: 50 * time.Millisecond, MaxRetries: -1})
	storm(t, 4, 500*time.Millisecond, func() error {
		if a := send(t, transport, post, "https://order/", strings.NewReader("x")); a.err != nil {
			return fmt.Errorf("%w (%s)", a.err, words(a.report))
		}
		return nil
	})
	if n := a.conns.Load(); n < 5 || n > 20 {
		t.Errorf("%d connections in half a second with an age of 50 ms; want about 10", n)
	}
}

// storm calls f from so many goroutines for a while, and says which calls failed.
func storm(t *testing.T, callers int, d time.Duration, f func() error) (calls int64) {
	t.Helper()
	var all, failed atomic.Int64
	var calling sync.WaitGroup
	end := time.Now().Add(d)
	for range callers {
		calling.Go(func() {
			for time.Now().Before(end) {
				all.Add(1)
				if err := f(); err != nil && failed.Add(1) < 5 {
					t.Error(err)
				}
			}
		})
	}
	calling.Wait()
	if n := failed.Load(); n > 0 {
		t.Errorf("%d of %d requests failed; want none", n, all.Load())
	}
	return all.Load()
}

func TestInstanceThatDrainsIsLeftWithoutABrokenRequest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	leaving := s.add("order-a", nil)
	s.add("order-b", nil)
	transport := s.transport(httpmesh.Config{})
	var draining sync.WaitGroup
	draining.Go(func() {
		time.Sleep(100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := leaving.Config.Shutdown(ctx); err != nil { // a GOAWAY, and no new connections
			t.Error(err)
		}
	})
	storm(t, 8, 500*time.Millisecond, func() error {
		if a := send(t, transport, post, "https://order/", strings.NewReader("x")); a.err != nil {
			return fmt.Errorf("%w (%s)", a.err, words(a.report))
		}
		return nil
	})
	draining.Wait()
	if err := s.source.Set("order", s.instances[1]); err != nil {
		t.Fatal(err)
	}
	send(t, transport, get, "https://order/", nil)
	eventually(t, "one connection is left, to the other instance", func() bool { return transport.Open() == 1 })
}

func TestCertificatesAndRootsAreReplacedWhileRequestsRun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	folders := map[string]string{"order": t.TempDir(), "gateway": t.TempDir()}
	order := open(t, s.authority, folders["order"], []string{"gateway"}, "order")
	gateway := open(t, s.authority, folders["gateway"], nil, "gateway")
	serving, err := order.Server()
	if err != nil {
		t.Fatal(err)
	}
	s.add("order-a", nil, func(h *httptest.Server) { h.TLS = serving.Clone() })
	s.add("order-b", nil, func(h *httptest.Server) { h.TLS = serving.Clone(); http1(h) })
	transport := s.transport(httpmesh.Config{TLS: gateway.Client, MaxConnAge: 20 * time.Millisecond, MaxRetries: -1})
	next := tlstest.New(t, "next")
	var rotating sync.WaitGroup
	rotating.Go(func() {
		// As one does it: both roots are believed first, then the certificates are
		// of the new one, then the old root goes.
		both, old := *next, *s.authority
		both.PEM = append(append([]byte{}, s.authority.PEM...), next.PEM...)
		old.PEM = both.PEM
		for _, signs := range []*tlstest.Authority{&old, &both, next} {
			for name, folder := range maps.All(folders) {
				signs.Write(folder, signs.Sign(time.Hour, name))
			}
			time.Sleep(500 * time.Millisecond)
		}
	})
	calls := storm(t, 4, 1600*time.Millisecond, func() error {
		if a := send(t, transport, post, "https://order/", strings.NewReader("x")); a.err != nil {
			return fmt.Errorf("%w (%s)", a.err, words(a.report))
		}
		return nil
	})
	rotating.Wait()
	resp := sendForTLS(t, transport)
	if issuer := resp.PeerCertificates[0].Issuer.CommonName; issuer != "next" {
		t.Errorf("after %d calls the certificate is still signed by %s; want next", calls, issuer)
	}
}

func sendForTLS(t *testing.T, transport http.RoundTripper) *tls.ConnectionState {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), get, "https://order/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.TLS
}

func TestRequestThatHTTP2CanNotSendIsItsCallersFault(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("order-a", nil)
	transport := s.transport(httpmesh.Config{})
	r, err := http.NewRequestWithContext(t.Context(), post, "https://order/", io.NopCloser(strings.NewReader("x")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Bad", "a\nb")
	var report httpmesh.Report
	body := &stream{text: strings.NewReader("x")}
	r.Body = body
	if _, err := transport.RoundTrip(r.WithContext(httpmesh.WithReport(t.Context(), &report))); err == nil || words(report) != "order-a caller_error, caller_error" {
		t.Errorf("got %v, %q; want caller_error", err, words(report))
	}
	body.wantClosedOnce(t)
	// What is about a connection is taken out, as RFC 9113 has it.
	r, err = http.NewRequestWithContext(t.Context(), get, "https://order/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Connection", "x-hop")
	r.Header.Set("Keep-Alive", "timeout=5")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
