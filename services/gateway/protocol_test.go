package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestConnectionCloseHoldsForOneHopOnly(t *testing.T) {
	var from []string // the gateway's address, of each request behind it
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		from = append(from, r.RemoteAddr)
		if r.Close || r.Header.Get("Connection") != "" {
			t.Errorf("the service is told Connection: %s, close %t", r.Header.Get("Connection"), r.Close)
		}
		if r.URL.Query().Has("leave") {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprint(w, "hello")
	})
	for range 2 {
		c := d.dial()
		c.say("GET /users/1 HTTP/1.1", "Host: x", "Connection: close", "")
		if resp, body := c.whole(http.MethodGet); body != "hello" || !resp.Close {
			t.Errorf("got %q, close %t; want the answer, and to be told", body, resp.Close)
		}
		c.wantEnd()
	}
	if len(from) != 2 || from[0] != from[1] {
		t.Errorf("the requests behind came from %v; want one connection", from)
	}
	c := d.dial()
	for range 2 {
		c.say("GET /users/1?leave HTTP/1.1", "Host: x", "")
		if resp, body := c.whole(http.MethodGet); body != "hello" || resp.Close {
			t.Errorf("got %q, close %t; want the client's connection to go on", body, resp.Close)
		}
	}
	if len(from) != 4 || from[2] == from[3] {
		t.Errorf("the requests behind came from %v; want a new connection for the last", from)
	}
}

func TestHTTP10ClientIsServed(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.Proto, body)
		_ = http.NewResponseController(w).Flush() // so that the length is not known
		fmt.Fprint(w, ".")
	})
	c := d.dial()
	c.say("GET /users/1 HTTP/1.0", "")
	resp, body := c.whole(http.MethodGet)
	if resp.StatusCode != 200 || len(resp.TransferEncoding) > 0 || body != "HTTP/1.1 ." {
		t.Errorf("got %s %v %q; want an answer that ends with the connection", resp.Status, resp.TransferEncoding, body)
	}
	c.wantEnd()
	c = d.dial()
	c.say("POST /users HTTP/1.0", "Content-Length: 2", "")
	fmt.Fprint(c, "hi")
	if _, body := c.whole(http.MethodPost); body != "HTTP/1.1 hi." {
		t.Errorf("got %q; want the body to have passed", body)
	}
}

func TestHTTP10ClientMayKeepItsConnection(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	c := d.dial()
	for range 2 {
		c.say("GET /users/1 HTTP/1.0", "Connection: keep-alive", "")
		if resp, body := c.whole(http.MethodGet); body != "hello" || resp.Header.Get("Connection") != "keep-alive" {
			t.Errorf("got %q, Connection: %s; want the connection kept", body, resp.Header.Get("Connection"))
		}
	}
}

func TestServiceThatSpeaksHTTP10IsUnderstood(t *testing.T) {
	d := throughRaw(t, options{}, func(c *wire) {
		if _, err := http.ReadRequest(c.buf); err != nil {
			t.Error(err)
		}
		c.say("HTTP/1.0 200 OK", "Content-Type: text/plain", "", "until the end")
	})
	c := d.dial()
	for range 2 {
		c.say("GET /users/1 HTTP/1.1", "Host: x", "")
		if resp, body := c.whole(http.MethodGet); resp.StatusCode != 200 || body != "until the end\r\n" || resp.Close {
			t.Errorf("got %s %q, close %t; want it whole, and the client's connection to go on", resp.Status, body, resp.Close)
		}
	}
}

func TestServiceThatSpeaksNoHTTPIs502(t *testing.T) {
	for _, answer := range []string{"SSH-2.0-OpenSSH_9.2p1", "HTTP/1.1 two hundred", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", ""} {
		t.Run(answer, func(t *testing.T) {
			d := throughRaw(t, options{}, func(c *wire) {
				if _, err := http.ReadRequest(c.buf); err != nil {
					t.Error(err)
				}
				c.say(answer)
			})
			resp, body := d.do(d.request(http.MethodPost, "/users", strings.NewReader("{}")))
			if p := d.unserved(resp, body); resp.StatusCode != http.StatusBadGateway {
				t.Errorf("got %s %+v; want 502", resp.Status, p)
			}
		})
	}
}

