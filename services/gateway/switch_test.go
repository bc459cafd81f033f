package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// behind returns the handler of a gateway whose transport is f.
func behind(t *testing.T, cfg Config, f roundTrip) http.Handler {
	t.Helper()
	cfg.Transport, cfg.Log = f, slog.New(slog.DiscardHandler)
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g.Handler(Route{Prefix: "/users", Service: "user"})
}

// both is the body of a 101.
type both struct {
	io.Reader
	closed bool
}

func (b *both) Write(p []byte) (int, error) { return len(p), nil }
func (b *both) Close() error                { b.closed = true; return nil }

func TestSwitchOfProtocolsThatNobodyAskedForIsClosedWhateverTheTransport(t *testing.T) {
	for _, tc := range []struct{ asked, switched string }{
		{"", ""},
		{"", "websocket"},
		{"websocket", ""},
		{"websocket", "h2c"},
		{"h2c", "h2c"},
		{"websocket, h2c", "h2c"},
	} {
		t.Run(fmt.Sprintf("%q to %q", tc.asked, tc.switched), func(t *testing.T) {
			conn := &both{Reader: strings.NewReader("")}
			h := behind(t, Config{}, func(r *http.Request) (*http.Response, error) {
				header := http.Header{}
				if tc.switched != "" {
					header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {tc.switched}}
				}
				return &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: header, Request: r, Body: conn}, nil
			})
			r := httptest.NewRequest(http.MethodGet, "/users/1", nil)
			if tc.asked != "" {
				r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {tc.asked}}
			}
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); w.Code != http.StatusBadGateway || !conn.closed {
				t.Errorf("got %d, connection closed: %t; want 502, and it closed", w.Code, conn.closed)
			}
		})
	}
}
