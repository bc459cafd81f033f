package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// testAnswersTableByteForByte wants a fleet with nothing but the seeds.
func testAnswersTableByteForByte(t *testing.T, m *mesh) {
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
		location           string
	}{
		{"GET", "/users/1", "", 200, `{"id":1,"name":"Alice"}`, ""},
		{"GET", "/users/2", "", 200, `{"id":2,"name":"Bob"}`, ""},
		{"GET", "/users/3", "", 200, `{"id":3,"name":"Carol"}`, ""},
		{"GET", "/orders/1", "", 200, `[{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"}]`, ""},
		{"GET", "/orders/2", "", 200, `[{"order_id":103,"item":"Keyboard"}]`, ""},
		{"GET", "/orders/3", "", 200, `[]`, ""},
		{"GET", "/orders/1/101", "", 200, `{"order_id":101,"item":"Laptop"}`, ""},
		{"POST", "/users", `{"name":"Dave"}`, 201, `{"id":4,"name":"Dave"}`, "/users/4"},
		{"GET", "/users/4", "", 200, `{"id":4,"name":"Dave"}`, ""},
		{"POST", "/orders/4", `{"item":"Desk"}`, 201, `{"order_id":104,"item":"Desk"}`, "/orders/4/104"},
		{"GET", "/orders/4", "", 200, `[{"order_id":104,"item":"Desk"}]`, ""},
		{"GET", "/orders/4/104", "", 200, `{"order_id":104,"item":"Desk"}`, ""},
		// What is stored comes back as it was sent.
		{"POST", "/users", `{"name":"Zoë <&> \"日本\""}`, 201, `{"id":5,"name":"Zoë <&> \"日本\""}`, "/users/5"},
	} {
		var body io.Reader
		header := []string(nil)
		if c.body != "" {
			body, header = strings.NewReader(c.body), []string{"Content-Type", "application/json"}
		}
		a, err := m.request(t.Context(), c.method, m.gateway+c.path, body, header...)
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.path, err)
		}
		if a.status != c.status || a.body != c.want+"\n" {
			t.Errorf("%s %s: got %d %q; want %d %q", c.method, c.path, a.status, a.body, c.status, c.want+"\n")
		}
		if got := a.header.Get("Location"); got != c.location {
			t.Errorf("%s %s: Location is %q; want %q", c.method, c.path, got, c.location)
		}
		if got := a.header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: Content-Type is %q; want application/json", c.method, c.path, got)
		}
		if a.header.Get("X-Degraded") != "" {
			t.Errorf("%s %s: X-Degraded is %q in a healthy mesh", c.method, c.path, a.header.Get("X-Degraded"))
		}
	}
	for _, c := range []struct{ path, want, next string }{
		{"/users?limit=2", `[{"id":1,"name":"Alice"},{"id":2,"name":"Bob"}]`, `</users?after=2&limit=2>; rel="next"`},
		{"/users?after=2&limit=2", `[{"id":3,"name":"Carol"},{"id":4,"name":"Dave"}]`, `</users?after=4&limit=2>; rel="next"`},
		{"/users?after=4&limit=2", `[{"id":5,"name":"Zoë <&> \"日本\""}]`, ""},
		{"/users", `[{"id":1,"name":"Alice"},{"id":2,"name":"Bob"},{"id":3,"name":"Carol"},{"id":4,"name":"Dave"},{"id":5,"name":"Zoë <&> \"日本\""}]`, ""},
		{"/orders/1?limit=1", `[{"order_id":101,"item":"Laptop"}]`, `</orders/1?after=101&limit=1>; rel="next"`},
		{"/orders/1?after=101&limit=1", `[{"order_id":102,"item":"Mouse"}]`, ""},
	} {
		if a := m.get(t, m.gateway+c.path); a.status != 200 || a.body != c.want+"\n" || a.header.Get("Link") != c.next {
			t.Errorf("GET %s: got %d %q, Link %q; want %q and %q", c.path, a.status, a.body, a.header.Get("Link"), c.want, c.next)
		}
	}
	head, err := m.request(t.Context(), http.MethodHead, m.gateway+"/users/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != fmt.Sprint(len(`{"id":1,"name":"Alice"}`)+1) {
		t.Errorf("HEAD /users/1: got %d, %q, Content-Length %q; want the headers of GET and no body", head.status, head.body, head.header.Get("Content-Length"))
	}
}

