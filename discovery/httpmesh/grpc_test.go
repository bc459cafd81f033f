package httpmesh_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// rpcs are instances of order that speak gRPC, in the order in which they are asked.
type rpcs struct {
	t       *testing.T
	source  catalog.Fixed
	entries []catalog.Instance
}

func (s *rpcs) list(id string, at net.Addr, tags ...string) {
	s.t.Helper()
	host, port, _ := net.SplitHostPort(at.String())
	number, err := strconv.Atoi(port)
	if err != nil {
		s.t.Fatal(err)
	}
	s.entries = append(s.entries, catalog.Instance{ID: id, Host: host, Port: number, Tags: tags})
	if err := s.source.Set("order", s.entries...); err != nil {
		s.t.Fatal(err)
	}
}

// add starts an instance over HTTP/2 without TLS, and lists it.
func (s *rpcs) add(id string, handler http.HandlerFunc) *httptest.Server {
	s.t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	s.t.Cleanup(server.Close)
	s.list(id, server.Listener.Addr(), catalog.GRPC)
	return server
}

func (s *rpcs) transport(cfg httpmesh.Config) *httpmesh.Transport {
	s.t.Helper()
	cfg.Source, cfg.Policy, cfg.DialTimeout = &s.source, inOrder{}, 5*time.Second // a busy machine is no stall
	return newTransport(s.t, cfg)
}

// rpcAnswer is what came of a call.
type rpcAnswer struct {
	body, status string // as gRPC says it
	err          error
	report       httpmesh.Report
}

// call makes a call whose body, if it is no *strings.Reader, can be read once.
func call(ctx context.Context, t *testing.T, transport http.RoundTripper, url string, body io.Reader, header ...string) (a rpcAnswer) {
	t.Helper()
	r, err := http.NewRequestWithContext(httpmesh.WithReport(ctx, &a.report), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/grpc+proto")
	for n := 0; n < len(header); n += 2 {
		r.Header.Set(header[n], header[n+1])
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return rpcAnswer{err: err, report: a.report}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	a.body, a.err, a.status = string(text), err, resp.Header.Get("Grpc-Status")+resp.Trailer.Get("Grpc-Status")
	return a
}

// once is a body that can be read once.
func once(text string) io.Reader { return struct{ io.Reader }{strings.NewReader(text)} }

// ends answers a call, after a message if there is one.
func ends(w http.ResponseWriter, message, status string) {
	w.Header().Set("Content-Type", "application/grpc")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	_, _ = io.WriteString(w, message)
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
}

// rpcEcho answers with the message.
func rpcEcho(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	ends(w, string(body), "0")
}

func TestCallsGoOverHTTP2ToWhatSpeaksGRPC(t *testing.T) {
	t.Parallel()
	s := &rpcs{t: t}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	defer web.Close()
	s.list("order-web", web.Listener.Addr(), catalog.HTTP)
	var seen http.Header
	s.add("order-rpc", func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		ends(w, r.Proto, "0")
	})
	transport := newTransport(t, httpmesh.Config{
		Source: catalog.Select(&s.source, catalog.Selection{Protocol: catalog.HTTP}), GRPC: catalog.Select(&s.source, catalog.Selection{Protocol: catalog.GRPC}),
		MaxStreams: -1, // of HTTP alone
	})
	for range 5 {
		a := call(t.Context(), t, transport, "http://order/order.v1.Orders/Get", once("x"), "Grpc-Timeout", "2S")
		if a.body != "HTTP/2.0" || a.status != "0" || a.report.Counts.Known != 1 {
			t.Fatalf("by gRPC: %+v", a)
		}
		if left := seen.Get("Grpc-Timeout"); len(left) != 8 || left >= "2000000u" || left < "1000000u" || seen.Get("Rollcall-Timeout") != "" || seen.Get("Te") != "trailers" {
			t.Fatalf("the instance sees %v; want a little less than two seconds", seen)
		}
		if a := send(t, transport, get, "http://order/", nil); a.body != "HTTP/1.1" || a.report.Counts.Known != 1 {
			t.Fatalf("by HTTP: %+v", a)
		}
	}
	if n := len(transport.Balancers("order")); n != 2 {
		t.Errorf("%d balancers; want one for each protocol", n)
	}
}

func TestCallsGoOverTLSToWhatIsMarked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("order-0", rpcEcho, http1)
	s.add("order-a", rpcEcho)
	for n := range s.instances {
		s.instances[n].Tags = []string{catalog.GRPC}
	}
	if err := s.source.Set("order", s.instances...); err != nil {
		t.Fatal(err)
	}
	transport := s.transport(httpmesh.Config{})
	if a := call(t.Context(), t, transport, "https://order/x.Y/Z", once("hello")); a.body != "hello" || a.status != "0" || words(a.report) != "order-0 untrusted, order-a ok, ok" {
		t.Errorf("got %+v, %q; want the answer of the one that offers HTTP/2", a, words(a.report))
	}
	if a := call(t.Context(), t, transport, "http://order/x.Y/Z", once("hello")); words(a.report) != "wrong_scheme" {
		t.Errorf("got %v, %q; want wrong_scheme", a.err, words(a.report))
	}
}

