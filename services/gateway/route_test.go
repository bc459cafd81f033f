package gateway_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/gateway"
)

func TestLearnedRoutesAreServedBehindThePinnedOnes(t *testing.T) {
	t.Parallel()
	d := open(t, options{learned: []gateway.Route{
		{Prefix: "/greet", Service: "greeter"},
		{Prefix: "/strip", Service: "greeter", Rewrite: "/"},
		{Prefix: "/v1", Service: "greeter", Rewrite: "/api"},
		{Prefix: "/users/admin", Service: "thief"},
		{Prefix: "/away", Service: "nobody"},
	}})
	echo := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.RequestURI, r.Header.Get("X-Forwarded-Prefix"))
	}
	d.serve("greeter", "greeter-1", echo)
	d.serve("user", "user-1", echo)
	for target, want := range map[string]string{
		"/greet/1":         "/greet/1 ",
		"/strip":           "/ /strip",
		"/strip/a%2fb?x=1": "/a%2fb?x=1 /strip",
		"/strip//a":        "//a /strip",
		"/strip/%2e%2e/a":  "/%2e%2e/a /strip",
		"/v1/x":            "/api/x /v1",
		"/users/admin":     "/users/admin ",
	} {
		resp, body := d.do(d.request(http.MethodGet, target, nil))
		if resp.StatusCode != http.StatusOK || body != want {
			t.Errorf("%s: got %s %q; want %q", target, resp.Status, body, want)
		}
	}
	for target, want := range map[string]int{"/away/1": http.StatusServiceUnavailable, "/greeter": http.StatusNotFound} {
		resp, body := d.do(d.request(http.MethodGet, target, nil))
		if resp.StatusCode != want || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %s %s; want a problem with %d", target, resp.Status, body, want)
		}
	}
}

