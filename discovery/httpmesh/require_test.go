package httpmesh_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
)

func TestServiceGetsWhatIsMeantForItOrForNoneInParticular(t *testing.T) {
	for _, c := range []struct {
		name   string
		header []string
		want   int
	}{
		{"no header", nil, 204},
		{"its own name", []string{"order"}, 204},
		{"its own name in another case", []string{"Order"}, 204},
		{"another name", []string{"user"}, 421},
		{"two names", []string{"order", "user"}, 421},
		{"an empty name", []string{""}, 421},
	} {
		t.Run(c.name, func(t *testing.T) {
			served := false
			guard := httpmesh.RequireService("order", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				served = true
				if diff := cmp.Diff(c.header, r.Header.Values(httpmesh.ServiceHeader)); diff != "" {
					t.Errorf("the header changed: %s", diff)
				}
				w.WriteHeader(204)
			}))
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/orders/1?secret=1", strings.NewReader("x"))
			if c.header != nil {
				r.Header[httpmesh.ServiceHeader] = c.header
			}
			w := httptest.NewRecorder()
			guard.ServeHTTP(w, r)
			if w.Code != c.want || served != (c.want == 204) {
				t.Errorf("got %d, served %v; want %d", w.Code, served, c.want)
			}
			if named := w.Header().Get(httpmesh.ServiceHeader) == "order"; named != (served && c.header != nil) {
				t.Errorf("the answer is headed %v; want our name if we were asked by it", w.Header())
			}
		})
	}
}

func TestRequestForAnotherServiceIsAProblemAndClosesTheConnection(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/orders/1?secret=1", nil)
	r.Header.Set(httpmesh.ServiceHeader, `us"er`)
	w := httptest.NewRecorder()
	httpmesh.RequireService("order", http.NotFoundHandler()).ServeHTTP(w, r)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "about:blank", "title": "Misdirected Request", "status": 421.0,
		"detail": `the request is meant for "us\"er"; this is "order"`, "instance": "/orders/1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problem (-want +got):\n%s", diff)
	}
	if w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Connection") != "close" {
		t.Errorf("got headers %v", w.Header())
	}
}

func TestRefusalNamesAForeignServiceInWholeCharactersAndAnswersHEADWithoutABody(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		r := httptest.NewRequestWithContext(t.Context(), method, "/a%20b", nil)
		r.Header.Set(httpmesh.ServiceHeader, "a"+strings.Repeat("é", 60))
		w := httptest.NewRecorder()
		httpmesh.RequireService("order", http.NotFoundHandler()).ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != http.StatusMisdirectedRequest || (method == http.MethodHead) != (body == "") || strings.Contains(body, `\x`) {
			t.Errorf("%s: got %d %q; want a 421, the name in whole characters, and no body for HEAD", method, w.Code, body)
		}
	}
}