func TestCallThatWasNotServedIsSentAgainWhole(t *testing.T) {
	t.Parallel()
	shed := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Retry-Pushback-Ms", "20")
		ends(w, "", "8")
	}
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", "14")
		// A google.rpc.Status with an ErrorInfo of domain rollcall and reason WRONG_SERVICE.
		w.Header().Set("Grpc-Status-Details-Bin", "CA4aRQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLkVycm9ySW5mbxIZCg1XUk9OR19TRVJWSUNFEghyb2xsY2FsbA==")
		w.WriteHeader(http.StatusOK)
	}
	never := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Retry-Pushback-Ms", "-1")
		ends(w, "", "14")
	}
	code := func(code string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); ends(w, "", code) }
	}
	cut := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		panic(http.ErrAbortHandler)
	}
	cutAfterHead := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		ends(w, "", "0")
		panic(http.ErrAbortHandler)
	}
	large := strings.Repeat("x", 65<<10)
	for name, c := range map[string]struct {
		odd    http.HandlerFunc
		body   string
		keyed  bool
		want   string
		status string
	}{
		"shed":                             {shed, "hello", false, "order-a overload, order-b ok, ok", "0"},
		"of another service":               {refuse, "hello", false, "order-a misdirected, order-b ok, ok", "0"},
		"shed, and too large to keep":      {shed, large, false, "order-a ok, ok", "8"},
		"unavailable":                      {code("14"), "hello", false, "order-a gateway, gateway", "14"},
		"unavailable, to be done twice":    {code("14"), "hello", true, "order-a gateway, order-b ok, ok", "0"},
		"unavailable, and never again":     {never, "hello", true, "order-a gateway, gateway", "14"},
		"internal":                         {code("13"), "hello", true, "order-a error, error", "13"},
		"not found":                        {code("5"), "hello", true, "order-a ok, ok", "5"},
		"broken":                           {cut, "hello", false, "order-a broken, broken", ""},
		"broken, to be done twice":         {cut, "hello", true, "order-a broken, order-b ok, ok", "0"},
		"broken after its header, as much": {cutAfterHead, "hello", true, "order-a broken, order-b ok, ok", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &rpcs{t: t}
			s.add("order-a", c.odd)
			s.add("order-b", rpcEcho)
			header := []string(nil)
			if c.keyed {
				header = []string{"Idempotency-Key", "1"}
			}
			a := call(t.Context(), t, s.transport(httpmesh.Config{}), "http://order/x.Y/Z", once(c.body), header...)
			if words(a.report) != c.want || a.status != c.status || a.status == "0" && a.body != c.body {
				t.Errorf("got %q, status %q, %d bytes, %v; want %q, status %q", words(a.report), a.status, len(a.body), a.err, c.want, c.status)
			}
		})
	}
}

