//go:build unix

package gateway_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/services/gateway"
)

// BenchmarkGatewayBesideABareReverseProxy sends the same requests over TCP
// through a gateway and through a httputil.ReverseProxy with nothing set. The
// client and the service are in the figures of both: what differs is the
// gateway's.
func BenchmarkGatewayBesideABareReverseProxy(b *testing.B) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"id":1,"name":"Alice"}`)
	}))
	b.Cleanup(service.Close)

	at := netip.MustParseAddrPort(service.Listener.Addr().String())
	fleet := &catalog.Fixed{}
	if err := fleet.Set("user", catalog.Instance{ID: "user-1", Host: at.Addr().String(), Port: int(at.Port())}); err != nil {
		b.Fatal(err)
	}
	mesh, err := discovery.Open(b.Context(), discovery.Config{Source: fleet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = mesh.Close() })
	door, err := gateway.New(gateway.Config{Transport: mesh.RoundTripper(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	target := &url.URL{Scheme: "http", Host: service.Listener.Addr().String()}
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	b.Cleanup(transport.CloseIdleConnections)

	for _, proxy := range []struct {
		name    string
		handler http.Handler
	}{
		{"bare", &httputil.ReverseProxy{Transport: transport, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}},
		{"gateway", door.Handler(gateway.Route{Prefix: "/users", Service: "user"})},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			b.Run(proxy.name+"/"+method, func(b *testing.B) { flood(b, proxy.handler, method) })
		}
	}
}

// flood asks as many at once as there are processors, and tells how many
// requests a second of the processors' time was enough for.
func flood(b *testing.B, h http.Handler, method string) {
	server := httptest.NewServer(h)
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	b.ReportAllocs()
	used := processorTime(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			var body io.Reader
			if method == http.MethodPost {
				body = strings.NewReader(`{"name":"Dave"}`)
			}
			r, err := http.NewRequestWithContext(b.Context(), method, server.URL+"/users/1", body)
			if err != nil {
				b.Error(err)
				return
			}
			resp, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			if n, err := io.Copy(io.Discard, resp.Body); n == 0 || err != nil || resp.StatusCode != http.StatusOK {
				b.Errorf("got %s, %d bytes, %v; want the service's answer", resp.Status, n, err)
			}
			_ = resp.Body.Close()
		}
	})
	b.ReportMetric(float64(b.N)/(processorTime(b)-used).Seconds(), "requests/CPU-s")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
