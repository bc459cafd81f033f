package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

func TestIndexWithoutPathsSaysSo(t *testing.T) {
	t.Parallel()
	page := web.Index{Title: "t", Heading: "What is here", Key: "routes", None: "No path leads anywhere so far."}
	for accept, want := range map[string]string{"text/html": "<p>No path leads anywhere so far.</p>", "*/*": `{"routes":[]}`} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		page.Write(w, r, []string{})
		if body := w.Body.String(); !strings.Contains(body, want) {
			t.Errorf("Accept %q: %s; want %s", accept, body, want)
		}
	}
}