func TestReferenceWithTheNameOfAServiceLeadsToTheOutside(t *testing.T) {
	t.Parallel()
	d := open(t, options{proxies: "127.0.0.0/8", learned: []gateway.Route{
		{Prefix: "/strip", Service: "greeter", Rewrite: "/"},
		{Prefix: "/v1", Service: "greeter", Rewrite: "/api"},
	}})
	answer := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.Header.Get("Want"))
		w.Header().Set("Content-Location", r.Header.Get("Want"))
		w.WriteHeader(http.StatusFound)
	}
	d.serve("greeter", "greeter-1", answer)
	d.serve("order", "order-1", answer)
	for _, tc := range []struct{ target, says, want string }{
		{"/orders/1", "http://order/orders/1?x=1#y", "https://shop.example/orders/1?x=1#y"},
		{"/orders/1", "https://order:8080/orders/1", "https://shop.example/orders/1"},
		{"/orders/1", "//ORDER/orders/%2f", "https://shop.example/orders/%2f"},
		{"/orders/1", "http://user/users/1", "https://shop.example/users/1"},
		{"/orders/1", "http://greeter/api/1", "https://shop.example/strip/api/1"},
		{"/orders/1", "http://order/elsewhere", "http://order/elsewhere"},
		{"/orders/1", "/orders/2", "/orders/2"},
		{"/orders/1", "../x", "../x"},
		{"/orders/1", "https://example.com/orders/1", "https://example.com/orders/1"},
		{"/orders/1", "mailto:order", "mailto:order"},
		{"/orders/1", "http://a:b@order/orders/1", "http://a:b@order/orders/1"},
		{"/strip/1", "/login?next=1", "/strip/login?next=1"},
		{"/strip/1", "/strip/login", "/strip/login"},
		{"/strip/1", "http://greeter", "https://shop.example/strip/"},
		{"/v1/1", "/api/2", "/v1/2"},
		{"/v1/1", "http://greeter/api/2", "https://shop.example/v1/2"},
		{"/v1/1", "/other", "/other"},
	} {
		resp, _ := d.do(d.request(http.MethodGet, tc.target, nil, "Want", tc.says,
			"X-Forwarded-For", "192.0.2.1", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example"))
		for _, name := range []string{"Location", "Content-Location"} {
			if got := resp.Header.Get(name); got != tc.want {
				t.Errorf("%s at %s: %s is %q; want %q", tc.says, tc.target, name, got, tc.want)
			}
		}
	}
}

func TestTrustedProxyIsBelievedAndWhatAClientHasMadeUpIsNot(t *testing.T) {
	t.Parallel()
	all := []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Forwarded-Port"}
	for _, tc := range []struct {
		name, proxies, headers string
		sent                   []string // in the order of all, "" for none
		want                   []string // %s is the host asked for
	}{
		{
			"nobody is trusted", "", "",
			[]string{"192.0.2.1", "https", "shop.example", "for=192.0.2.1;proto=https", "443"},
			[]string{"127.0.0.1", "http", "%s", `for=127.0.0.1;host="%s";proto=http`, ""},
		},
		{
			"a stranger", "10.0.0.0/8", "",
			[]string{"192.0.2.1", "https", "shop.example"},
			[]string{"127.0.0.1", "http", "%s", `for=127.0.0.1;host="%s";proto=http`, ""},
		},
		{
			"a balancer", "127.0.0.0/8", "",
			[]string{"192.0.2.1", "https", "shop.example", "for=6.6.6.6;proto=gopher", "443"},
			[]string{"192.0.2.1, 127.0.0.1", "https", "shop.example", `for=192.0.2.1;host="shop.example";proto=https, for=127.0.0.1`, ""},
		},
		{
			"what stands before the client is dropped", "127.0.0.0/8", "",
			[]string{"6.6.6.6, 192.0.2.1, 127.0.0.9", "http, https, http", ""},
			[]string{"192.0.2.1, 127.0.0.9, 127.0.0.1", "https", "%s", `for=192.0.2.1;host="%s";proto=https, for=127.0.0.9, for=127.0.0.1`, ""},
		},
		{
			"nonsense ends what is believed", "127.0.0.0/8", "",
			[]string{"192.0.2.1, nonsense", "https", "a/b"},
			[]string{"127.0.0.1", "http", "%s", `for=127.0.0.1;host="%s";proto=http`, ""},
		},
		{
			"a scheme and a host that can't be", "127.0.0.0/8", "",
			[]string{"[2001:db8::1]:5000", "gopher", "a/b"},
			[]string{"2001:db8::1, 127.0.0.1", "http", "%s", `for="[2001:db8::1]";host="%s";proto=http, for=127.0.0.1`, ""},
		},
		{
			"one that writes Forwarded", "127.0.0.0/8", "forwarded",
			[]string{"6.6.6.6", "http", "evil", `for=6.6.6.6, for="[2001:db8::1]:80";proto=HTTPS;host="shop.example:1"`, ""},
			[]string{"2001:db8::1, 127.0.0.1", "https", "shop.example:1", `for="[2001:db8::1]";host="shop.example:1";proto=https, for=127.0.0.1`, ""},
		},
		{
			"a Forwarded that is malformed", "127.0.0.0/8", "forwarded",
			[]string{"", "", "", `for="192.0.2.1;proto=https`, ""},
			[]string{"127.0.0.1", "http", "%s", `for=127.0.0.1;host="%s";proto=http`, ""},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := open(t, options{proxies: tc.proxies, headers: tc.headers})
			seen := make(chan http.Header, 1)
			d.serve("user", "user-1", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
			var header []string
			for n, value := range tc.sent {
				if value != "" {
					header = append(header, all[n], value)
				}
			}
			d.do(d.request(http.MethodGet, "/users/1", nil, header...))
			got := <-seen
			for n, want := range tc.want {
				want = strings.ReplaceAll(want, "%s", strings.TrimPrefix(d.url, "http://"))
				if have := strings.Join(got.Values(all[n]), "|"); have != want {
					t.Errorf("%s is %q; want %q", all[n], have, want)
				}
			}
		})
	}
}
