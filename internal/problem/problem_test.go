package problem

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWriteSendsWhatRFC9457Says(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/users/a%2Fb?x=1", nil)
	w := httptest.NewRecorder()
	w.Header().Set("Etag", `"of what would have been sent"`)
	p := New(http.StatusNotFound, "there is no %s", "<user>")
	p.Cause = errors.New("secret")
	p.Header = http.Header{"X-Degraded": {"user"}}
	Write(w, r, p)

	const want = `{"type":"about:blank","title":"Not Found","status":404,"detail":"there is no <user>","instance":"/users/a%2Fb"}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("body %q; want %q", got, want)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Content-Length": strconv.Itoa(len(want)), "Cache-Control": "no-store",
		"X-Content-Type-Options": "nosniff", "X-Degraded": "user", "Etag": "", "Retry-After": "",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	if w.Code != http.StatusNotFound {
		t.Errorf("status %d; want 404", w.Code)
	}
	if p.Instance != "" {
		t.Errorf("Write changed the problem: Instance is %q", p.Instance)
	}
}

func TestHEADGetsNoBodyAndTheSameHeaders(t *testing.T) {
	get, head := httptest.NewRecorder(), httptest.NewRecorder()
	Write(get, httptest.NewRequest(http.MethodGet, "/x", nil), New(404, "gone"))
	Write(head, httptest.NewRequest(http.MethodHead, "/x", nil), New(404, "gone"))
	if head.Body.Len() != 0 {
		t.Errorf("HEAD got the body %q; want none", head.Body)
	}
	if got, want := head.Header().Get("Content-Length"), get.Header().Get("Content-Length"); got != want || head.Code != get.Code {
		t.Errorf("HEAD got %d with length %s; want %d with %s as for GET", head.Code, got, get.Code, want)
	}
}

func TestRetryAfterIsWholeSecondsAndAtLeastOne(t *testing.T) {
	for after, want := range map[time.Duration]string{
		0: "", time.Nanosecond: "1", time.Second: "1", 1001 * time.Millisecond: "2", time.Minute: "60",
	} {
		w := httptest.NewRecorder()
		p := New(503, "later")
		p.RetryAfter = after
		Write(w, httptest.NewRequest(http.MethodGet, "/", nil), p)
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("Retry-After of %v is %q; want %q", after, got, want)
		}
	}
}

func TestZeroProblemIsAnInternalServerError(t *testing.T) {
	w := httptest.NewRecorder()
	Write(w, httptest.NewRequest(http.MethodGet, "/x", nil), &Problem{})
	const want = `{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"","instance":"/x"}` + "\n"
	if w.Code != 500 || w.Body.String() != want {
		t.Errorf("%d %s; want 500 %s", w.Code, w.Body, want)
	}
}

func TestOfFindsTheProblemAndTellsNoSecrets(t *testing.T) {
	own := New(http.StatusConflict, "taken")
	for _, test := range []struct {
		name   string
		err    error
		status int
	}{
		{"a problem in the chain", fmt.Errorf("create: %w", own), 409},
		{"too large a body", fmt.Errorf("secret: %w", &http.MaxBytesError{Limit: 10}), 413},
		{"no time left", fmt.Errorf("secret: %w", context.DeadlineExceeded), 503},
		{"nobody reads", fmt.Errorf("secret: %w", context.Canceled), 503},
		{"anything else", errors.New("secret"), 500},
		{"nil", nil, 500},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Of(test.err)
			if p.Status != test.status {
				t.Errorf("Of(%v) is %d; want %d", test.err, p.Status, test.status)
			}
			w := httptest.NewRecorder()
			Write(w, httptest.NewRequest(http.MethodGet, "/", nil), p)
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the body tells the secret: %s", w.Body)
			}
			if test.status >= 500 && test.err != nil && (!strings.Contains(p.Error(), "secret") || !errors.Is(p, test.err)) {
				t.Errorf("%q does not lead to %v: logs need it", p, test.err)
			}
		})
	}
}

func router() http.Handler {
	mux := http.NewServeMux()
	served := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Pattern, r.PathValue("id")) }
	mux.HandleFunc("GET /users/{id}", served)
	mux.HandleFunc("PUT /users/{id}", served)
	mux.HandleFunc("POST /users", served)
	mux.HandleFunc("/any/", served)
	return Router(mux)
}

func TestRouterAnswersUnknownPathsAndMethodsWithProblems(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/nothing", 404, ""},
		{"POST", "/nothing", 404, ""},
		{"GET", "/users/1/2", 404, ""},
		{"GET", "/users/1/", 404, ""},
		{"GET", "/users/", 404, ""},
		{"GET", "//users/1", 404, ""},
		{"GET", "/users//1", 404, ""},
		{"POST", "/./users", 404, ""},
		{"GET", "/any/../users/1", 404, ""},
		{"GET", "/any/%2e%2e/users/1", 404, ""},
		{"HEAD", "/nothing", 404, ""},
		{"GET", "/users", 405, "POST"},
		{"DELETE", "/users/1", 405, "GET, HEAD, PUT"},
		{"OPTIONS", "/users/1", 405, "GET, HEAD, PUT"},
		{"get", "/users/1", 405, "GET, HEAD, PUT"},
	} {
		w := httptest.NewRecorder()
		router().ServeHTTP(w, httptest.NewRequest(test.method, test.path, nil))
		if w.Code != test.status || w.Header().Get("Allow") != test.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", test.method, test.path, w.Code, w.Header().Get("Allow"), test.status, test.allow)
		}
		if got := w.Header().Get("Content-Type"); got != ContentType {
			t.Errorf("%s %s: content type %q; want %q", test.method, test.path, got, ContentType)
		}
		var p Problem
		if test.method == "HEAD" {
			if w.Body.Len() > 0 {
				t.Errorf("HEAD got a body: %s", w.Body)
			}
		} else if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != test.status || p.Detail == "" || p.Instance != test.path {
			t.Errorf("%s %s: body %s (%v); want a problem of status %d about the path", test.method, test.path, w.Body, err, test.status)
		}
	}
}

func TestRouterRefusesAsteriskAsATarget(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RequestURI, r.URL.Path = "*", "*"
	w := httptest.NewRecorder()
	router().ServeHTTP(w, r)
	if w.Code != 400 || w.Header().Get("Content-Type") != ContentType {
		t.Errorf("GET *: %d %s; want a 400 problem", w.Code, w.Header().Get("Content-Type"))
	}
}

func TestRouterLeavesThePatternOnTheRequestItWasGiven(t *testing.T) {
	r := httptest.NewRequest(http.MethodHead, "/users/7", nil)
	w := httptest.NewRecorder()
	router().ServeHTTP(w, r)
	if r.Pattern != "GET /users/{id}" || w.Code != 200 {
		t.Errorf("status %d, pattern %q; want 200, %q", w.Code, r.Pattern, "GET /users/{id}")
	}
	for _, path := range []string{"/any", "/any/", "/any/a/"} {
		w := httptest.NewRecorder()
		router().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code >= 400 {
			t.Errorf("GET %s: %d; want what the mux does", path, w.Code)
		}
	}
	unknown := httptest.NewRequest(http.MethodGet, "/nothing", nil)
	router().ServeHTTP(httptest.NewRecorder(), unknown)
	if unknown.Pattern != "" {
		t.Errorf("pattern of an unknown path is %q; want none", unknown.Pattern)
	}
}

func ExampleWrite() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		Write(w, r, New(http.StatusNotFound, "there is no user %d", 9))
	}
	w := httptest.NewRecorder()
	handler(w, httptest.NewRequest(http.MethodGet, "/users/9", nil))
	fmt.Print(w.Code, " ", w.Body)
	// Output: 404 {"type":"about:blank","title":"Not Found","status":404,"detail":"there is no user 9","instance":"/users/9"}
}
