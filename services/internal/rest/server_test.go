package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/sqlite"
	"github.com/rollcall-mesh/rollcall/services/internal/text"
)

// serve answers a request with a server whose endpoint fails with err, and
// returns the answer and what was logged.
func serve(r *http.Request, err error) (*httptest.ResponseRecorder, string) {
	var logged bytes.Buffer
	w := httptest.NewRecorder()
	Server(
		func(context.Context, any) (any, error) { return "<ok>", err },
		func(context.Context, *http.Request) (any, error) { return nil, nil },
		func(_ context.Context, w http.ResponseWriter, response any) error {
			return Encode(w, http.StatusOK, response)
		},
		slog.New(slog.NewTextHandler(&logged, nil)),
	).ServeHTTP(w, r)
	return w, logged.String()
}

func TestServerMakesProblemsOfErrorsAndLogsThoseOfOurs(t *testing.T) {
	for _, test := range []struct {
		name       string
		err        error
		status     int
		retryAfter string
		level      string // "" means that nothing is logged
	}{
		{"a problem of the sender's", problem.New(404, "nothing"), 404, "", ""},
		{"a wrong text", &text.InvalidError{Field: "name", Problem: "is blank"}, 400, "", ""},
		{"a busy store", fmt.Errorf("secret: %w", sqlite.ErrBusy), 503, "1", "WARN"},
		{"a full store", fmt.Errorf("secret: %w", sqlite.ErrFull), 507, "5", "ERROR"},
		{"anything else", errors.New("secret"), 500, "", "ERROR"},
		{"out of time", fmt.Errorf("secret: %w", context.DeadlineExceeded), 503, "1", "WARN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, logged := serve(httptest.NewRequest(http.MethodGet, "/x", nil), test.err)
			if w.Code != test.status || w.Header().Get("Content-Type") != problem.ContentType || w.Header().Get("Retry-After") != test.retryAfter {
				t.Errorf("%d, %v; want a problem of %d, Retry-After %q", w.Code, w.Header(), test.status, test.retryAfter)
			}
			if strings.Contains(w.Body.String(), "secret") || !strings.Contains(w.Body.String(), `"instance":"/x"`) {
				t.Errorf("body %s; want one about /x that tells no secrets", w.Body)
			}
			if test.level == "" {
				if logged != "" {
					t.Errorf("logged %q; want nothing", logged)
				}
			} else if !strings.Contains(logged, "level="+test.level) || !strings.Contains(logged, test.err.Error()) {
				t.Errorf("logged %q; want %s with %q", logged, test.level, test.err)
			}
		})
	}
}

func TestServerBlamesTheStoreForNothingWhenTheSenderIsGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w, logged := serve(httptest.NewRequest(http.MethodGet, "/x", nil).WithContext(ctx), errors.New("interrupted"))
	if w.Code != 503 || logged != "" {
		t.Errorf("%d, logged %q; want 503 and nothing", w.Code, logged)
	}
}

func TestEncodeWritesTextAsItIsAndOneNewline(t *testing.T) {
	w, _ := serve(httptest.NewRequest(http.MethodGet, "/x", nil), nil)
	if got, want := w.Body.String(), "\"<ok>\"\n"; got != want || w.Header().Get("Content-Length") != "7" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%q, %v; want %q", got, w.Header(), want)
	}
}

func TestEncodeSendsNothingOfWhatCannotBeEncoded(t *testing.T) {
	w := httptest.NewRecorder()
	if err := Encode(w, http.StatusOK, func() {}); err == nil || w.Body.Len() > 0 || len(w.Header()) > 0 {
		t.Errorf("Encode of a func = %v, body %q, headers %v; want an error and nothing sent", err, w.Body, w.Header())
	}
}

func ExampleDecode() {
	handler := func(w http.ResponseWriter, r *http.Request) {
		var name string
		if err := Decode(r, Fields{"name": &name}); err != nil {
			problem.Write(w, r, problem.Of(err))
			return
		}
		_ = Encode(w, http.StatusOK, name)
	}
	for _, body := range []string{`{"name":"Dave"}`, `{"nick":"Dave"}`} {
		r := httptest.NewRequest(http.MethodPost, "/users", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		handler(w, r)
		fmt.Print(w.Body)
	}
	// Output:
	// "Dave"
	// {"type":"about:blank","title":"Bad Request","status":400,"detail":"the field \"nick\" is unknown; want a JSON object with name, a text","instance":"/users"}
}
