package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// expecting sends the header of a request whose body waits for 100 Continue, and
// is never sent.
func (d *door) expecting(length string) *wire {
	d.t.Helper()
	c := d.dial()
	c.say("POST /users HTTP/1.1", "Host: x", "Expect: 100-continue", length, "")
	return c
}

func TestAnswerGivenBeforeAnExpectedBodyIsReadIsPassedOnAtOnce(t *testing.T) {
	for name, before := range map[string]func(c *wire){
		"at once":                                func(*wire) {},
		"after 100 Continue":                     func(c *wire) { c.say("HTTP/1.1 100 Continue", "") },
		"after longer than a body is waited for": func(*wire) { time.Sleep(1500 * time.Millisecond) },
	} {
		for _, length := range []string{"Content-Length: 5", "Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
			t.Run(name+", "+length, func(t *testing.T) {
				d := throughRaw(t, options{}, func(c *wire) {
					if _, err := http.ReadRequest(c.buf); err != nil {
						t.Error(err)
					}
					before(c)
					c.say("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", "5", "hello", "0", "")
					_, _ = io.Copy(io.Discard, c.buf)
				})
				c := d.expecting(length)
				defer c.Close()
				_ = c.SetReadDeadline(time.Now().Add(limit / 4))
				resp := c.answer(http.MethodPost)
				for resp.StatusCode == http.StatusContinue {
					resp = c.answer(http.MethodPost)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "hello" || resp.StatusCode != http.StatusOK || !resp.Close {
					t.Errorf("got %s %q, %v, close %t; want the whole answer, and the connection closed", resp.Status, body, err, resp.Close)
				}
			})
		}
	}
}

func TestClientThatLeavesAfterAnAnswerToABodyItNeverSentIsSeen(t *testing.T) {
	for name, before := range map[string]func(c *wire){
		"at once":            func(*wire) {},
		"after 100 Continue": func(c *wire) { c.say("HTTP/1.1 100 Continue", "") },
	} {
		for _, length := range []string{"Content-Length: 5", "Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
			t.Run(name+", "+length, func(t *testing.T) {
				ended := make(chan struct{})
				d := throughRaw(t, options{}, func(c *wire) {
					defer close(ended)
					if _, err := http.ReadRequest(c.buf); err != nil {
						t.Error(err)
					}
					before(c)
					c.say("HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", "", "5", "hello")
					_, _ = io.Copy(io.Discard, c.buf) // silence, until the gateway ends it
				})
				c := d.expecting(length)
				resp := c.answer(http.MethodPost)
				for resp.StatusCode == http.StatusContinue {
					resp = c.answer(http.MethodPost)
				}
				if piece, err := bufio.NewReader(resp.Body).Peek(5); string(piece) != "hello" {
					t.Errorf("got %q, %v; want the beginning of the answer", piece, err)
				}
				c.Close()
				select {
				case <-ended:
				case <-time.After(limit / 4):
					t.Error("the service was not told that the client has left")
				}
			})
		}
	}
}

func TestBytesThatComeAfterABodyWasGivenUpAreNoRequest(t *testing.T) {
	asked := make(chan string, 10)
	d := through(t, options{stream: 200 * time.Millisecond}, func(_ http.ResponseWriter, r *http.Request) {
		asked <- r.Method
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for _, length := range []string{
		"Content-Length: 40", "Content-Length: 40\r\nIdempotency-Key: key-1", "Content-Length: 100000", "Transfer-Encoding: chunked",
	} {
		c := d.dial()
		c.say("POST /users HTTP/1.1", "Host: x", length, "")
		resp := c.answer(http.MethodPost)
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusRequestTimeout || !resp.Close {
			t.Errorf("%s: got %s %s, %v, close %t; want 408, and the connection closed", length, resp.Status, body, err, resp.Close)
		}
		fmt.Fprint(c, "GET /users/2 HTTP/1.1\r\nHost: x\r\n\r\n")
		if rest, _ := io.ReadAll(c.buf); len(rest) > 0 {
			t.Errorf("%s: got %q; want no second answer", length, rest)
		}
	}
	for len(asked) > 0 {
		if method := <-asked; method != http.MethodPost {
			t.Errorf("the service got a %s; want the POSTs alone", method)
		}
	}
}
