package httpmesh_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// FuzzTimeoutHeader: what the sender says about its patience is a deadline
// within a day, or a 400 that names the header.
func FuzzTimeoutHeader(f *testing.F) {
	for _, said := range []string{"1", "86400000", "86400001", "0", "-1", "+1", "1.5", "1e3", "01", " 1", "1 ", "1s", "", "९", "18446744073709551616", "1, 2"} {
		f.Add(said, false)
	}
	f.Add("1", true)
	f.Fuzz(func(t *testing.T, said string, twice bool) {
		var left time.Duration
		served, bounded := false, false
		h := httpmesh.Deadline(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			served = true
			var by time.Time
			if by, bounded = r.Context().Deadline(); bounded {
				left = time.Until(by)
			}
		}))
		r := httptest.NewRequest(http.MethodGet, "/", nil).WithContext(t.Context())
		r.Header.Add(httpmesh.TimeoutHeader, said)
		if twice {
			r.Header.Add(httpmesh.TimeoutHeader, said)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		ms, err := strconv.ParseUint(said, 10, 64)
		digits := said != "" && strings.Trim(said, "0123456789") == ""
		fits := !twice && digits && err == nil && ms >= 1 && ms <= 86400000
		switch {
		case !fits && (served || w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), httpmesh.TimeoutHeader)):
			t.Errorf("%q (twice: %t): served %t, %d %s; want a 400 that names the header", said, twice, served, w.Code, w.Body)
		case fits && (!served || !bounded || left > time.Duration(ms)*time.Millisecond):
			t.Errorf("%q: served %t, bounded %t, %v left; want at most that many milliseconds", said, served, bounded, left)
		}
	})
}

// FuzzServiceHeader: a request is served if it is meant for this service or for
// nobody in particular, and refused with valid JSON else.
func FuzzServiceHeader(f *testing.F) {
	for _, meant := range []string{"order", "ORDER", "user", "", "order ", "örder", "\x00", "order,user", "oſrder"} {
		f.Add(meant)
	}
	f.Fuzz(func(t *testing.T, meant string) {
		served := false
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header[httpmesh.ServiceHeader] = []string{meant}
		httpmesh.RequireService("order", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served = true })).ServeHTTP(w, r)
		if served != strings.EqualFold(meant, "order") {
			t.Errorf("meant for %q: served %t", meant, served)
		}
		if !served && (w.Code != http.StatusMisdirectedRequest || !strings.HasPrefix(w.Body.String(), "{") || w.Body.Len() > 2000) {
			t.Errorf("meant for %q: got %d and %d bytes; want a short problem with 421", meant, w.Code, w.Body.Len())
		}
	})
}

// FuzzURL: a URL is refused, or goes to a service of that very name: never to a
// port, a user or another scheme, and never a panic.
func FuzzURL(f *testing.F) {
	for _, raw := range []string{"http://order/orders/1", "http://order:80/", "https://order/", "http://u:p@order/", "http:///x", "http://[::1]/", "http://order%2f/", "//order/", "http://ORDER/", "http://a b/", "http://order?x#y", "http:order"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil {
			return
		}
		fleet := newFleet(t)
		transport := fleet.transport(httpmesh.Config{MaxRetries: -1})
		var report httpmesh.Report
		r := &http.Request{Method: http.MethodGet, URL: u, Header: http.Header{}}
		resp, err := transport.RoundTrip(r.WithContext(httpmesh.WithReport(t.Context(), &report)))
		if err == nil {
			resp.Body.Close()
			t.Fatalf("%q was answered %s by nobody", raw, resp.Status)
		}
		plain := (u.Scheme == "http" || u.Scheme == "https") && u.User == nil && u.Host != "" && u.Host == u.Hostname() && !strings.ContainsAny(u.Host, "[]:")
		if asked := report.Outcome == outcome.NoInstance; asked != plain || asked && report.Service != u.Host {
			t.Errorf("%q: %v, outcome %q, service %q; want the service %q asked for: %t", raw, err, report.Outcome, report.Service, u.Host, plain)
		}
	})
}
