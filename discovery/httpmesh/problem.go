package httpmesh

import (
	"encoding/json"
	"net/http"
)

// writeProblem answers with a problem (RFC 9457).
func writeProblem(w http.ResponseWriter, r *http.Request, status int, detail string) {
	problem, err := json.Marshal(struct {
		Type     string `json:"type"`
		Title    string `json:"title"`
		Status   int    `json:"status"`
		Detail   string `json:"detail"`
		Instance string `json:"instance"`
	}{"about:blank", http.StatusText(status), status, detail, r.URL.Path})
	if err != nil { // strings and an int: can't be
		problem = nil
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(append(problem, '\n')) // a client that has gone needs no answer
}
