package routing

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestRouteIsReadOrRefusedWithWhatIsWanted(t *testing.T) {
	long := "/" + strings.Repeat("a", maxPrefix-1)
	for _, tc := range []struct {
		text string
		want Route
		err  string // what the error has; empty: none
	}{
		{text: "/greet", want: Route{Prefix: "/greet"}},
		{text: "/", want: Route{Prefix: "/"}},
		{text: " /greet  strip ", want: Route{Prefix: "/greet", Rewrite: "/"}},
		{text: "/greet rewrite=/api/v2", want: Route{Prefix: "/greet", Rewrite: "/api/v2"}},
		{text: "api.example.com/v1", want: Route{Host: "api.example.com", Prefix: "/v1"}},
		{text: "/greeter.v1.Greeter", want: Route{Prefix: "/greeter.v1.Greeter"}},
		{text: long, want: Route{Prefix: long}},
		{text: long + "a", err: "want a path of 1 to 200 bytes"},
		{text: "", err: "want a prefix such as /greet"},
		{text: "/a strip rewrite=/b", err: "want a prefix such as /greet"},
		{text: "/a keep", err: "want nothing, strip or rewrite=/path"},
		{text: "/a rewrite=", err: "want nothing, strip or rewrite=/path"},
		{text: "/a rewrite=b", err: `the rewrite is "b"`},
		{text: "greet", err: "begins with a slash"},
		{text: "/a/", err: "no slash at the end"},
		{text: "/a//b", err: "no empty segment"},
		{text: "/a/../b", err: "no dots alone"},
		{text: "/a%2fb", err: "none of it %"},
		{text: "/ä", err: "printable ASCII"},
		{text: "/a?b", err: "none of it %?"},
		{text: "/*", err: "none of it %?"},
		{text: "API.example.com/v1", err: "in lower case"},
		{text: "api.example.com:8080/v1", err: "without a port"},
		{text: "300.1.1.1/v1", err: "want a host name"},
	} {
		got, err := ParseRoute(tc.text, "greeter")
		tc.want.Service = "greeter"
		if tc.err == "" && (err != nil || got != tc.want) {
			t.Errorf("%q: got %+v, %v; want %+v", tc.text, got, err, tc.want)
		}
		if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
			t.Errorf("%q: got %+v, %v; want an error with %q", tc.text, got, err, tc.err)
		}
	}
}

