package web_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// readers serves handlers that read the body, and go on when it breaks. late
// counts the requests that were made of what came after one.
func readers(late *atomic.Int32) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/late", func(http.ResponseWriter, *http.Request) { late.Add(1) })
	read := func(w http.ResponseWriter, r *http.Request) {
		switch _, err := io.Copy(io.Discard, r.Body); {
		case errors.Is(err, os.ErrDeadlineExceeded):
			problem.Write(w, r, problem.New(http.StatusRequestTimeout, "the body did not come"))
		case err != nil:
			problem.Write(w, r, problem.New(http.StatusBadRequest, "the body broke off"))
		}
	}
	mux.HandleFunc("/plain", read)
	mux.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		read(w, r)
		_ = r.Body.Close()
	})
	mux.HandleFunc("/begun", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set("Content-Length", "6")
		_ = control.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "hello\n")
	})
	mux.HandleFunc("/left", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		fmt.Fprint(w, "hello\n")
	})
	mux.HandleFunc("/unread", func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		fmt.Fprint(w, "hello\n")
		_ = control.Flush()
		_ = r.Body.Close()
	})
	return mux
}

func TestWhatComesAfterABrokenBodyIsNoRequest(t *testing.T) {
	const next = "GET /late HTTP/1.1\r\nHost: late\r\n\r\n"
	chunked := "Transfer-Encoding: chunked\r\n\r\n"
	for name, sent := range map[string]struct{ body, late string }{
		"nothing, then what was announced": {fmt.Sprintf("Content-Length: %d\r\n\r\n", len(next)), next},
		"a piece, then something else":     {"Content-Length: 100\r\n\r\nhello", next},
		"no chunk, then a request":         {chunked, next},
		"a chunk, then a request":          {chunked + "5\r\nhello\r\n", next},
		"a malformed chunk":                {chunked + "what?\r\n" + next, ""},
		"a malformed end of a chunk":       {chunked + "5\r\nhello!\r\n" + next, ""},
		"a malformed trailer":              {chunked + "0\r\n what?\r\n\r\n" + next, ""},
	} {
		for _, path := range []string{"/plain", "/duplex", "/begun", "/unread", "/left"} {
			t.Run(path+" "+name, func(t *testing.T) {
				var late atomic.Int32
				bubble(t, rolling(), readers(&late), func(t *testing.T, r *rig) {
					c, err := r.pipes.dial()
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					var sending sync.WaitGroup
					defer sending.Wait()
					sending.Go(func() {
						fmt.Fprint(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\n"+sent.body)
						time.Sleep(3 * time.Second) // the server has given up
						fmt.Fprint(c, sent.late)
					})
					got := closes(t, c)
					if !strings.HasPrefix(got, "HTTP/1.1 ") || strings.Count(got, "HTTP/1.1 ") > 1 {
						t.Errorf("got %q; want one answer", got)
					}
					if n := late.Load(); n > 0 {
						t.Error("what came late was taken for a request")
					}
				})
			})
		}
	}
}

func TestBodyThatBreaksOverHTTP2EndsItsStreamOnly(t *testing.T) {
	var late atomic.Int32
	bubble(t, rolling(), readers(&late), func(t *testing.T, r *rig) {
		dials := r.h2c()
		body, feed := io.Pipe()
		resp, answer := r.do(r.request("/plain", body))
		r.problem(resp, answer, http.StatusRequestTimeout)
		synctest.Wait()
		if _, err := feed.Write([]byte("late")); err == nil {
			t.Error("the stream still takes the body; want it reset")
		}
		if resp, _ := r.get("/late"); resp.StatusCode != 200 || dials.Load() != 1 {
			t.Errorf("got %s over connection %d; want 200 over the same one", resp.Status, dials.Load())
		}
	})
}
