package problem

import (
	"net/http"
	"path"
)

// Router returns a handler that serves what mux has, and answers everything
// else with a problem: 404 for a path that mux does not know, 405 with Allow
// for a method that the path does not take.
//
// A path that is not in its clean form ("//", "/./", "/../") is an unknown one:
// where mux would redirect, a POST would lose its body or be sent twice.
// Requests reach mux as they are, not as copies, so that their Pattern can be
// read by whoever called Router's handler.
func Router(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "*" {
			Write(w, r, New(http.StatusBadRequest, "the target * is for OPTIONS only"))
			return
		}
		if r.URL.Path != clean(r.URL.Path) {
			Write(w, r, notFound(r))
			return
		}
		refusal, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		var said recorder
		refusal.ServeHTTP(&said, r)
		if said.status != http.StatusMethodNotAllowed {
			Write(w, r, notFound(r))
			return
		}
		allow := said.Header().Get("Allow")
		p := New(http.StatusMethodNotAllowed, "%s does not take %s; it takes %s", r.URL.EscapedPath(), r.Method, allow)
		p.Header = http.Header{"Allow": {allow}}
		Write(w, r, p)
	})
}

func notFound(r *http.Request) *Problem {
	return New(http.StatusNotFound, "nothing is at %s", r.URL.EscapedPath())
}

// clean is the form of a path that http.ServeMux matches without a redirect.
func clean(p string) string {
	if p == "" || p[0] != '/' {
		return "/" + p // not p, so never clean
	}
	c := path.Clean(p)
	if p[len(p)-1] == '/' && c != "/" {
		c += "/"
	}
	return c
}

// recorder notes what a handler says and throws its body away.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return len(b), nil
}
