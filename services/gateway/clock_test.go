package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestClockThatEndsTheWaitIsSeenByTheTransport(t *testing.T) {
	var cause error
	h := behind(t, Config{AnswerTimeout: time.Millisecond}, func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		cause = context.Cause(r.Context())
		return nil, r.Context().Err()
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/users/1", nil))
	if w.Code != http.StatusGatewayTimeout || !errors.Is(cause, context.DeadlineExceeded) {
		t.Errorf("got %d, cause %v; want 504, and a cause that is context.DeadlineExceeded", w.Code, cause)
	}
}
