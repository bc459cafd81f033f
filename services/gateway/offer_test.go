package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// h2cOffer is what the JDK's client and curl --http2 send besides.
const h2cOffer = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA"

func TestOfferOfH2CGoesNoFurtherThanTheDoor(t *testing.T) {
	seen := make(chan http.Header, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
	for _, tc := range []struct{ offer, upgrade, connection string }{
		{h2cOffer, "", ""},
		{"Upgrade: H2C\r\nConnection: upgrade", "", ""},
		{"Upgrade: h2c/1\r\nConnection: Upgrade", "", ""},
		{"HTTP2-Settings: x", "", ""},
		{"Upgrade: h2c, websocket\r\nConnection: HTTP2-Settings , Upgrade\r\nHTTP2-Settings: x", "websocket", "Upgrade"},
		{"Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nConnection: HTTP2-Settings\r\nHTTP2-Settings: x", "websocket", "Upgrade"},
		{"Upgrade: websocket\r\nConnection: Upgrade", "websocket", "Upgrade"},
	} {
		c := d.dial()
		c.say("GET /users/1 HTTP/1.1", "Host: x", tc.offer, "")
		got := await(t, "the request", seen)
		if got.Get("Upgrade") != tc.upgrade || got.Get("Connection") != tc.connection || got.Values("Http2-Settings") != nil {
			t.Errorf("%q: the service got %v; want Upgrade %q, Connection %q, no HTTP2-Settings", tc.offer, got, tc.upgrade, tc.connection)
		}
		if resp, _ := c.whole(http.MethodGet); resp.StatusCode != http.StatusOK {
			t.Errorf("%q: got %s; want 200", tc.offer, resp.Status)
		}
	}
}

func TestSwitchOfProtocolsThatNobodyAskedForIs502AndLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct{ request, upgrade string }{
		"nothing asked":        {"GET /users/1 HTTP/1.1\r\nHost: x\r\n\r\n", "foo"},
		"no protocol named":    {"GET /users/1 HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		"a POST":               {"POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "foo"},
		"another one asked":    {"GET /users/1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "foo"},
		"the offer was of h2c": {"GET /users/1 HTTP/1.1\r\nHost: x\r\n" + h2cOffer + "\r\n\r\n", "h2c"},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			d := throughRaw(t, options{}, func(c *wire) {
				defer close(ended)
				if _, err := http.ReadRequest(c.buf); err != nil {
					t.Error(err)
				}
				upgrade := "Connection: Upgrade\r\nUpgrade: " + tc.upgrade
				if tc.upgrade == "" {
					upgrade = "X-Nothing: x"
				}
				c.say("HTTP/1.1 101 Switching Protocols", upgrade, "", "frames")
				_, _ = io.Copy(io.Discard, c.buf)
			})
			c := d.dial()
			fmt.Fprint(c, tc.request)
			resp, body := c.whole(http.MethodGet)
			if resp.StatusCode != http.StatusBadGateway || resp.Close || strings.Contains(body, "frames") {
				t.Errorf("got %s %q, close %t; want 502, and the client's connection to go on", resp.Status, body, resp.Close)
			}
			await(t, "the connection behind to be closed", ended)
		})
	}
}
