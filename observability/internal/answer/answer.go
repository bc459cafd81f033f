// Package answer notes what a handler answers, for the middlewares of
// observability.
package answer

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/felixge/httpsnoop"
)

// StatusNone is what logs and metrics say of a request that got no answer: its
// client left, or it was cut off. It is never sent.
const StatusNone = 499

// Answer is what was answered so far. It belongs to the handler's goroutine.
type Answer struct {
	Bytes int64 // of the body

	status int       // 0 as long as no header was written
	stream time.Time // when it began, if it is a stream or an upgraded connection
}

// Note returns a writer to give to a handler, and what is noted of it. The writer
// has the optional methods that w has, and no others.
func Note(w http.ResponseWriter) (http.ResponseWriter, *Answer) {
	a := &Answer{}
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		WriteHeader: func(next httpsnoop.WriteHeaderFunc) httpsnoop.WriteHeaderFunc {
			return func(status int) {
				a.header(status)
				next(status)
			}
		},
		Write: func(next httpsnoop.WriteFunc) httpsnoop.WriteFunc {
			return func(p []byte) (int, error) {
				a.header(http.StatusOK)
				n, err := next(p)
				a.Bytes += int64(n)
				return n, err
			}
		},
		ReadFrom: func(next httpsnoop.ReadFromFunc) httpsnoop.ReadFromFunc {
			return func(src io.Reader) (int64, error) {
				a.header(http.StatusOK)
				n, err := next(src)
				a.Bytes += n
				return n, err
			}
		},
		Flush: func(next httpsnoop.FlushFunc) httpsnoop.FlushFunc {
			return func() {
				next()
				a.streams(http.StatusOK)
			}
		},
		FlushError: func(next httpsnoop.FlushErrorFunc) httpsnoop.FlushErrorFunc {
			return func() error {
				err := next()
				if err == nil {
					a.streams(http.StatusOK)
				}
				return err
			}
		},
		Hijack: func(next httpsnoop.HijackFunc) httpsnoop.HijackFunc {
			return func() (net.Conn, *bufio.ReadWriter, error) {
				conn, rw, err := next()
				if err == nil {
					a.streams(http.StatusSwitchingProtocols)
				}
				return conn, rw, err
			}
		},
	}), a
}

// header notes the status, once: 1xx come before it, but for 101.
func (a *Answer) header(status int) {
	if a.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		a.status = status
	}
}

// streams notes that the answer goes on from here, for as long as it likes.
func (a *Answer) streams(status int) {
	a.header(status)
	if a.stream.IsZero() {
		a.stream = time.Now()
	}
}

// Status returns the status of the answer to r; whole says that the handler
// returned, rather than panicked.
func (a *Answer) Status(r *http.Request, whole bool) int {
	switch {
	case a.status != 0:
		return a.status
	case whole && r.Context().Err() == nil:
		return http.StatusOK // net/http's, for a handler that says nothing
	}
	return StatusNone
}

// Latency returns the time since began, for a stream until it began.
func (a *Answer) Latency(began time.Time) time.Duration {
	if !a.stream.IsZero() {
		return a.stream.Sub(began)
	}
	return time.Since(began)
}