func testTutorialPortsServeOneServiceEach(t *testing.T, m *mesh) {
	for _, c := range []struct {
		url    string
		status int
		body   string
	}{
		{m.users + "/users/1", 200, `{"id":1,"name":"Alice"}`},
		{m.users + "/orders/1", 404, ""},
		{m.orders + "/orders/1", 200, `[{"order_id":101,"item":"Laptop"},{"order_id":102,"item":"Mouse"}]`},
		{m.orders + "/users/1", 404, ""},
	} {
		a := m.get(t, c.url)
		if a.status != c.status || c.body != "" && a.body != c.body+"\n" {
			t.Errorf("GET %s: got %d %q; want %d %q", c.url, a.status, a.body, c.status, c.body)
		}
		if c.status == 404 {
			wantProblem(t, "GET "+c.url, a, 404)
		}
	}
}

func testAnswersNameInstanceAndRequest(t *testing.T, m *mesh) {
	wellFormed := regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	for service, path := range map[string]string{"user": "/users/1", "order": "/orders/1"} {
		es, err := m.entries(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		a := m.get(t, m.gateway+path)
		if known := strings.Join(ids(es), " "); !strings.Contains(" "+known+" ", " "+a.servedBy()+" ") || a.servedBy() == "" {
			t.Errorf("GET %s: X-Served-By is %q; want one of %s", path, a.servedBy(), known)
		}
	}
	// An error's answer names its request too.
	for _, path := range []string{"/users/1", "/orders/1", "/users/999", "/nothing"} {
		if got := m.get(t, m.gateway+path, "X-Request-Id", "abc-123_.X").header.Get("X-Request-Id"); got != "abc-123_.X" {
			t.Errorf("GET %s: X-Request-Id is %q; want the one that was sent", path, got)
		}
		for _, bad := range []string{"", "has space", "semi;colon", strings.Repeat("a", 129), "naïve"} {
			header := []string{"X-Request-Id", bad}
			if bad == "" {
				header = nil
			}
			got := m.get(t, m.gateway+path, header...).header.Values("X-Request-Id")
			if len(got) != 1 || got[0] == bad || !wellFormed.MatchString(got[0]) {
				t.Errorf("GET %s with X-Request-Id %q: got %q; want one new ID", path, bad, got)
			}
		}
	}
}

func testRequestsAreSpreadOverOrders(t *testing.T, m *mesh) {
	served := map[string]int{}
	for range 60 {
		a := m.get(t, m.gateway+"/orders/1")
		if a.status != 200 {
			t.Fatalf("GET /orders/1: %d %s", a.status, a.body)
		}
		served[a.servedBy()]++
	}
	if len(served) != 3 {
		t.Errorf("60 calls were served by %v; want three orders", served)
	}
	for id, n := range served {
		if n < 10 {
			t.Errorf("%s served %d of 60 calls; want at least 10 (%v)", id, n, served)
		}
	}
	t.Logf("60 calls: %v", served)
}

// wantProblem checks an RFC 9457 answer and returns its detail.
func wantProblem(t *testing.T, what string, a *answer, status int) string {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: got %d %q; want %d", what, a.status, a.body, status)
		return ""
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: Content-Type is %q; want application/problem+json", what, got)
		return ""
	}
	var p struct {
		Type, Title, Detail, Instance *string
		Status                        *int
	}
	dec := json.NewDecoder(strings.NewReader(a.body))
	if err := dec.Decode(&p); err != nil {
		t.Errorf("%s: %v in %q", what, err, a.body)
		return ""
	}
	if p.Type == nil || p.Title == nil || p.Status == nil || p.Detail == nil || p.Instance == nil {
		t.Errorf("%s: got %q; want type, title, status, detail and instance", what, a.body)
		return ""
	}
	if *p.Status != status || *p.Title == "" || *p.Detail == "" || *p.Type == "" || *p.Instance == "" {
		t.Errorf("%s: got %q; want status %d and no empty member", what, a.body, status)
	}
	return *p.Detail
}