func TestRefusedStreamAndGoAwayCostNoCall(t *testing.T) {
	t.Parallel()
	for name, asked := range map[string]func(c h2conn, stream uint32){
		"REFUSED_STREAM": func(c h2conn, stream uint32) {
			if stream == 1 {
				c.write(frameReset, 0, stream, 0, 0, 0, refuse)
				return
			}
			c.call(stream, "0")
		},
		"GOAWAY before it": func(c h2conn, stream uint32) {
			if c.number == 0 {
				c.goAway(0, 0)
				return
			}
			c.call(stream, "0")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &rpcs{t: t}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s.list("order-a", h2serve(t, l, asked), catalog.GRPC)
			transport := s.transport(httpmesh.Config{})
			for range 3 {
				if a := call(t.Context(), t, transport, "http://order/x.Y/Z", once("hello")); a.status != "0" {
					t.Fatalf("got %q, %v, %q", a.status, a.err, words(a.report))
				}
			}
		})
	}
}

func TestCallsShareConnectionsUpToTheBound(t *testing.T) {
	t.Parallel()
	s := &rpcs{t: t}
	var mu sync.Mutex
	from := map[string]bool{}
	var together sync.WaitGroup
	together.Add(10)
	s.add("order-a", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		together.Done()
		together.Wait()
		ends(w, "", "0")
	})
	transport := s.transport(httpmesh.Config{MaxStreams: 4})
	var calling sync.WaitGroup
	for range 10 {
		calling.Go(func() {
			if a := call(t.Context(), t, transport, "http://order/x.Y/Z", once("hello")); a.status != "0" {
				t.Errorf("got %v, %q", a.err, words(a.report))
			}
		})
	}
	calling.Wait()
	if len(from) != 3 {
		t.Errorf("%d connections for ten calls; want three of at most four each", len(from))
	}
}

func TestInstanceThatAnswersByAFailingStatusIsEjected(t *testing.T) {
	t.Parallel()
	for name, atOnce := range map[string]bool{"the header says it": true, "the trailer says it": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &rpcs{t: t}
			var asked atomic.Int64
			s.add("order-a", func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if atOnce {
					w.Header().Set("Content-Type", "application/grpc")
					w.Header().Set("Grpc-Status", "13")
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				ends(w, "", "13")
			})
			s.add("order-b", rpcEcho)
			transport := s.transport(httpmesh.Config{})
			for range 30 {
				call(t.Context(), t, transport, "http://order/x.Y/Z", once("hello"))
			}
			if n := asked.Load(); n > 10 {
				t.Errorf("the one that fails was asked %d times of 30; want it ejected", n)
			}
		})
	}
}

// A stream that is open goes on while it is looked at: neither its header nor what is
// sent waits for its end, and how it ends is its instance's health all the same.
func TestStreamThatFailsIsItsInstancesFailure(t *testing.T) {
	t.Parallel()
	s := &rpcs{t: t}
	var asked atomic.Int64
	s.add("order-a", func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/grpc")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "13")
	})
	s.add("order-b", func(w http.ResponseWriter, _ *http.Request) { ends(w, "", "0") })
	transport := s.transport(httpmesh.Config{})
	stream := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		body, feed := io.Pipe()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://order/x.Y/Z", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		go func() { _, _ = io.WriteString(feed, "first") }()
		resp, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		feed.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	for range 30 {
		stream()
	}
	if n := asked.Load(); n > 10 {
		t.Errorf("it was asked %d times of 30; want it out of use", n)
	}
}

func TestCallThatIsLeftAfterSilenceProvesNothingAndADeadlineDoes(t *testing.T) {
	t.Parallel()
	s := &rpcs{t: t}
	s.add("order-a", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() })
	transport := s.transport(httpmesh.Config{TryTimeout: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(150*time.Millisecond, cancel)
	if a := call(ctx, t, transport, "http://order/x.Y/Z", once("hello"), "Idempotency-Key", "1"); words(a.report) != "order-a canceled, canceled" {
		t.Errorf("canceled: %q", words(a.report))
	}
	ctx, cancel = context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if a := call(ctx, t, transport, "http://order/x.Y/Z", once("hello")); words(a.report) != "order-a silent, silent" {
		t.Errorf("too late: %q", words(a.report))
	}
}
