package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestUploadArrivesBeforeItsLastByteIsSent(t *testing.T) {
	got := make(chan string, 3)
	d := through(t, options{}, func(_ http.ResponseWriter, r *http.Request) {
		got <- fmt.Sprint("length ", r.ContentLength)
		for in := bufio.NewReader(r.Body); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			got <- line
		}
	})
	for _, tc := range []struct {
		header, length string
		first, second  func(c *wire)
	}{
		{
			"Transfer-Encoding: chunked", "length -1",
			func(c *wire) { c.chunk("one\n") },
			func(c *wire) { c.chunk("two\n"); c.say("0", "") },
		},
		{ // too large to be read before it is sent on
			"Content-Length: 65537", "length 65537",
			func(c *wire) { fmt.Fprint(c, "one\n") },
			func(c *wire) { fmt.Fprint(c, "two\n", strings.Repeat("x", 65537-8)) },
		},
	} {
		t.Run(tc.header, func(t *testing.T) {
			c := d.dial()
			c.say("POST /users/x HTTP/1.1", "Host: x", tc.header, "")
			tc.first(c)
			for _, want := range []string{tc.length, "one\n"} {
				if piece := await(t, "the first piece", got); piece != want {
					t.Errorf("the service got %q; want %q", piece, want)
				}
			}
			tc.second(c)
			if piece := await(t, "the second piece", got); piece != "two\n" {
				t.Errorf("the service got %q; want %q", piece, "two\n")
			}
			if resp, _ := c.whole(http.MethodPost); resp.StatusCode != 200 {
				t.Errorf("got %s; want 200", resp.Status)
			}
		})
	}
}

func TestAnswerArrivesBeforeItsLastByteIsWritten(t *testing.T) {
	goOn := make(chan struct{})
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", "8")
		}
		for _, piece := range []string{"one\n", "two\n"} {
			fmt.Fprint(w, piece)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}
	})
	for _, target := range []string{"/users/x", "/users/x?length"} {
		resp, err := d.client.Do(d.request(http.MethodGet, target, nil))
		if err != nil {
			t.Fatal(err)
		}
		if known := resp.ContentLength == 8; known != strings.Contains(target, "length") {
			t.Errorf("%s: the length is %d", target, resp.ContentLength)
		}
		in := bufio.NewReader(resp.Body)
		for _, want := range []string{"one\n", "two\n"} {
			if piece, err := in.ReadString('\n'); piece != want {
				t.Fatalf("%s: got %q, %v; want %q", target, piece, err, want)
			}
			goOn <- struct{}{}
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("%s: at the end %q, %v", target, rest, err)
		}
		resp.Body.Close()
	}
}

// Server-Sent Events: short pieces with silence between them, longer than
// every timeout there is, for as long as the client likes.
func TestEventsArriveAsTheyHappen(t *testing.T) {
	left := make(chan struct{})
	d := through(t, options{answerTimeout: 150 * time.Millisecond, stream: 150 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-cache")
		for n := 0; ; n++ {
			fmt.Fprintf(w, "id: %d\ndata: after %s\n\n", n, r.Header.Get("Last-Event-Id"))
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
			select {
			case <-time.After(400 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	})
	resp, err := d.client.Do(d.request(http.MethodGet, "/users/events", nil, "Accept", "text/event-stream", "Last-Event-ID", "7"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") != "text/event-stream" || resp.ContentLength != -1 {
		t.Errorf("got %v, length %d; want an endless stream of events", resp.Header, resp.ContentLength)
	}
	in := bufio.NewReader(resp.Body)
	for n := range 3 {
		event := ""
		for range 3 {
			line, err := in.ReadString('\n')
			if err != nil {
				t.Fatalf("event %d: %v", n, err)
			}
			event += line
		}
		if want := fmt.Sprintf("id: %d\ndata: after 7\n\n", n); event != want {
			t.Errorf("got %q; want %q", event, want)
		}
	}
	resp.Body.Close()
	await(t, "the service to learn that the client has left", left)
}

func TestTrailersPassBothWays(t *testing.T) {
	seen := make(chan http.Header, 1)
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		if te := r.Header.Get("Te"); te != "trailers" {
			t.Errorf("TE is %q; want trailers", te)
		}
		w.Header().Set("Trailer", "X-Sum")
		_, _ = io.Copy(w, r.Body)
		seen <- r.Trailer
		w.Header().Set("X-Sum", "42")
		w.Header().Set(http.TrailerPrefix+"X-Late", "yes")
	})
	c := d.dial()
	c.say("POST /users/x HTTP/1.1", "Host: x", "TE: trailers", "Connection: TE", "Trailer: X-Check", "Transfer-Encoding: chunked", "")
	c.chunk("hello")
	c.say("0", "X-Check: abc", "")
	resp, body := c.whole(http.MethodPost)
	if resp.StatusCode != 200 || body != "hello" {
		t.Fatalf("got %s %q; want the echo", resp.Status, body)
	}
	if got := await(t, "the request's trailer", seen); got.Get("X-Check") != "abc" {
		t.Errorf("the service got the trailer %v; want X-Check: abc", got)
	}
	if resp.Trailer.Get("X-Sum") != "42" || resp.Trailer.Get("X-Late") != "yes" {
		t.Errorf("the client got the trailer %v; want X-Sum: 42, X-Late: yes", resp.Trailer)
	}
}

func TestBodyIsSentWhenTheServiceAsksForIt(t *testing.T) {
	reached, read := make(chan string, 1), make(chan string, 1)
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		reached <- r.Header.Get("Expect")
		body, _ := io.ReadAll(r.Body)
		read <- string(body)
		w.WriteHeader(http.StatusCreated)
	})
	c := d.dial()
	c.say("POST /users HTTP/1.1", "Host: x", "Expect: 100-continue", "Content-Length: 5", "")
	if expects := await(t, "the request without its body", reached); expects != "100-continue" {
		t.Errorf("the service is told Expect: %q; want 100-continue", expects)
	}
	if resp := c.answer(http.MethodPost); resp.StatusCode != http.StatusContinue {
		t.Fatalf("got %s; want 100 Continue", resp.Status)
	}
	fmt.Fprint(c, "hello")
	if resp, _ := c.whole(http.MethodPost); resp.StatusCode != http.StatusCreated {
		t.Errorf("got %s; want 201, and 100 once", resp.Status)
	}
	if body := await(t, "the body", read); body != "hello" {
		t.Errorf("the service read %q; want hello", body)
	}
}

