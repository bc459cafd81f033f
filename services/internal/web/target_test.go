package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// RFC 9110, section 4.2.4: user information in a target is to be taken for an
// error, since it is there to mislead.
func TestUserInformationInTheTargetIsA400(t *testing.T) {
	called := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") })
	for _, head := range []string{
		"GET http://u:p@x/ HTTP/1.1\r\nHost: x\r\n",
		"GET http://u@x/users/1 HTTP/1.1\r\nHost: x\r\n",
		"GET http://@x/ HTTP/1.1\r\nHost: x\r\n",
		"POST https://u:p@x/orders/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n",
	} {
		t.Run(strings.Join(strings.Fields(head), " "), func(t *testing.T) {
			bubble(t, limits(), called, func(t *testing.T, r *rig) {
				c, err := r.pipes.dial()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				go fmt.Fprint(c, head+"Connection: close\r\n\r\n")
				got := closes(t, c)
				if !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\r\n") || !strings.Contains(got, "application/problem+json") {
					t.Errorf("got %q; want a 400 problem", got)
				}
				if strings.Contains(got, "u:p") || strings.Contains(r.log.String(), "u:p") {
					t.Errorf("user information is repeated:\n%s\n%s", got, r.log)
				}
			})
		})
	}
}

func TestAbsoluteTargetIsServed(t *testing.T) {
	bubble(t, limits(), hello, func(t *testing.T, r *rig) {
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go fmt.Fprint(c, "GET http://x:80/a@b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if got := closes(t, c); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") {
			t.Errorf("got %q; want hello", got)
		}
	})
}

// They have neither a request's ID nor a line in the log: docs/reference/http.md
// says so.
func TestAnswersBeforeAnyHandlerAreNetHTTPs(t *testing.T) {
	for sent, status := range map[string]string{
		"what\r\n\r\n":           "400",
		"GET / HTTP/1.1\r\n\r\n": "400",
		"GET / HTTP/1.1\r\nHost: x\r\nbad header: x\r\n\r\n":            "400",
		"GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n":         "417",
		"GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 80_000) + "\r\n":  "431",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n": "501",
		"GET / HTTP/3.0\r\nHost: x\r\n\r\n":                             "505",
	} {
		bubble(t, limits(), hello, func(t *testing.T, r *rig) {
			c, err := r.pipes.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go fmt.Fprint(c, sent)
			got := closes(t, c)
			if !strings.HasPrefix(got, "HTTP/1.1 "+status) || strings.Contains(got, "X-Request-Id") || len(r.log.named(t, "request")) != 0 {
				t.Errorf("%q: got %q; want net/http's own %s", sent[:min(len(sent), 60)], got, status)
			}
		})
	}
}
