package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestNothingOfOursLeavesWithAnyStatusOrTrailer(t *testing.T) {
	const ours = "Rollcall-Service: user\r\nrollcall-reason: overload\r\nX-Theirs: yes"
	for name, answer := range map[string]string{
		"103 and 200": "HTTP/1.1 103 Early Hints\r\n" + ours + "\r\n\r\nHTTP/1.1 200 OK\r\n" + ours + "\r\nContent-Length: 0\r\n\r\n",
		"102 and 500": "HTTP/1.1 102 Processing\r\n" + ours + "\r\n\r\nHTTP/1.1 500 No\r\n" + ours + "\r\nContent-Length: 0\r\n\r\n",
		"101":         "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n" + ours + "\r\n\r\n",
		"a trailer":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n" + ours + "\r\n\r\n",
		"an announced trailer": "HTTP/1.1 200 OK\r\nTrailer: Rollcall-Service, X-Theirs\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"2\r\nhi\r\n0\r\n" + ours + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := throughRaw(t, options{}, func(c *wire) {
				if _, err := http.ReadRequest(c.buf); err != nil {
					t.Error(err)
				}
				fmt.Fprint(c, answer)
			})
			c := d.dial()
			upgrade := "Connection: close"
			if name == "101" {
				upgrade = "Connection: Upgrade\r\nUpgrade: echo"
			}
			c.say("GET /users/1 HTTP/1.1", "Host: x", "TE: trailers", upgrade, "")
			raw, err := io.ReadAll(c.buf)
			if err != nil || strings.Contains(strings.ToLower(string(raw)), "rollcall-") || !strings.Contains(string(raw), "X-Theirs: yes") {
				t.Errorf("the client got %q, %v; want theirs, and nothing of ours", raw, err)
			}
		})
	}
}

func TestNothingOfOursComesInWithATrailer(t *testing.T) {
	seen := make(chan http.Header, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) {
		announced := r.Trailer.Clone()
		_, _ = io.Copy(io.Discard, r.Body)
		for name := range r.Trailer {
			announced[name] = r.Trailer[name]
		}
		seen <- announced
	})
	c := d.dial()
	c.say("POST /users HTTP/1.1", "Host: x", "Trailer: Rollcall-Service, X-Check", "Transfer-Encoding: chunked", "")
	c.chunk("hi")
	c.say("0", "Rollcall-Service: order", "X-Check: abc", "")
	got := await(t, "the trailer", seen)
	if _, there := got["Rollcall-Service"]; there || got.Get("X-Check") != "abc" {
		t.Errorf("the service got the trailer %v; want X-Check alone", got)
	}
	c.whole(http.MethodPost)
}

func TestListOfConnectionOptionsTakesNothingThatTheMeshNeeds(t *testing.T) {
	seen := make(chan http.Header, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Clone() })
	c := d.dial()
	c.say("POST /users HTTP/1.1", "Host: x", "X-Request-Id: id-1", "Idempotency-Key: key-1", "X-Hop: x", "Content-Length: 2",
		"Connection: x-request-id, Idempotency-Key, Rollcall-Service, Rollcall-Timeout, Forwarded, X-Forwarded-For, X-Hop", "")
	fmt.Fprint(c, "{}")
	got := await(t, "the request", seen)
	for name, want := range map[string]string{
		"X-Request-Id": "id-1", "Idempotency-Key": "key-1", "Rollcall-Service": "user", "X-Forwarded-For": "127.0.0.1", "X-Hop": "",
	} {
		if have := strings.Join(got.Values(name), ","); have != want {
			t.Errorf("%s is %q; want %q", name, have, want)
		}
	}
	if got.Get("Rollcall-Timeout") == "" || got.Get("Forwarded") == "" {
		t.Errorf("the service got %v; want Rollcall-Timeout and Forwarded", got)
	}
	if resp, _ := c.whole(http.MethodPost); resp.Header.Get("X-Request-Id") != "id-1" {
		t.Errorf("the answer's ID is %q; want the one that the service got", resp.Header.Get("X-Request-Id"))
	}
}