func TestPinnedRoutesAreReadFromASetting(t *testing.T) {
	got, err := ParsePinned("/users=user, api.example.com/v1=order strip ,/=web")
	want := []Route{{Prefix: "/users", Service: "user"}, {Host: "api.example.com", Prefix: "/v1", Service: "order", Rewrite: "/"}, {Prefix: "/", Service: "web"}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if got, err := ParsePinned("none"); err != nil || len(got) != 0 {
		t.Errorf("none: got %v, %v", got, err)
	}
	for text, want := range map[string]string{
		"": "prefix=service", "/users": "prefix=service", "/users=": "prefix=service", "users=user": "begins with a slash",
		"/users=us er": "want nothing, strip", "/users=a,/users=b": "/users is there twice", "/users=-": "service name", "/a=b,": "prefix=service",
	} {
		if _, err := ParsePinned(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v; want an error with %q", text, err, want)
		}
	}
}

func TestLongestPrefixOfWholeSegmentsWinsAndAHostGoesBeforeAny(t *testing.T) {
	long := "/" + strings.Repeat("a", maxPrefix-1)
	table := NewTable(
		Route{Prefix: "/a", Service: "a"}, Route{Prefix: "/a/b", Service: "ab"}, Route{Prefix: "/", Service: "root"},
		Route{Host: "api.example.com", Prefix: "/", Service: "api"}, Route{Host: "api.example.com", Prefix: "/v1", Service: "v1"},
		Route{Host: "v2.example.com", Prefix: "/v2", Service: "v2"}, Route{Prefix: long, Service: "long"},
	)
	for _, tc := range []struct{ host, path, want string }{
		{"x", "/a", "a"},
		{"x", "/a/", "a"},
		{"x", "/a/b", "ab"},
		{"x", "/a/b/c", "ab"},
		{"x", "/a/bc", "a"},
		{"x", "/ab", "root"},
		{"x", "/", "root"},
		{"x", "//", "root"},
		{"x", "/a%2fb", "root"},
		{"api.example.com", "/a/b", "api"},
		{"API.example.com.:8080", "/v1/x", "v1"},
		{"v2.example.com", "/a", "a"},
		{"v2.example.com", "/v2", "v2"},
		{"[::1]:80", "/a", "a"},
		{"x", long, "long"},
		{"x", long + "/" + strings.Repeat("/b", 9000), "long"},
		{"x", long + "b/c", "root"},
		{"x", "/a/b" + strings.Repeat("/c", 9000), "ab"},
	} {
		if got, ok := table.Find(tc.host, tc.path); !ok || got.Service != tc.want {
			t.Errorf("%s%.20s: got %+v; want %s", tc.host, tc.path, got, tc.want)
		}
	}
	for _, path := range []string{"", "*", "a"} {
		if got, ok := table.Find("x", path); ok {
			t.Errorf("%q: got %+v; want none", path, got)
		}
	}
	if _, ok := (*Table)(nil).Find("x", "/a"); ok {
		t.Error("no table has a route")
	}
}

func TestPathGoesToTheServiceAndComesBackFromIt(t *testing.T) {
	for _, tc := range []struct{ prefix, rewrite, outer, inner string }{
		{"/a", "", "/a/b?x=1", "/a/b?x=1"},
		{"/a", "/", "/a/b?x=1", "/b?x=1"},
		{"/a", "/", "/a/%2e%2e//x", "/%2e%2e//x"},
		{"/a", "/v1", "/a", "/v1"},
		{"/a", "/v1", "/a/b", "/v1/b"},
		{"/", "/v1", "/b", "/v1/b"},
		{"/", "", "/b", "/b"},
	} {
		r := Route{Prefix: tc.prefix, Rewrite: tc.rewrite, Service: "x"}
		if got := r.Inner(tc.outer); got != tc.inner {
			t.Errorf("%+v: %s goes in as %s; want %s", r, tc.outer, got, tc.inner)
		}
		if got, ok := r.Outer(tc.inner); !ok || got != tc.outer {
			t.Errorf("%+v: %s comes back as %s; want %s", r, tc.inner, got, tc.outer)
		}
	}
	if got := (Route{Prefix: "/a", Rewrite: "/"}).Inner("/a"); got != "/" {
		t.Errorf("the prefix alone goes in as %q; want /", got)
	}
	if got, ok := (Route{Prefix: "/a", Rewrite: "/v1"}).Outer("/v2/x"); ok {
		t.Errorf("what no client can ask for comes back as %s", got)
	}
}

func marked(id string, meta ...string) catalog.Instance {
	i := catalog.Instance{ID: id, Host: "127.0.0.1", Port: 80, Tags: []string{Tag}, Meta: map[string]string{}}
	for n, text := range meta {
		key := MetaKey
		if n > 0 {
			key += fmt.Sprint("-", n+1)
		}
		i.Meta[key] = text
	}
	return i
}

func snapshot(t *testing.T, instances ...catalog.Instance) *catalog.Snapshot {
	t.Helper()
	var source catalog.Fixed
	if err := source.Set("greeter", instances...); err != nil {
		t.Fatal(err)
	}
	s, err := source.Latest(t.Context(), "greeter")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServiceClaimsWhatAnyMarkedInstanceClaims(t *testing.T) {
	other := marked("d", "/d")
	other.Tags = nil
	c := claimsOf(snapshot(t, marked("a", "/a, /b strip", "/c"), marked("b", "/b, /e"), marked("c"), other, marked("f", "/a,nonsense")))
	want := "[{ /a greeter } { /b greeter /} { /c greeter } { /e greeter }]"
	if got := fmt.Sprint(c.routes); got != want || !c.marked || !c.any {
		t.Errorf("claims %s; want %s", got, want)
	}
	var said []string
	for _, r := range c.refused {
		said = append(said, r.Claim+": "+r.Why)
	}
	if all := strings.Join(said, "\n"); len(said) != 3 || !strings.Contains(all, "/b: instance b wants") ||
		!strings.Contains(all, "instance c has the tag") || !strings.Contains(all, "nonsense: ") {
		t.Errorf("refused %q; want b's other way, c's want of routes, and nonsense", said)
	}
}

func TestClaimsOfOneServiceAreBounded(t *testing.T) {
	var text []string
	for n := range maxClaims + 2 {
		text = append(text, fmt.Sprintf("/%03d", n))
	}
	c := claimsOf(snapshot(t, marked("a", strings.Join(text, ","))))
	if len(c.routes) != maxClaims || len(c.refused) != 2 || !strings.Contains(c.refused[0].Why, "at most 50 of a service") {
		t.Errorf("%d routes, refused %v; want %d and two that are too many", len(c.routes), c.refused, maxClaims)
	}
}

func FuzzRoute(f *testing.F) {
	for _, seed := range []string{"/a strip", "h/a rewrite=/b", "/", "/a/b"} {
		f.Add(seed, "/a/b/c", `{"/a":"b"}`)
	}
	f.Fuzz(func(t *testing.T, text, path, document string) {
		if owners, err := parseOwners([]byte(document)); err == nil {
			if again, err := parseOwners(writeOwners(owners)); err != nil || len(again) != len(owners) {
				t.Errorf("%q is not read as it was written: %v", document, err)
			}
		}
		r, err := ParseRoute(text, "x")
		if err != nil {
			return
		}
		table := NewTable(r)
		if found, ok := table.Find(r.Host, path); ok {
			inner := found.Inner(path)
			if inner == "" || inner[0] != '/' {
				t.Errorf("%+v: %q goes in as %q", r, path, inner)
			}
		}
		if _, ok := table.Find(r.Host, r.Prefix); !ok {
			t.Errorf("%+v does not find its own prefix", r)
		}
	})
}
