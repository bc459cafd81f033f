package gateway

import (
	"crypto/tls"
	"net/http"
	"testing"
)

func TestForwardedFollowsRFC7239(t *testing.T) {
	for _, tc := range []struct {
		remote, host string
		tls          *tls.ConnectionState
		want         string
	}{
		{"192.0.2.1:5000", "localhost:8080", nil, `for=192.0.2.1;host="localhost:8080";proto=http`},
		{"[2001:db8::1]:5000", "example.org", nil, `for="[2001:db8::1]";host="example.org";proto=http`},
		{"192.0.2.1:5000", `a"b\c`, nil, `for=192.0.2.1;host="a\"b\\c";proto=http`},
		{"@", "example.org", &tls.ConnectionState{}, `for=unknown;host="example.org";proto=https`},
	} {
		h := http.Header{}
		edge{}.of(&http.Request{RemoteAddr: tc.remote, Host: tc.host, TLS: tc.tls}).tell(h)
		if got := h.Get("Forwarded"); got != tc.want {
			t.Errorf("forwarded from %s to %s is %s; want %s", tc.remote, tc.host, got, tc.want)
		}
	}
}
