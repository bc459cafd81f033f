package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// rolling are limits whose pieces have 2 s.
func rolling() web.Limits {
	l := limits()
	l.StreamTimeout = 2 * time.Second
	return l
}

// unread serves handlers that answer without having read the body, in the ways
// there are.
func unread() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/plain", hello)
	mux.HandleFunc("/flushed", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
		_ = http.NewResponseController(w).Flush()
	})
	mux.HandleFunc("/duplex", func(w http.ResponseWriter, r *http.Request) { // as the gateway does it
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		fmt.Fprintln(w, "hello")
		_ = control.Flush()
		_ = r.Body.Close()
	})
	mux.HandleFunc("/left", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		fmt.Fprintln(w, "hello")
	})
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(10 * time.Second) // longer than a piece may take
		fmt.Fprintln(w, "hello")
	})
	mux.HandleFunc("/panic", func(http.ResponseWriter, *http.Request) { panic("no answer") })
	mux.HandleFunc("/abort", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			problem.Write(w, r, problem.New(http.StatusRequestTimeout, "the body did not come"))
		}
	})
	return problem.Router(mux)
}

// silences are the headers of requests whose bodies don't come.
var silences = []string{
	"OPTIONS * HTTP/1.1\r\nHost: x\r\n",
	"POST /nothing HTTP/1.1\r\nHost: x\r\n",
	"POST /plain HTTP/1.1\r\nHost: x\r\n",
	"POST /plain HTTP/1.0\r\nHost: x\r\n",
	"POST /plain HTTP/1.1\r\nHost: x\r\nConnection: close\r\n",
	"POST /plain HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", 20_000) + "\r\n",
	"POST /plain HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n",
	"POST /plain HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n",
	"POST /flushed HTTP/1.1\r\nHost: x\r\n",
	"POST /duplex HTTP/1.1\r\nHost: x\r\n",
	"POST /left HTTP/1.1\r\nHost: x\r\n",
	"POST /late HTTP/1.1\r\nHost: x\r\n",
	"POST /panic HTTP/1.1\r\nHost: x\r\n",
	"POST /abort HTTP/1.1\r\nHost: x\r\n",
	"POST /read HTTP/1.1\r\nHost: x\r\n",
	"POST /read HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n",
	"POST http://u:p@x/plain HTTP/1.1\r\nHost: x\r\n",
	"GET /plain HTTP/1.1\r\nHost: x\r\n",
	"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n",
	"PRI * HTTP/2.0\r\nHost: x\r\n", // net/http calls the handler, and not over HTTP/2
}

func TestConnectionWhoseBodyNeverComesIsClosed(t *testing.T) {
	for _, head := range silences {
		for _, about := range []string{"Content-Length: 100", "Content-Length: 1000000000", "Transfer-Encoding: chunked"} {
			t.Run(head[:min(len(head), 60)]+about, func(t *testing.T) {
				bubble(t, rolling(), unread(), func(t *testing.T, r *rig) {
					c, err := r.pipes.dial()
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					began := time.Now()
					go fmt.Fprint(c, head+about+"\r\n\r\n")
					got := closes(t, c)
					// /late thinks for 10 s; nothing else takes longer than a piece
					// of the body, one of the answer, and a moment for the close.
					if took := time.Since(began); took > 15*time.Second || !strings.Contains(head, "/late") && took > 5*time.Second {
						t.Errorf("closed after %v; want about 2s", took)
					}
					if answered := strings.HasPrefix(got, "HTTP/1."); answered == strings.Contains(head, "/abort") {
						t.Errorf("got %q", got)
					}
				})
			})
		}
	}
}

func TestBytesThatNobodyReadsAreBounded(t *testing.T) {
	for _, head := range silences {
		if strings.Contains(head, "/read") {
			continue // there somebody reads
		}
		for about, piece := range map[string]string{"Content-Length: 1000000000": "x", "Transfer-Encoding: chunked": "1\r\nx\r\n"} {
			t.Run(head[:min(len(head), 60)]+about, func(t *testing.T) {
				bubble(t, rolling(), unread(), func(t *testing.T, r *rig) {
					c, err := r.pipes.dial()
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					began := time.Now()
					var sending sync.WaitGroup
					defer sending.Wait()
					sending.Go(func() {
						_, err := fmt.Fprint(c, head+about+"\r\n\r\n")
						for err == nil { // never silent for as long as a piece may take
							time.Sleep(time.Second)
							_, err = fmt.Fprint(c, piece)
						}
					})
					closes(t, c)
					if took := time.Since(began); took > 15*time.Second {
						t.Errorf("closed after %v; want about 2s", took)
					}
				})
			})
		}
	}
}

// closes reads the connection until the server closes it, for an hour at most.
func closes(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(bufio.NewReader(c))
	if err != nil {
		t.Errorf("after %q the connection is open: %v", got, err)
	}
	return string(got)
}

func TestOptionsOfTheServerItselfAreAnsweredAndLogged(t *testing.T) {
	bubble(t, rolling(), unread(), func(t *testing.T, r *rig) {
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go fmt.Fprint(c, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-Id: id-1\r\n\r\n")
		got := closes(t, c)
		if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "\r\nContent-Length: 0\r\n") || !strings.Contains(got, "\r\nX-Request-Id: id-1\r\n") {
			t.Errorf("got %q; want an empty 200 with the request's ID", got)
		}
		if logged := r.log.named(t, "request"); len(logged) != 1 || logged[0]["status"] != 200.0 {
			t.Errorf("the log says %v; want one request, with 200", logged)
		}
	})
}

func TestBodyIsAskedForHoweverLongTheHandlerThinks(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(10 * time.Second) // longer than a piece may take
		_, _ = io.Copy(w, r.Body)
	})
	bubble(t, rolling(), h, func(t *testing.T, r *rig) {
		c, err := r.pipes.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusContinue {
			t.Fatalf("got %s; want 100", resp.Status)
		}
		go fmt.Fprint(c, "hello")
		if got, err := io.ReadAll(in); err != nil || !strings.HasSuffix(string(got), "hello") {
			t.Errorf("got %q, %v; want the echo", got, err)
		}
	})
}
