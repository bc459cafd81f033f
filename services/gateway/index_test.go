package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/gateway"
)

func TestRootSaysWhatIsThere(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: []gateway.Route{
		{Prefix: "/greet", Service: "greeter"}, {Host: "other.example", Prefix: "/secret", Service: "other"}, {Prefix: "/users/more", Service: "user"},
	}})
	for accept, want := range map[string][2]string{
		"":    {"application/json", `{"routes":["/greet","/orders","/users","/users/more"]}`},
		"*/*": {"application/json", `"/greet"`},
		"text/html,application/xhtml+xml,*/*;q=0.8": {"text/html; charset=utf-8", `<a href="/greet">/greet</a>`},
	} {
		resp, body := d.do(d.request(http.MethodGet, "/", nil, "Accept", accept))
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != want[0] || !strings.Contains(body, want[1]) || strings.Contains(body, "greeter") || strings.Contains(body, "secret") {
			t.Errorf("Accept %q: %s %s %s; want %s with %s, no service's name and no other host's route", accept, resp.Status, resp.Header.Get("Content-Type"), body, want[0], want[1])
		}
		if resp.Header.Get("Vary") != "Accept" || resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("Accept %q: the header is %v", accept, resp.Header)
		}
	}
	if resp, _ := d.do(d.request(http.MethodHead, "/", nil)); resp.StatusCode != http.StatusOK {
		t.Errorf("HEAD /: %s; want 200", resp.Status)
	}
	for _, c := range []struct{ method, target string }{{http.MethodPost, "/"}, {http.MethodGet, "//"}, {http.MethodGet, "/%2e"}, {http.MethodGet, "/index.html"}} {
		if resp, body := d.do(d.request(c.method, c.target, nil)); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s %s: %s %s; want 404", c.method, c.target, resp.Status, body)
		}
	}
}

func TestRouteOfTheRootGoesBeforeThePageThere(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: []gateway.Route{{Prefix: "/", Service: "greeter"}}})
	d.serve("greeter", "greeter-1", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) })
	if resp, body := d.do(d.request(http.MethodGet, "/", nil, "Accept", "text/html")); body != "hello" {
		t.Errorf("%s %s; want the service's answer", resp.Status, body)
	}
}