func testBadInputIsRefusedWithProblem(t *testing.T, m *mesh) {
	long := strings.Repeat("x", 201)
	type row struct {
		method, path, contentType, body string
		status                          int
		names                           string // what the detail must name
	}
	rows := []row{
		{"GET", "/users/0", "", "", 400, "id"},
		{"GET", "/users/-1", "", "", 400, "id"},
		{"GET", "/users/abc", "", "", 400, "id"},
		{"GET", "/users/1.5", "", "", 400, "id"},
		{"GET", "/users/1e3", "", "", 400, "id"},
		{"GET", "/users/%20", "", "", 400, "id"},
		{"GET", "/users/9223372036854775808", "", "", 400, "id"},
		{"GET", "/users/9223372036854775807", "", "", 404, "user"},
		{"GET", "/orders/0", "", "", 400, "user"},
		{"GET", "/orders/abc", "", "", 400, "user"},
		{"GET", "/orders/99999999999999999999", "", "", 400, "user"},
		{"GET", "/orders/1/0", "", "", 400, "order"},
		{"GET", "/orders/1/abc", "", "", 400, "order"},
		{"GET", "/orders/abc/101", "", "", 400, "user"},
		{"POST", "/orders/abc", "application/json", `{"item":"Desk"}`, 400, "user"},

		{"POST", "/", "", "", 404, ""},
		{"GET", "/nothing", "", "", 404, "/nothing"},
		{"GET", "/usersx/1", "", "", 404, ""},
		{"GET", "/users/1/2", "", "", 404, ""},
		{"GET", "/orders/1/101/2", "", "", 404, ""},
		{"GET", "/users/999", "", "", 404, "user"},
		{"GET", "/orders/999", "", "", 404, "user"},
		{"GET", "/orders/1/999", "", "", 404, "order"},
		{"GET", "/orders/2/101", "", "", 404, "order"}, // another user's order
		{"POST", "/orders/999", "application/json", `{"item":"Desk"}`, 404, "user"},

		{"DELETE", "/users/1", "", "", 405, "DELETE"},
		{"PUT", "/users", "application/json", `{"name":"Dave"}`, 405, "PUT"},
		{"DELETE", "/users", "", "", 405, "DELETE"},
		{"PATCH", "/orders/1", "application/json", `{"item":"Desk"}`, 405, "PATCH"},
		{"POST", "/orders/1/101", "application/json", `{"item":"Desk"}`, 405, "POST"},
		{"DELETE", "/orders/1/101", "", "", 405, "DELETE"},
	}
	for _, p := range []struct{ path, field string }{{"/users", "name"}, {"/orders/1", "item"}} {
		object := func(value string) string { return fmt.Sprintf(`{%q:%s}`, p.field, value) }
		big := object(`"` + strings.Repeat("x", 64<<10) + `"`)
		rows = append(
			rows,
			row{"POST", p.path, "application/json", "", 400, p.field},
			row{"POST", p.path, "application/json", "not json", 400, "body"},
			row{"POST", p.path, "application/json", object(`"Desk"`)[:9], 400, "body"},
			row{"POST", p.path, "application/json", `null`, 400, p.field},
			row{"POST", p.path, "application/json", `["Desk"]`, 400, p.field},
			row{"POST", p.path, "application/json", `{}`, 400, p.field},
			row{"POST", p.path, "application/json", object(`null`), 400, p.field},
			row{"POST", p.path, "application/json", object(`5`), 400, p.field},
			row{"POST", p.path, "application/json", object(`""`), 400, p.field},
			row{"POST", p.path, "application/json", object(`" \t "`), 400, p.field},
			row{"POST", p.path, "application/json", object(`"` + long + `"`), 400, p.field},
			row{"POST", p.path, "application/json", object(`"a\u0007b"`), 400, p.field},
			row{"POST", p.path, "application/json", object(`"a\nb"`), 400, p.field},
			row{"POST", p.path, "application/json", fmt.Sprintf(`{%q:"Desk","color":"red"}`, p.field), 400, "color"},
			row{"POST", p.path, "application/json", object(`"Desk"`) + object(`"Lamp"`), 400, ""},
			row{"POST", p.path, "text/plain", object(`"Desk"`), 415, "text/plain"},
			row{"POST", p.path, "application/x-www-form-urlencoded", p.field + "=Desk", 415, "application/x-www-form-urlencoded"},
			row{"POST", p.path, "", object(`"Desk"`), 415, "Content-Type"},
			row{"POST", p.path, "application/json", big, 413, ""},
		)
	}
	allowed := map[string]string{"/users": "GET, HEAD, POST", "/users/1": "GET, HEAD", "/orders/1": "GET, HEAD, POST", "/orders/1/101": "GET, HEAD"}

	before := m.get(t, m.gateway+"/orders/1").body
	for _, r := range rows {
		what := fmt.Sprintf("%s %s %s %.40q", r.method, r.path, r.contentType, r.body)
		var header []string
		if r.contentType != "" {
			header = []string{"Content-Type", r.contentType}
		}
		a, err := m.request(t.Context(), r.method, m.gateway+r.path, strings.NewReader(r.body), header...)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if detail := wantProblem(t, what, a, r.status); a.status == r.status && !strings.Contains(strings.ToLower(detail), strings.ToLower(r.names)) {
			t.Errorf("%s: the detail is %q; want it to name %q", what, detail, r.names)
		}
		if got := a.header.Get("Allow"); r.status == 405 && got != allowed[r.path] {
			t.Errorf("%s: Allow is %q; want %q", what, got, allowed[r.path])
		}
	}

	// A body of unknown length is counted as it comes.
	chunked := io.MultiReader(strings.NewReader(`{"name":"`), bytes.NewReader(bytes.Repeat([]byte("x"), 70<<10)), strings.NewReader(`"}`))
	a, err := m.request(t.Context(), http.MethodPost, m.gateway+"/users", chunked, "Content-Type", "application/json")
	if err != nil {
		t.Errorf("POST /users of 70 KiB in chunks: %v", err)
	} else {
		wantProblem(t, "POST /users of 70 KiB in chunks", a, 413)
	}
	wantProblem(t, "GET /users/1 with a header of 20 KiB", m.get(t, m.gateway+"/users/1", "X-Long", strings.Repeat("x", 20<<10)), 431)
	if a := m.get(t, m.gateway+"/users/1", "X-Long", strings.Repeat("x", 12<<10)); a.status != 200 {
		t.Errorf("GET /users/1 with a header of 12 KiB: %d %s; want 200", a.status, a.body)
	}

	// Nothing that was refused was done; and 200 characters, however many bytes, are right.
	if after := m.get(t, m.gateway+"/orders/1").body; after != before {
		t.Errorf("the orders of user 1 became %s by requests that were refused; they were %s", after, before)
	}
	if a := m.post(t, m.gateway+"/users", `{"name":"`+strings.Repeat("é", 200)+`"}`); a.status != 201 {
		t.Errorf("POST /users of a name of 200 characters: %d %s; want 201", a.status, a.body)
	}
}

func testPostIsSeenByAllOrders(t *testing.T, m *mesh) {
	for n := range 5 {
		item := fmt.Sprintf("seen by all %d", n)
		a := m.post(t, m.gateway+"/orders/2", fmt.Sprintf(`{"item":%q}`, item))
		if a.status != 201 {
			t.Fatalf("POST /orders/2: %d %s", a.status, a.body)
		}
		// The very first answer of each instance has it.
		first := map[string]*answer{}
		for range 200 {
			b := m.get(t, m.gateway+"/orders/2")
			if _, ok := first[b.servedBy()]; !ok {
				first[b.servedBy()] = b
			}
			if len(first) == 3 {
				break
			}
		}
		if len(first) != 3 {
			t.Fatalf("200 calls were served by %d orders; want 3", len(first))
		}
		for id, b := range first {
			if strings.Count(b.body, `"`+item+`"`) != 1 {
				t.Errorf("%s answers %s, after %s was given %q; want it there once", id, b.body, a.servedBy(), item)
			}
		}
	}
}
