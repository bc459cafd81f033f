package web_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// nobody is a mesh that knows nothing.
type nobody struct{}

func (nobody) Status() discovery.Status { return discovery.Status{} }

func TestRootOfTheAdminPortListsItsPages(t *testing.T) {
	checks := health.New(health.Config{})
	defer checks.Close()
	admin := func(more map[string]http.Handler) http.Handler {
		return web.Admin(prometheus.NewRegistry(), checks, nobody{}, more)
	}
	get := func(h http.Handler, path, accept string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("mine")) })
	h := admin(map[string]http.Handler{"GET /debug/mine": page, "/mesh/": page})
	if w := get(h, "/", ""); w.Body.String() != `{"pages":["/debug/discovery","/debug/mine","/debug/pprof/","/livez","/metrics","/readyz"]}`+"\n" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %s %s; want the pages as JSON", w.Header().Get("Content-Type"), w.Body)
	}
	w := get(h, "/", "text/html,*/*;q=0.8")
	for _, path := range []string{"/debug/mine", "/livez"} {
		if !strings.Contains(w.Body.String(), `<a href="`+path+`">`) {
			t.Errorf("the page has no link to %s: %s", path, w.Body)
		}
		if got := get(h, path, "text/html"); got.Code != http.StatusOK {
			t.Errorf("%s: %d", path, got.Code)
		}
	}
	if w := get(h, "/nothing", "text/html"); w.Code != http.StatusNotFound {
		t.Errorf("/nothing: %d; want 404", w.Code)
	}
	if w := get(admin(map[string]http.Handler{"GET /{$}": page}), "/", ""); w.Body.String() != "mine" {
		t.Errorf("got %s; want the page that was given for it", w.Body)
	}
}
