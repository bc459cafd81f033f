package web_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// A Connection list names what a proxy must not pass on.
// roundTrip is a RoundTripper made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestHeadersOfOurOwnSurviveAnyConnectionList(t *testing.T) {
	for _, list := range [][]string{
		{"X-Request-Id"},
		{"x-request-id"},
		{"close, X-Request-Id , X-Hop"},
		{"X-Hop", "X-Request-Id"},
		{",,X-REQUEST-ID,,"},
		{"Rollcall-Service, Rollcall-Anything, X-Request-Id"},
	} {
		var logged string
		var passed http.Header
		proxy := &httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) { logged = logging.RequestID(p.In.Context()) },
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				passed = r.Header
				return &http.Response{StatusCode: http.StatusNoContent, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
			}),
		}
		bubble(t, limits(), proxy, func(t *testing.T, r *rig) {
			req := r.request("/", nil, "X-Request-Id", "id-1", "X-Hop", "x", "Rollcall-Service", "order")
			req.Header["Connection"] = list
			resp, _ := r.do(req)
			if got := passed.Get("X-Request-Id"); got != "id-1" || logged != got || resp.Header.Get("X-Request-Id") != got {
				t.Errorf("%q: the ID is %q for the next service, %q in our log, %q for the client; want id-1", list, got, logged, resp.Header.Get("X-Request-Id"))
			}
			if passed.Get("Rollcall-Service") != "order" {
				t.Errorf("%q: the next service is not told which one is meant", list)
			}
			if hop := strings.Contains(strings.Join(list, ","), "X-Hop"); hop == (passed.Get("X-Hop") == "x") {
				t.Errorf("%q: X-Hop is passed on as %q", list, passed.Get("X-Hop"))
			}
		})
	}
}

// tells gives every kind of answer there is, each with a header of ours.
func tells(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	set := func() {
		h.Set(httpmesh.ReasonHeader, httpmesh.ReasonOverload)
		h.Set(httpmesh.ServiceHeader, "order")
		h.Set("Link", "</style.css>; rel=preload")
	}
	set()
	w.WriteHeader(http.StatusEarlyHints)
	clear(h) // as httputil.ReverseProxy does
	set()
	h.Set("Trailer", "X-Sum, Rollcall-Sum")
	if r.URL.Path == "/503" {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprint(w, "hello")
	h.Set("X-Sum", "42")
	h.Set("Rollcall-Sum", "42")
	h.Set(http.TrailerPrefix+"Rollcall-Late", "42")
}

func TestNoHeaderOfOurOwnLeavesTheMesh(t *testing.T) {
	for _, edge := range []bool{true, false} {
		for _, h2 := range []bool{false, true} {
			bubbleOf(t, web.Config{Limits: limits(), Edge: edge}, http.HandlerFunc(tells), func(t *testing.T, r *rig) {
				if h2 {
					r.h2c()
				}
				for _, path := range []string{"/", "/503"} {
					var hints textproto.MIMEHeader
					req := r.request(path, nil)
					req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
						Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { hints = h; return nil },
					}))
					resp, err := r.client.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					for name, h := range map[string]map[string][]string{"the hints": hints, "the answer": resp.Header, "the trailer": resp.Trailer} {
						told := strings.Contains(fmt.Sprint(h), "Rollcall-")
						if told == edge {
							t.Errorf("edge %v, HTTP/2 %v, %s: %s tells %v", edge, h2, path, name, h)
						}
					}
					if http.Header(hints).Get("Link") == "" || resp.Trailer.Get("X-Sum") != "42" {
						t.Errorf("the hints are %v, the trailer is %v; want what is not ours", hints, resp.Trailer)
					}
				}
			})
		}
	}
}

func TestRefusalOverTheLimitTellsItsReasonInsideTheMeshOnly(t *testing.T) {
	l := limits()
	l.MaxConnections = 0
	for _, edge := range []bool{true, false} {
		bubbleOf(t, web.Config{Limits: l, Edge: edge}, hello, func(t *testing.T, r *rig) {
			resp, body := r.get("/")
			r.problem(resp, body, http.StatusServiceUnavailable)
			if told := strings.Contains(fmt.Sprint(resp.Header), "Rollcall-"); told == edge {
				t.Errorf("edge %v: the refusal's header is %v", edge, resp.Header)
			}
			if resp.Header.Get("Retry-After") != "1" {
				t.Errorf("edge %v: Retry-After is %q; want 1", edge, resp.Header.Get("Retry-After"))
			}
		})
	}
}
