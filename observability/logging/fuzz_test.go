package logging

import (
	"net/http"
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
		got := TakeRequestID(h)
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
