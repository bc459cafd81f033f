package httpmesh_test

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// world is a server that stands at every address, for http and for https.
func world(t *testing.T, outside ...string) (*httpmesh.Transport, func() *http.Request) {
	t.Helper()
	var last *http.Request
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		_, _ = io.WriteString(w, r.Host)
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	transport := newTransport(t, httpmesh.Config{Source: new(catalog.Fixed), Outside: outside}.WithDial(func(ctx context.Context, network, addr string) (net.Conn, error) {
		to := plain.Listener.Addr().String()
		if strings.HasSuffix(addr, "443") {
			to = secure.Listener.Addr().String()
		}
		return new(net.Dialer).DialContext(ctx, network, to)
	}))
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	if len(outside) > 0 {
		transport.TrustOutside(roots)
	}
	return transport, func() *http.Request { return last }
}

func TestHostsOutsideTheMeshAreCalledOnlyWhereTheyAreListed(t *testing.T) {
	const everything = "https://example.com/ http://example.com:81/ http://www.example.com/ http://localhost:80/ http://10.0.0.1/ http://[::1]:80/"
	for _, c := range []struct{ outside, sent string }{
		{"", ""},
		{"Example.com", "https://example.com/ http://example.com:81/"},
		{"*.example.com", "http://www.example.com/"},
		{"10.0.0.1 ::1 localhost", "http://localhost:80/ http://10.0.0.1/ http://[::1]:80/"},
		{"*", everything},
	} {
		transport, _ := world(t, strings.Fields(c.outside)...)
		var got []string
		for url := range strings.FieldsSeq(everything) {
			a := send(t, transport, http.MethodGet, url, nil)
			switch {
			case a.err == nil:
				got = append(got, url)
			case !strings.Contains(a.err.Error(), "want "):
				t.Errorf("%s: %v; want it sent, or refused with what is wanted", url, a.err)
			}
		}
		if strings.Join(got, " ") != c.sent {
			t.Errorf("with %q: sent to %v; want %s", c.outside, got, c.sent)
		}
		if a := send(t, transport, http.MethodGet, "http://order/", nil); !errors.Is(a.err, catalog.ErrNoInstance) {
			t.Errorf("with %q a service: got %v; want it looked for in the mesh", c.outside, a.err)
		}
	}
}

func TestNothingOfOursLeavesTheMesh(t *testing.T) {
	transport, last := world(t, "*")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{httpmesh.TimeoutHeader: {"1s"}, httpmesh.ServiceHeader: {"order"}, "X-Request-Id": {"7"}}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := last(); got.Header.Get("X-Request-Id") != "7" || got.Header.Get(httpmesh.TimeoutHeader) != "" || got.Header.Get(httpmesh.ServiceHeader) != "" {
		t.Errorf("got headers %v; want the caller's and none of ours", got.Header)
	}
	if len(r.Header) != 3 || resp.Request != r {
		t.Error("the caller's request was changed")
	}
}

func TestShutdownWaitsForAnswersFromOutside(t *testing.T) {
	transport, _ := world(t, "*")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://example.com/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := transport.Shutdown(ended); err == nil || !strings.Contains(err.Error(), "1 requests are still in flight") {
		t.Errorf("got %v; want the request in flight counted", err)
	}
	if _, err := transport.RoundTrip(r); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("got %v; want ErrClosed", err)
	}
	_ = resp.Body.Close()
	_ = resp.Body.Close()
	if err := transport.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestListOfHostsOutsideIsChecked(t *testing.T) {
	for _, h := range []string{"", "https://example.com", "example.com:443", "*.", "a*.b", "user@x", "a b"} {
		_, err := httpmesh.New(httpmesh.Config{Source: new(catalog.Fixed), Outside: []string{"*", h}})
		if err == nil || !strings.Contains(err.Error(), "Outside[1] is \""+h) {
			t.Errorf("%q: got %v; want it named", h, err)
		}
	}
}