func TestAnswersWithoutABodyHaveNone(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		switch r.URL.Path {
		case "/users/none":
			w.WriteHeader(http.StatusNoContent)
		case "/users/same":
			w.WriteHeader(http.StatusNotModified)
		case "/users/empty":
			w.WriteHeader(http.StatusOK)
		default:
			w.Header().Set("Content-Length", "5")
			if r.Method != http.MethodHead {
				fmt.Fprint(w, "hello")
			}
		}
	})
	c := d.dial() // one connection: an answer that is taken for longer or shorter spoils the next
	for _, tc := range []struct {
		method, path string
		status       int
		length       string
	}{
		{http.MethodHead, "/users/1", 200, "5"},
		{http.MethodGet, "/users/none", 204, ""},
		{http.MethodGet, "/users/same", 304, ""},
		{http.MethodGet, "/users/empty", 200, "0"},
		{http.MethodHead, "/users/none", 204, ""},
		{http.MethodHead, "/nobody", 404, "*"},
		{http.MethodHead, "/orders/1", 503, "*"}, // nobody offers it
	} {
		c.say(tc.method+" "+tc.path+" HTTP/1.1", "Host: x", "")
		resp, body := c.whole(tc.method)
		length := resp.Header.Get("Content-Length")
		if resp.StatusCode != tc.status || body != "" || length != tc.length && tc.length != "*" || tc.length == "*" && length == "" {
			t.Errorf("%s %s: got %s, length %q, %q; want %d, length %q, no body", tc.method, tc.path, resp.Status, length, body, tc.status, tc.length)
		}
	}
}

func TestLargeHeadersPassUpToTheLimit(t *testing.T) {
	sent := strings.Repeat("q", 15<<10)
	back := strings.Repeat("a", 200<<10)
	asked := 0
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("X-Large") != sent {
			t.Errorf("the service got %d bytes; want %d", len(r.Header.Get("X-Large")), len(sent))
		}
		w.Header().Set("X-Large", back)
	})
	if resp, _ := d.do(d.request(http.MethodGet, "/users/1", nil, "X-Large", sent)); resp.StatusCode != 200 || resp.Header.Get("X-Large") != back {
		t.Errorf("got %s with %d bytes; want all %d", resp.Status, len(resp.Header.Get("X-Large")), len(back))
	}
	if resp, _ := d.do(d.request(http.MethodGet, "/users/1", nil, "X-Large", sent+sent)); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || asked != 1 {
		t.Errorf("got %s after %d requests behind; want 431 after one", resp.Status, asked)
	}
}

func TestPipelinedRequestsAreAnsweredInTheirOrder(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, " ", r.URL.Path, " ", string(body))
	})
	c := d.dial()
	fmt.Fprint(c, "POST /users/a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"+
		"POST /users/b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n"+
		"GET /users/c HTTP/1.1\r\nHost: x\r\n\r\n")
	for _, want := range []string{"POST /users/a one", "POST /users/b two", "GET /users/c "} {
		if _, body := c.whole(http.MethodPost); body != want {
			t.Errorf("got %q; want %q", body, want)
		}
	}
}

// What two parsers may read in two ways must not get past the door: a second
// request could hide in it.
func TestAmbiguousLengthsDoNotGetPastTheDoor(t *testing.T) {
	type behind struct {
		length   int64
		encoding []string
		body     string
	}
	seen := make(chan behind, 1)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen <- behind{r.ContentLength, r.TransferEncoding, string(body)}
	})
	for _, headers := range []string{
		"Content-Length: 3\r\nContent-Length: 4",
		"Content-Length: 3, 4",
		"Content-Length: +3",
		"Content-Length: 0x3",
		"Transfer-Encoding: chunked, chunked",
		"Transfer-Encoding: gzip, chunked",
		"Transfer-Encoding: \x0bchunked",
		"Transfer-Encoding : chunked",
		"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
	} {
		c := d.dial()
		fmt.Fprint(c, "POST /users HTTP/1.1\r\nHost: x\r\n"+headers+"\r\n\r\nabcd")
		if resp := c.answer(http.MethodPost); resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotImplemented {
			t.Errorf("%q: got %s; want 400 or 501", headers, resp.Status)
		}
	}
	c := d.dial()
	fmt.Fprint(c, "POST /users HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	c.whole(http.MethodPost)
	got := await(t, "the request", seen)
	if got.length != -1 || !slices.Equal(got.encoding, []string{"chunked"}) || got.body != "hello" {
		t.Errorf("the service got %+v; want the chunked body alone (RFC 9112, section 6.3)", got)
	}
}
