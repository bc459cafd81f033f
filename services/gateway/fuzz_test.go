package gateway

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// roundTrip is a function as an http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzRequest sends whatever Go's server takes for a request through the door.
// What arrives behind it has one origin, the client's true address, and none of
// the words that services say to each other.
func FuzzRequest(f *testing.F) {
	for _, raw := range []string{
		"GET /users/1 HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nIdempotency-Key: \"k\"\r\n\r\n{}",
		"GET /orders/%2e%2e/users?a;b=%zz HTTP/1.1\r\nHost: a\"b\\c\r\nRollcall-Service: user\r\nROLLCALL-TIMEOUT: 1\r\n\r\n",
		"GET http://order/users/1 HTTP/1.0\r\nForwarded: for=1.1.1.1\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: X-Request-Id, Host\r\n\r\n",
		"POST /orders/1 HTTP/1.1\r\nHost:\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\nTrailer: Rollcall-Service\r\n\r\n1\r\nx\r\n0\r\nRollcall-Service: user\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /users/1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		in, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return // never gets as far as us
		}
		in.RemoteAddr = "192.0.2.1:5000"
		var out *http.Request
		g, err := New(Config{Log: slog.New(slog.DiscardHandler), Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			out = r
			if r.Body != nil {
				_, _ = io.Copy(io.Discard, r.Body)
				_ = r.Body.Close()
			}
			return &http.Response{
				StatusCode: http.StatusOK, Request: r, ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody,
				Header: http.Header{"Rollcall-Reason": {"overload"}, ServedByHeader: {"a liar"}},
			}, nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		g.Handler(Route{Prefix: "/users", Service: "user"}, Route{Prefix: "/orders", Service: "order"}).ServeHTTP(w, in)
		if out == nil {
			if w.Code < 400 {
				t.Errorf("got %d without anybody behind being asked", w.Code)
			}
			return
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Rollcall-") || name == ServedByHeader {
				t.Errorf("the client is told %s: %v", name, w.Header()[name])
			}
		}
		if want := map[string]string{"/users": "user", "/orders": "order"}; want["/"+out.URL.Host+"s"] != out.URL.Host || out.URL.Scheme != "http" || out.URL.User != nil {
			t.Errorf("%s goes to %s", in.RequestURI, out.URL)
		}
		if path := in.URL.EscapedPath(); out.URL.EscapedPath() != path || out.Method != in.Method {
			t.Errorf("%s %s goes on as %s %s", in.Method, path, out.Method, out.URL.EscapedPath())
		}
		for name, values := range out.Header {
			if strings.HasPrefix(strings.ToLower(name), "rollcall-") && name != httpmesh.TimeoutHeader || name == ServedByHeader {
				t.Errorf("the service is told %s: %v", name, values)
			}
		}
		if from := out.Header["X-Forwarded-For"]; len(from) != 1 || from[0] != "192.0.2.1" {
			t.Errorf("X-Forwarded-For is %v; want the client's address alone", from)
		}
		checkForwarded(t, out.Header["Forwarded"], in.Host)
	})
}

// checkForwarded reads the header as RFC 7239, section 4, has it.
func checkForwarded(t *testing.T, values []string, host string) {
	t.Helper()
	if len(values) != 1 {
		t.Fatalf("Forwarded is %q; want one", values)
	}
	rest, ok := strings.CutPrefix(values[0], `for=192.0.2.1;host="`)
	if !ok {
		t.Fatalf("Forwarded is %q; want the client's address first", values[0])
	}
	var said strings.Builder
	for n := 0; n < len(rest); n++ {
		switch rest[n] {
		case '\\':
			if n++; n < len(rest) {
				said.WriteByte(rest[n])
			}
			continue
		case '"':
			if said.String() != host || rest[n:] != `";proto=http` {
				t.Errorf("Forwarded is %q; want the host %q and nothing that is not ours", values[0], host)
			}
			return
		}
		said.WriteByte(rest[n])
	}
	t.Errorf("Forwarded is %q: its host does not end", values[0])
}
