package idempotency

import "net/http"

// Count returns a handler that calls replayed after each answer of next that
// was given before.
func Count(next http.Handler, replayed func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if w.Header().Get(ReplayedHeader) == "true" {
			replayed()
		}
	})
}
