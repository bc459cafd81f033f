package logging_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

// roundTrip is a RoundTripper made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRequestIDGoesAlongToTheNextService(t *testing.T) {
	var got string
	next := logging.PassRequestID(roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Get("X-Request-Id")
		return nil, http.ErrNotSupported
	}))
	for _, tc := range []struct{ ctx, header, want string }{
		{"id-1", "", "id-1"},
		{"", "", ""},
		{"id-1", "own", "own"},
	} {
		ctx := t.Context()
		if tc.ctx != "" {
			ctx = logging.WithRequestID(ctx, tc.ctx)
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://user/", nil)
		if tc.header != "" {
			r.Header.Set("X-Request-Id", tc.header)
		}
		if resp, err := next.RoundTrip(r); err == nil {
			resp.Body.Close()
		}
		if got != tc.want || r.Header.Get("X-Request-Id") != tc.header {
			t.Errorf("context %q, header %q: sent %q, and the request now has %q", tc.ctx, tc.header, got, r.Header.Get("X-Request-Id"))
		}
	}
}

// logged serves one request and returns its answer and its line.
func logged(t *testing.T, r *http.Request, h http.HandlerFunc) (http.Header, map[string]any) {
	t.Helper()
	var out bytes.Buffer
	log := slog.New(logging.WithContextIDs(slog.NewJSONHandler(&out, nil)))
	mux := http.NewServeMux()
	mux.HandleFunc("/orders/{user}", h)
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }()
		logging.Handler(log, mux).ServeHTTP(w, r)
	}()
	got := line(t, &out)
	delete(got, "duration_ms")
	return w.Header(), got
}

func TestEachRequestIsOneLineByRouteWithItsIDAndWithoutItsQuery(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/orders/ada?token=secret", nil)
	r.Header.Set("X-Request-Id", "id-1")
	header, got := logged(t, r, func(w http.ResponseWriter, r *http.Request) {
		if in, ctx := r.Header.Get("X-Request-Id"), logging.RequestID(r.Context()); in != "id-1" || ctx != "id-1" {
			t.Errorf("the handler finds the IDs %q and %q; want id-1", in, ctx)
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "done")
	})
	want := map[string]any{
		"level": "INFO", "msg": "request", "method": "POST", "route": "/orders/{user}", "path": "/orders/ada",
		"status": 201.0, "bytes": 4.0, "remote": "192.0.2.1", "request_id": "id-1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if header.Get("X-Request-Id") != "id-1" || r.Pattern != "/orders/{user}" {
		t.Errorf("the answer has the ID %q, the request the pattern %q; want both", header.Get("X-Request-Id"), r.Pattern)
	}
}

func TestRequestWithoutAWellFormedIDGetsOne(t *testing.T) {
	for _, given := range []string{"", "a b", "x\nlevel=ERROR"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/orders/ada", nil)
		r.Header["X-Request-Id"] = []string{given}
		header, got := logged(t, r, func(http.ResponseWriter, *http.Request) {})
		if id := header.Get("X-Request-Id"); id == "" || id == given || got["request_id"] != id {
			t.Errorf("%q: the answer has the ID %q, the line %v; want a new one in both", given, id, got["request_id"])
		}
	}
}

func TestRequestWhoseHandlerPanickedIsLoggedAsCutOff(t *testing.T) {
	_, got := logged(t, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/orders/ada", nil),
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if got["cut_off"] != true || got["status"] != 499.0 {
		t.Errorf("got %v; want a line of 499 that is cut off", got)
	}
}
