package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/load"
)

// Requests a second of the steady load.
const (
	getRate  = 100
	postRate = 10
)

// right is what each GET of the load is answered, byte for byte: nothing posts to user 1.
var right = map[string]string{
	"/orders/1": `[{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"}]` + "\n",
	"/users/1":  `{"id":1,"name":"Alice"}` + "\n",
}

// traffic is a steady load on the gateway.
type traffic struct {
	m     *mesh
	gets  *load.Run
	posts *load.Run // nil: none
}

// steady starts 100 GETs a second, three of four for orders, and if posts is set 10 POSTs of orders of user 3.
// It returns when the load runs.
func (m *mesh) steady(t *testing.T, posts bool) *traffic {
	t.Helper()
	name := strings.ReplaceAll(t.Name(), "/", "-")
	tr := &traffic{m: m}
	var err error
	tr.gets, err = load.Start(t.Context(), load.Config{Name: name + "-get", Rate: getRate, Shot: func(n int) load.Shot {
		path := "/orders/1"
		if n%4 == 0 {
			path = "/users/1"
		}
		return load.Shot{Method: http.MethodGet, URL: m.gateway + path, Check: func(a *load.Answer) error {
			if a.Status != http.StatusOK || a.Body != right[path] {
				return fmt.Errorf("want 200 %q", right[path])
			}
			return nil
		}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.gets.Stop() })
	if posts {
		tr.posts, err = load.Start(t.Context(), load.Config{Name: name + "-post", Rate: postRate, Shot: func(n int) load.Shot {
			return load.Shot{Method: http.MethodPost, URL: m.gateway + "/orders/3", Body: fmt.Sprintf(`{"item":"%s-%d"}`, name, n)}
		}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tr.posts.Stop() })
	}
	until(t, 10*time.Second, "the load runs", func(context.Context) error {
		if n := tr.gets.Sent(); n < getRate {
			return fmt.Errorf("%d GETs sent", n)
		}
		return nil
	})
	return tr
}

// stop ends the load, and the test fails if a GET failed. Failed POSTs are returned, to be judged, when the
// store was seen to hold each POST that was acknowledged once, and each that failed at most once.
func (tr *traffic) stop(t *testing.T) (gets, posts *load.Report) {
	t.Helper()
	gets = tr.gets.Stop()
	tr.report(t, "GET", gets)
	if len(gets.Failures) > 0 {
		t.Errorf("%d of %d GETs failed; want none:\n%s", len(gets.Failures), gets.Sent, gets.List(10))
	}
	// A load that did not run proves nothing.
	if want := int(gets.Elapsed.Seconds()) * getRate / 2; gets.Sent < want || gets.Exhausted {
		t.Errorf("%d GETs were sent in %v, exhausted %v; want at least %d, until the end", gets.Sent, gets.Elapsed, gets.Exhausted, want)
	}
	if tr.posts == nil {
		return gets, nil
	}
	posts = tr.posts.Stop()
	tr.report(t, "POST", posts)
	if posts.Exhausted || len(posts.OK) == 0 {
		t.Errorf("%d of %d POSTs were acknowledged, exhausted %v; want most of them, until the end", len(posts.OK), posts.Sent, posts.Exhausted)
	}
	stored := tr.m.allPages(t, "/orders/3")
	count := func(s load.Shot) int {
		return strings.Count(stored, strings.TrimSuffix(strings.TrimPrefix(s.Body, "{"), "}")+"}")
	}
	for _, s := range posts.OK {
		if n := count(s); n != 1 {
			t.Errorf("POST %s was acknowledged and is stored %d times; want once", s.Body, n)
		}
	}
	for _, f := range posts.Failures {
		if n := count(f.Shot); n > 1 {
			t.Errorf("POST %s failed and is stored %d times; want at most once", f.Shot.Body, n)
		}
	}
	return gets, posts
}

// allPages returns the bodies of all pages of a list, one after another.
func (m *mesh) allPages(t *testing.T, next string) string {
	t.Helper()
	var all strings.Builder
	for next != "" {
		page := m.get(t, m.gateway+next)
		if page.status != http.StatusOK {
			t.Fatalf("GET %s: %d %s", next, page.status, page.body)
		}
		all.WriteString(page.body)
		target, rel, _ := strings.Cut(page.header.Get("Link"), ">")
		if next = strings.TrimPrefix(target, "<"); next != "" && !strings.Contains(rel, `rel="next"`) {
			t.Fatalf("the Link is %q; want one to the next page", page.header.Get("Link"))
		}
	}
	return all.String()
}

func (tr *traffic) report(t *testing.T, method string, r *load.Report) {
	t.Helper()
	t.Logf("%d %ss in %v: %d failed, slowest %v, degraded %d, served by %v",
		r.Sent, method, r.Elapsed.Round(time.Millisecond), len(r.Failures), r.Slowest.Round(time.Millisecond), r.Degraded, r.ServedBy)
}

// wantNoneFailed is the judgement of POSTs where nothing was cut off.
func wantNoneFailed(t *testing.T, posts *load.Report) {
	t.Helper()
	if len(posts.Failures) > 0 {
		t.Errorf("%d of %d POSTs failed; want none:\n%s", len(posts.Failures), posts.Sent, posts.List(10))
	}
}
