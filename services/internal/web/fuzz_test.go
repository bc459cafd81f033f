package web

import (
	"net/http"
	"strings"
	"testing"
)

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
