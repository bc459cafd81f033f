package httpmesh_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

// under serves a request with a time of 100 ms by Deadline; the panic of a
// handler that aborts is aborted.
func under(ctx context.Context, t *testing.T, h http.HandlerFunc) (w *httptest.ResponseRecorder, aborted bool) {
	t.Helper()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
	r.Header.Set(httpmesh.TimeoutHeader, "100")
	w = httptest.NewRecorder()
	defer func() {
		p := recover()
		err, _ := p.(error)
		if aborted = errors.Is(err, http.ErrAbortHandler); p != nil && !aborted {
			t.Errorf("the handler panicked: %v", p)
		}
	}()
	httpmesh.Deadline(h).ServeHTTP(w, r)
	return w, false
}

func TestHandlerThatWroteNothingInTimeIsA504(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, aborted := under(t.Context(), t, func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			_ = http.NewResponseController(w).Flush() // says nothing by itself
		})
		if aborted || w.Code != http.StatusGatewayTimeout || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("got %d %s, aborted %v; want a 504 problem", w.Code, w.Body, aborted)
		}
	})
}

func TestHandlerThatWroteNothingForASenderThatLeftAborts(t *testing.T) {
	for when, leaves := range map[string]time.Duration{"before it began": 0, "while it worked": 50 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ctx, leave := context.WithCancel(t.Context())
			time.AfterFunc(leaves, leave)
			if leaves == 0 {
				leave()
			}
			w, aborted := under(ctx, t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			if !aborted {
				t.Errorf("%s: got %d %q; want no answer", when, w.Code, w.Body)
			}
		})
	}
}

func TestAnswerOfAHandlerWhoseTimeIsOverIsItsOwn(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"a header":     func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"a body":       func(w http.ResponseWriter) { _, _ = w.Write([]byte("late")) },
		"an empty one": func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
	} {
		synctest.Test(t, func(t *testing.T) {
			w, aborted := under(t.Context(), t, func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				answer(w)
			})
			if aborted || w.Code == http.StatusGatewayTimeout {
				t.Errorf("%s: got %d, aborted %v; want what the handler wrote", name, w.Code, aborted)
			}
		})
	}
}