func TestBodyThatTheServiceRefusesIsNeverAskedFor(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge)
	})
	for _, about := range []string{"Content-Length: 1000000000", "Content-Length: 5\r\nIdempotency-Key: key-1"} {
		c := d.dial()
		c.say("POST /users HTTP/1.1", "Host: x", "Expect: 100-continue", about, "")
		resp, body := c.whole(http.MethodPost)
		if resp.StatusCode != http.StatusRequestEntityTooLarge || body != "too much\n" || !resp.Close {
			t.Errorf("%q: got %s %q, close %t; want the 413 before any 100, and the connection closed", about, resp.Status, body, resp.Close)
		}
		_ = c.Close() // else net/http still waits for a body that is small
	}
}

func TestAnswerMayComeWhileTheUploadGoesOn(t *testing.T) {
	read := make(chan int64, 1)
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		fmt.Fprintln(w, "early")
		_ = control.Flush()
		n, _ := io.Copy(io.Discard, r.Body)
		read <- n
		fmt.Fprintln(w, "late")
	})
	c := d.dial()
	c.say("POST /users/x HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", "")
	c.chunk("one")
	in := bufio.NewReader(c.answer(http.MethodPost).Body)
	if line, err := in.ReadString('\n'); line != "early\n" {
		t.Fatalf("got %q, %v; want the beginning of the answer", line, err)
	}
	c.chunk("two")
	c.say("0", "")
	if n := await(t, "the rest of the upload", read); n != 6 {
		t.Errorf("the service read %d bytes; want 6", n)
	}
	if line, err := in.ReadString('\n'); line != "late\n" {
		t.Errorf("got %q, %v; want the end of the answer", line, err)
	}
}

func TestRefusalReachesAClientThatStillSends(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not you", http.StatusForbidden) })
	for _, length := range []string{"Content-Length: 67108864", "Transfer-Encoding: chunked"} {
		c := d.dial()
		c.say("POST /users HTTP/1.1", "Host: x", length, "")
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			piece := strings.Repeat("x", 1<<20)
			for range 64 {
				if strings.HasPrefix(length, "Transfer") {
					fmt.Fprintf(c, "%x\r\n", len(piece))
				}
				if _, err := io.WriteString(c, piece+"\r\n"[:2*strings.Count(length, "chunked")]); err != nil {
					return // it was told to stop
				}
			}
		}()
		if resp, body := c.whole(http.MethodPost); resp.StatusCode != http.StatusForbidden || body != "not you\n" {
			t.Errorf("%s: got %s %q; want the service's 403", length, resp.Status, body)
		}
		c.Close()
		await(t, "the upload to end", stopped)
	}
}

func TestInformationalAnswersPass(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.Header().Set("X-Request-Id", "theirs")
		w.Header().Set("X-Served-By", "a liar")
		w.WriteHeader(http.StatusEarlyHints)
		fmt.Fprint(w, "hello")
	})
	c := d.dial()
	c.say("GET /users/1 HTTP/1.1", "Host: x", "")
	hints := c.answer(http.MethodGet)
	if hints.StatusCode != http.StatusEarlyHints || hints.Header.Get("Link") == "" {
		t.Errorf("got %s %v; want the hints", hints.Status, hints.Header)
	}
	if ids := hints.Header.Values("X-Request-Id"); len(ids) != 1 || ids[0] == "theirs" || hints.Header.Get("X-Served-By") != "" {
		t.Errorf("the hints have %v; want our request ID alone, and nobody named", hints.Header)
	}
	if resp, body := c.whole(http.MethodGet); resp.StatusCode != 200 || body != "hello" || resp.Header.Get("X-Served-By") != "user-1" || resp.Header.Get("X-Request-Id") == "" {
		t.Errorf("got %s %q %v; want the answer with our headers", resp.Status, body, resp.Header)
	}
}

func TestLargeBodiesOfUnknownLengthPassWhole(t *testing.T) {
	d := through(t, options{}, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		_, _ = io.Copy(w, r.Body)
	})
	content := make([]byte, 8<<20+3)
	if _, err := io.ReadFull(rand.NewChaCha8([32]byte{6}), content); err != nil {
		t.Fatal(err)
	}
	// Neither the length nor anything else is known of it.
	resp, err := d.client.Do(d.request(http.MethodPost, "/users/x", io.MultiReader(bytes.NewReader(content))))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sum := sha256.New()
	if n, err := io.Copy(sum, resp.Body); n != int64(len(content)) || err != nil {
		t.Errorf("got %d bytes, %v; want %d", n, err, len(content))
	}
	if want := sha256.Sum256(content); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("what comes back is not what was sent")
	}
}
