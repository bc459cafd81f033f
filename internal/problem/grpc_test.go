package problem_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

func TestCallOfGRPCGetsAStatusOfGRPC(t *testing.T) {
	for _, tc := range []struct {
		contentType string
		status      int
		grpc        string // empty: a problem
	}{
		{"application/grpc", 404, "12"},
		{"application/grpc+proto", 503, "14"},
		{"Application/gRPC; x=y", 504, "4"},
		{"application/grpc", 431, "8"},
		{"application/grpc", 418, "2"},
		{"application/grpc-web", 503, ""},
		{"application/json", 503, ""},
		{"", 503, ""},
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/greeter.Greeter/Greet", nil)
		r.Header.Set("Content-Type", tc.contentType)
		problem.Write(w, r, problem.New(tc.status, "100%% of ü\nare away"))
		h := w.Header()
		if tc.grpc == "" {
			if w.Code != tc.status || h.Get("Content-Type") != problem.ContentType || h.Get("Grpc-Status") != "" {
				t.Errorf("%q: got %d %v; want a problem", tc.contentType, w.Code, h)
			}
			continue
		}
		if w.Code != 200 || w.Body.Len() > 0 || h.Get("Content-Type") != "application/grpc" || h.Get("Grpc-Status") != tc.grpc ||
			h.Get("Grpc-Message") != "100%25 of %C3%BC%0Aare away" {
			t.Errorf("%q, %d: got %d %v; want grpc-status %s alone", tc.contentType, tc.status, w.Code, h, tc.grpc)
		}
	}
}
