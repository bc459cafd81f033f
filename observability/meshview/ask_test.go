package meshview

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// told is a Mesh that says what a test wants.
type told discovery.Status

func (s told) Status() discovery.Status { return discovery.Status(s) }

func (told) FollowCatalog(ctx context.Context, heard func(map[string][]catalog.Entry, error)) error {
	heard(map[string][]catalog.Entry{"order": {
		{Instance: catalog.Instance{ID: "rpc", Service: "order", Host: "10.0.0.9", Port: 82, Tags: []string{"grpc"}, State: catalog.StatePassing}},
	}}, nil)
	<-ctx.Done()
	return context.Cause(ctx)
}

// asking returns a view of a mesh with this set of order.
func asking(t *testing.T, s discovery.ServiceStatus, some ...func(*Config)) *View {
	t.Helper()
	now := time.Now()
	s.Service, s.Proven = "order", now.Add(-3*time.Second)
	cfg := Config{Mesh: told{At: now, Services: []discovery.ServiceStatus{s}}, Log: quiet(), Route: func(host, path string) (Route, bool) {
		inner, ok := strings.CutPrefix(path, "/shop")
		return Route{Service: "order", Path: inner, Rule: host + "/shop strip"}, ok
	}}
	for _, change := range some {
		change(&cfg)
	}
	v, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func explained(t *testing.T, v *View, query string) explanation {
	t.Helper()
	w := ask(t, v, http.MethodGet, "/mesh/ask?"+query, "")
	var x explanation
	if err := json.Unmarshal(w.Body.Bytes(), &x); err != nil || w.Code != http.StatusOK {
		t.Fatalf("GET /mesh/ask?%s: %d %s", query, w.Code, w.Body)
	}
	return x
}

func TestExplanationSaysOfEachInstanceWhenItIsAskedAndWhy(t *testing.T) {
	now := time.Now()
	v := asking(t, discovery.ServiceStatus{Ready: 6, Instances: []discovery.InstanceStatus{
		{ID: "critical", Addr: "10.0.0.1:80", State: catalog.StateCritical, Reason: "no disk"},
		{ID: "draining", Addr: "10.0.0.2:80", State: catalog.StateDraining},
		{ID: "maintained", Addr: "10.0.0.3:80", State: catalog.StateMaintenance, Reason: "a new disk"},
		{ID: "deselected", Addr: "10.0.0.4:80", State: catalog.StatePassing, Deselected: true},
		{ID: "ejected", Addr: "10.0.0.5:80", State: catalog.StatePassing, Health: "ejected", Ejected: &discovery.EjectionStatus{Until: now.Add(5 * time.Second), Reason: "errors"}},
		{ID: "suspect", Addr: "10.0.0.6:80", State: catalog.StatePassing, Health: "suspect"},
		{ID: "reserve", Addr: "10.0.0.7:80", State: catalog.StatePassing, Reserve: true},
		{ID: "missing", Addr: "10.0.0.8:80", State: catalog.StatePassing, MissingUntil: now.Add(time.Second)},
		{ID: "rpc", Addr: "10.0.0.9:82", State: catalog.StatePassing},
		{ID: "trial", Addr: "10.0.0.10:80", State: catalog.StatePassing, Health: "on trial"},
		{ID: "good", Addr: "10.0.0.11:80", State: catalog.StateWarning, Weight: 3, InFlight: 2},
	}})
	x := explained(t, v, "q=order")
	var got [][3]string
	for _, c := range x.Choices {
		got = append(got, [3]string{c.ID, c.Turn, c.Why})
	}
	want := [][3]string{
		{"missing", "first", "the catalog lacks it, and it is still used for a while"},
		{"trial", "first", "it is on trial: one request at a time"},
		{"good", "first", "it is as good as any"},
		{"suspect", "after", "it has just failed a request, or lets a connection wait"},
		{"reserve", "after", "it is of another datacenter"},
		{"critical", "last", "a check fails: no disk"},
		{"ejected", "last", "it is out of use for 5s more: errors"},
		{"draining", "never", "it is draining: it said that it leaves"},
		{"maintained", "never", "an operator has it in maintenance: a new disk"},
		{"deselected", "never", "this process's selection leaves it out"},
		{"rpc", "never", "it speaks gRPC: calls of gRPC go to it"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	words := []string{
		"Of its 11 instances 3 are asked first: of two that are drawn by weight, the one that is expected to answer sooner.",
		"4 more are asked only when those have failed the request.",
		"Consul last confirmed this set 3s ago.",
	}
	if diff := cmp.Diff(words, x.Words); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if c := x.Choices[2]; !x.Known || x.Try || c.Weight != 3 || c.Load != 2 {
		t.Errorf("got %+v; want good with weight 3 and two requests in flight, and nothing to try", x)
	}
}

func TestExplanationOfAPathNamesTheRoute(t *testing.T) {
	v := asking(t, discovery.ServiceStatus{Ready: 1, Instances: []discovery.InstanceStatus{{ID: "a", Addr: "10.0.0.1:80", State: catalog.StatePassing}}})
	x := explained(t, v, "q=%2Fshop%2Forders%2F1%3Flimit%3D2&host=shop.example")
	if x.Service != "order" || x.Path != "/orders/1?limit=2" || x.Rule != "shop.example/shop strip" {
		t.Errorf("got %+v; want order, by its route", x)
	}
	if x.Words[0] != "A request for /shop/orders/1?limit=2 goes to order, by the route shop.example/shop strip." || x.Words[1] != "One of its 1 instances is asked first." {
		t.Errorf("got %q", x.Words)
	}
	if x := explained(t, v, "q=unheard-of"); x.Known || len(x.Words) != 1 || x.Choices == nil {
		t.Errorf("got %+v of a service that nobody here asks for", x)
	}
	for query, want := range map[string]int{
		"":                              http.StatusBadRequest,
		"q=%20":                         http.StatusBadRequest,
		"q=%3Cscript%3E":                http.StatusBadRequest,
		"q=" + strings.Repeat("x", 200): http.StatusBadRequest,
		"q=%2F%25zz":                    http.StatusBadRequest,
		"q=%2Fnowhere":                  http.StatusNotFound,
		"q=%2F" + strings.Repeat("x", maxQuestion): http.StatusBadRequest,
	} {
		if w := ask(t, v, http.MethodGet, "/mesh/ask?"+query, ""); w.Code != want || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.40s: %d %s; want %d", query, w.Code, w.Body, want)
		}
	}
	bare := asking(t, discovery.ServiceStatus{}, func(c *Config) { c.Route = nil })
	if w := ask(t, bare, http.MethodGet, "/mesh/ask?q=%2Fx", ""); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "has no routes") {
		t.Errorf("a path where there are no routes: %d %s; want 400", w.Code, w.Body)
	}
}

// sender notes what is sent.
type sender struct{ sent []string }

func (s *sender) RoundTrip(r *http.Request) (*http.Response, error) {
	s.sent = append(s.sent, r.Method+" "+r.URL.String())
	if strings.HasSuffix(r.URL.Path, "/fails") {
		return nil, errors.New("no instance")
	}
	return &http.Response{StatusCode: http.StatusTeapot, Body: io.NopCloser(strings.NewReader("hello"))}, nil
}

func TestRequestIsSentOnlyByPostOfTheSameOriginAndOnlyIfSwitchedOn(t *testing.T) {
	var s sender
	v := asking(t, discovery.ServiceStatus{}, func(c *Config) { c.Try = &s })
	const form = "application/x-www-form-urlencoded"
	for name, c := range map[string]struct {
		method, path, body string
		header             []string
		want               int
	}{
		"a question":           {http.MethodGet, "/mesh/ask?q=/shop/orders/1", "", nil, http.StatusOK},
		"a GET":                {http.MethodGet, "/mesh/try?q=/shop/orders/1", "", nil, http.StatusMethodNotAllowed},
		"another site":         {http.MethodPost, "/mesh/try", "q=/shop/orders/1", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		"another site, old":    {http.MethodPost, "/mesh/try", "q=/shop/orders/1", []string{"Origin", "http://evil.example"}, http.StatusForbidden},
		"another port":         {http.MethodPost, "/mesh/try", "q=/shop/orders/1", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		"no route":             {http.MethodPost, "/mesh/try", "q=/nowhere", nil, http.StatusNotFound},
		"a service, no path":   {http.MethodPost, "/mesh/try", "q=order", nil, http.StatusBadRequest},
		"a path that is none":  {http.MethodPost, "/mesh/try", "q=order&path=//evil.example:80", nil, http.StatusOK},
		"a host in the path":   {http.MethodPost, "/mesh/try", "q=order&path=@evil.example", nil, http.StatusBadRequest},
		"a path with escapes":  {http.MethodPost, "/mesh/try", "q=order&path=/%25zz", nil, http.StatusBadRequest},
		"too long a path":      {http.MethodPost, "/mesh/try", "q=order&path=/" + strings.Repeat("x", maxQuestion), nil, http.StatusBadRequest},
		"too much":             {http.MethodPost, "/mesh/try", "q=order&path=/" + strings.Repeat("x", maxForm), nil, http.StatusBadRequest},
		"our own page":         {http.MethodPost, "/mesh/try", "q=/shop/orders/1", []string{"Sec-Fetch-Site", "same-origin", "Origin", "http://example.com"}, http.StatusOK},
		"a script of an admin": {http.MethodPost, "/mesh/try", "q=order&path=/fails", nil, http.StatusOK},
	} {
		s.sent = nil
		w := ask(t, v, c.method, c.path, c.body, append([]string{"Content-Type", form}, c.header...)...)
		if w.Code != c.want {
			t.Errorf("%s: %d %s; want %d", name, w.Code, w.Body, c.want)
		}
		if sent := c.want == http.StatusOK && c.method == http.MethodPost; (len(s.sent) == 1) != sent {
			t.Errorf("%s: sent %q", name, s.sent)
		}
		for _, one := range s.sent {
			if !strings.HasPrefix(one, "GET http://order/") {
				t.Errorf("%s: sent %s; want a GET of order", name, one)
			}
		}
	}
	w := ask(t, v, http.MethodPost, "/mesh/try", "q=/shop/orders/1", "Content-Type", form)
	var got tried
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Status != http.StatusTeapot || got.Bytes != 5 || got.Path != "/orders/1" || got.Error != "" {
		t.Errorf("got %s, %v; want the status and the size", w.Body, err)
	}
	w = ask(t, v, http.MethodPost, "/mesh/try", "q=order&path=/fails", "Content-Type", form)
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Status != 0 || got.Error != "no instance" {
		t.Errorf("got %s, %v; want the error", w.Body, err)
	}
}
