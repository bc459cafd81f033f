package web

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzRequestID: whatever a client says it is, the ID that goes into logs and
// headers is well formed; one that was well formed is kept.
func FuzzRequestID(f *testing.F) {
	for _, id := range []string{"id-1", "", "a b", "a\nlevel=error", "é", "../../x", string(make([]byte, 200))} {
		f.Add(id, false)
	}
	f.Add("id-1", true)
	f.Fuzz(func(t *testing.T, id string, twice bool) {
		h := http.Header{}
		h.Add(RequestIDHeader, id)
		if twice {
			h.Add(RequestIDHeader, id)
		}
		got := requestID(h)
		if !wellFormed(got) {
			t.Errorf("%q became %q, which is not well formed", id, got)
		}
		for _, c := range []byte(got) {
			if c <= ' ' || c > '~' || c == '"' || c == '\\' || c == '=' {
				t.Errorf("%q became %q, which breaks a line of the log", id, got)
			}
		}
		if !twice && wellFormed(id) && got != id {
			t.Errorf("%q became %q; want it kept", id, got)
		}
	})
}

// FuzzConnectionList: whatever a client lists, a proxy that heeds the list drops
// none of our headers, and all others that stood there.
func FuzzConnectionList(f *testing.F) {
	for _, list := range []string{"", "close", "X-Request-Id", "close,\tx-request-id ,X-Hop", ",,", "Rollcall-Service", "é,X-Requeſt-Id"} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		h := http.Header{"Connection": {list}}
		unlist(h, "Connection")
		left := map[string]bool{}
		for name := range strings.SplitSeq(h["Connection"][0], ",") {
			left[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
		for name := range strings.SplitSeq(list, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if ours := isOurs(name); name != "" && ours == left[name] {
				t.Errorf("%q became %q: %q is there %v", list, h["Connection"][0], name, left[name])
			}
		}
	})
}
