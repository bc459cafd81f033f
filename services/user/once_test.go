package user

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
)

func TestRepeatedKeyCreatesOneUser(t *testing.T) {
	server := httptest.NewServer(newHandler(t))
	defer server.Close()
	header := maps.Clone(asJSON)
	header.Set(idempotency.Header, `"k"`)
	for n, replayed := range []string{"", "true"} {
		resp, got := call(t, server, "POST", "/users", `{"name":"Dave"}`, header)
		if resp.StatusCode != http.StatusCreated || got != `{"id":4,"name":"Dave"}`+"\n" || resp.Header.Get("Location") != "/users/4" || resp.Header.Get(idempotency.ReplayedHeader) != replayed {
			t.Errorf("time %d: %d %v %s; want user 4, replayed %q", n+1, resp.StatusCode, resp.Header, got, replayed)
		}
	}
	if resp, got := call(t, server, "POST", "/users", `{"name":"Eve"}`, header); resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("the key with another body: %d %s; want 422", resp.StatusCode, got)
	}
	if resp, _ := call(t, server, "GET", "/users/5", "", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("GET /users/5: %d; want 404: nobody else was created", resp.StatusCode)
	}
}
