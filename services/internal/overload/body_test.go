package overload_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

// slowBody is a body that comes when it is let go.
type slowBody struct {
	text    *strings.Reader
	release chan struct{}
}

func slowly(text string) *slowBody {
	return &slowBody{text: strings.NewReader(text), release: make(chan struct{})}
}

func (b *slowBody) Read(p []byte) (int, error) {
	<-b.release
	return b.text.Read(p)
}

func post(h http.Handler, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/orders/1", body))
	return w
}

// echoes answers with the body it got.
var echoes = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })

func TestRequestWhoseBodyIsStillComingTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, h := limited(t, overload.Config{Start: 1}, echoes)
		var bodies []*slowBody
		var senders sync.WaitGroup
		for range 10 {
			body := slowly("slow")
			bodies = append(bodies, body)
			senders.Go(func() {
				if w := post(h, body); w.Code != http.StatusOK || w.Body.String() != "slow" {
					t.Errorf("one that sent slowly got %d %s; want 200 and the body", w.Code, w.Body)
				}
			})
		}
		synctest.Wait()
		if _, atWork := l.Now(overload.Write); atWork != 0 {
			t.Errorf("%d at work while their bodies are coming; want none", atWork)
		}
		if w := post(h, strings.NewReader("quick")); w.Code != http.StatusOK || w.Body.String() != "quick" {
			t.Errorf("got %d %s; want 200 and the body", w.Code, w.Body)
		}
		for _, body := range bodies { // one after another, or they would be too many
			close(body.release)
			synctest.Wait()
		}
		senders.Wait()
	})
}

func TestFullServerShedsBeforeItReadsTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hang()
		shed := 0
		_, limited := limited(t, overload.Config{Start: 1, Shed: func(overload.Kind) { shed++ }}, h)
		var first sync.WaitGroup
		first.Go(func() { serve(limited, http.MethodPost) })
		<-h.inside
		body := slowly("never asked for")
		if w := post(limited, body); w.Code != http.StatusServiceUnavailable || w.Header().Get("Rollcall-Reason") != "overload" || shed != 1 {
			t.Errorf("got %d %v, %d told of; want it shed, and one told of", w.Code, w.Header(), shed)
		}
		close(h.release)
		first.Wait()
	})
}

func TestShedRequestIsToldAtOnceThoughItsBodyNeverComes(t *testing.T) {
	h := hang()
	_, limited := limited(t, overload.Config{Start: 1}, h)
	server := httptest.NewServer(limited)
	defer server.Close()
	var first sync.WaitGroup
	first.Go(func() { serve(limited, http.MethodPost) })
	<-h.inside
	for _, tc := range []struct {
		about, body string
		again       bool // the connection serves another request
	}{
		{"Content-Length: 4", "half", true},
		{"Content-Length: 8", "half", false},
		{"Content-Length: 100000", "half", false},
		{"Transfer-Encoding: chunked", "4\r\nhalf\r\n", false},
		{"Content-Length: 4\r\nExpect: 100-continue", "", false},
	} {
		t.Run(tc.about, func(t *testing.T) {
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			in := bufio.NewReader(conn)
			for range 2 {
				fmt.Fprintf(conn, "POST /orders/1 HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s", tc.about, tc.body)
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("got %s, %v; want 503", resp.Status, err)
				}
				resp.Body.Close()
				if !tc.again {
					break
				}
			}
		})
	}
	close(h.release)
	first.Wait()
}

func TestRequestWhoseBodyCameWhenTheServerIsFullIsShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hang()
		_, limited := limited(t, overload.Config{Start: 1}, h)
		body := slowly("late")
		var both sync.WaitGroup
		both.Go(func() {
			if w := post(limited, body); w.Code != http.StatusServiceUnavailable {
				t.Errorf("got %d; want 503", w.Code)
			}
		})
		synctest.Wait()
		both.Go(func() { serve(limited, http.MethodPost) })
		<-h.inside
		close(body.release)
		synctest.Wait()
		if len(h.inside) > 0 {
			t.Error("what was shed reached the handler")
		}
		close(h.release)
		both.Wait()
	})
}

// counted counts what is read of it.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestHandlerReadsABodyAsItCameAndNoMoreThanMaxBody(t *testing.T) {
	const most = 100
	broken := errors.New("broken off")
	for name, tc := range map[string]struct {
		body   io.Reader
		length int64 // -1: not known
		want   int   // bytes
		err    error
		source int // bytes that may be read at most
	}{
		"whole":                {strings.NewReader("hello"), 5, 5, nil, 5},
		"chunked":              {iotest.OneByteReader(strings.NewReader("hello")), -1, 5, nil, 5},
		"the largest":          {strings.NewReader(strings.Repeat("x", most)), -1, most, nil, most},
		"larger, chunked":      {endless{}, -1, most, &http.MaxBytesError{}, most + 1},
		"larger, and it says":  {endless{}, most + 1, 0, &http.MaxBytesError{}, 0},
		"broken off":           {io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(broken)), 5, 3, broken, 3},
		"one that came late":   {io.MultiReader(strings.NewReader("hel"), iotest.ErrReader(os.ErrDeadlineExceeded)), 5, 3, os.ErrDeadlineExceeded, 3},
		"broken off at once":   {iotest.ErrReader(broken), -1, 0, broken, 0},
		"empty, but it is one": {strings.NewReader(""), -1, 0, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			source := &counted{Reader: tc.body}
			called := false
			_, h := limited(t, overload.Config{MaxBody: most}, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				called = true
				before := source.n
				got, err := io.ReadAll(r.Body)
				if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok && tooLarge.Limit == most {
					err = tc.err
				}
				if len(got) != tc.want || !errors.Is(err, tc.err) || r.ContentLength != tc.length {
					t.Errorf("got %d bytes of %d, %v; want %d, %v", len(got), r.ContentLength, err, tc.want, tc.err)
				}
				if source.n != before || source.n > tc.source {
					t.Errorf("%d bytes were read before, %d with the handler; want at most %d before, and no more", before, source.n-before, tc.source)
				}
				if err := r.Body.Close(); err != nil {
					t.Error(err)
				}
			}))
			r := httptest.NewRequest(http.MethodPost, "/orders/1", source)
			r.ContentLength = tc.length
			h.ServeHTTP(httptest.NewRecorder(), r)
			if !called {
				t.Error("the handler was not called")
			}
		})
	}
}
