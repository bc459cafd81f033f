package httpmesh_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// BenchmarkRoundTrip shows what the mesh adds to a request: compare mesh with
// plain, an http.Transport that is given the address.
func BenchmarkRoundTrip(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	var source catalog.Fixed
	listed(b, &source, server, server, server)
	mesh := newTransport(b, httpmesh.Config{Source: &source, Policy: balancer.P2C{}})
	untimed := newTransport(b, httpmesh.Config{Source: &source, TryTimeout: -1})
	plain := &http.Transport{DisableCompression: true}
	defer plain.CloseIdleConnections()
	secure, secure1 := newSite(b), newSite(b)
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }
	for n := range 3 {
		secure.add(fmt.Sprint("order-", n), ok)
		secure1.add(fmt.Sprint("order-", n), ok, http1)
	}
	h2, h1 := secure.transport(httpmesh.Config{Policy: balancer.P2C{}}), secure1.transport(httpmesh.Config{Policy: balancer.P2C{}})
	for _, c := range []struct {
		name, url string
		transport http.RoundTripper
	}{{"plain", server.URL, plain}, {"mesh", "http://order/", mesh}, {"mesh https HTTP1", "https://order/", h1}, {"mesh https HTTP2", "https://order/", h2}, {"mesh without TryTimeout", "http://order/", untimed}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), "GET", c.url, nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := c.transport.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}

// BenchmarkRedial shows what a connection costs that was closed while it was idle:
// what a short IdleTimeout pays for each request that comes after it.
func BenchmarkRedial(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	var source catalog.Fixed
	listed(b, &source, server)
	for _, name := range []string{"kept", "dialled anew"} {
		b.Run(name, func(b *testing.B) {
			mesh := newTransport(b, httpmesh.Config{Source: &source})
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), "GET", "http://order/", nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := mesh.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if name != "kept" {
					mesh.CloseIdleConnections()
				}
			}
		})
	}
}
