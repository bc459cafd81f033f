package web

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

// writer notes what was answered. It is what every handler inside a Server
// gets; http.ResponseController reaches everything below it. Its clock gives
// time to each write.
type writer struct {
	http.ResponseWriter
	request   *http.Request
	requestID string
	retired   *atomic.Bool
	edge      bool // see Config
	clock     clock
	body      *body // nil if there is none

	status   int       // 0 as long as no header was sent
	stream   time.Time // when it began, if it is a stream or an upgraded connection
	bytes    int64
	duplex   bool
	hijacked bool
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	informational := status >= 100 && status < 200 && status != http.StatusSwitchingProtocols
	if w.status == 0 && !informational {
		w.status = status
		// Once more: httputil.ReverseProxy empties the header after a 1xx.
		w.Header()[logging.RequestIDHeader] = []string{w.requestID}
		if w.retired.Load() {
			w.Header().Set("Connection", "close")
		}
		w.closeIfBroken()
	}
	if w.edge {
		hide(w.Header())
	}
	w.begin()
	w.ResponseWriter.WriteHeader(status)
	w.clock.doneWriting()
}

// closeIfBroken sees to it that nothing more is read from the connection after a
// body that broke.
func (w *writer) closeIfBroken() {
	if w.body != nil && w.body.isBroken() {
		closeAfter(w.ResponseWriter)
	}
}

// leave is called when the handler has ended, however. What is buffered is for
// net/http to send, for as long as one piece may take.
func (w *writer) leave() {
	if w.hijacked {
		return
	}
	if w.edge {
		hide(w.Header()) // what is left of it is the trailer
	}
	w.begin()
	if w.body != nil && w.body.leave() && w.duplex {
		// net/http reads the rest, and neither minds an error nor copes with
		// the end (golang/go#68560).
		closeAfter(w.ResponseWriter)
	}
	w.closeIfBroken()
}

// begin begins to send a piece. Before the first, net/http reads the rest of the
// body, unless it is told that they go side by side.
func (w *writer) begin() { w.clock.write(w.body != nil && !w.duplex && w.body.isLeft()) }

// EnableFullDuplex is for http.ResponseController.
func (w *writer) EnableFullDuplex() error {
	err := http.NewResponseController(w.ResponseWriter).EnableFullDuplex()
	w.duplex = err == nil
	return err
}

// piece is how much is written in the time of one write, in bytes.
const piece = 32 << 10

func (w *writer) Write(b []byte) (n int, err error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	for {
		w.begin()
		wrote, err := w.ResponseWriter.Write(b[n:min(n+piece, len(b))])
		w.clock.doneWriting()
		w.bytes += int64(wrote)
		if n += wrote; err != nil || n == len(b) {
			return n, err
		}
	}
}

// Flush is for code that asks for an http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is for http.ResponseController. It begins an answer, unless the
// request has ended by then: it is no word of the handler's.
func (w *writer) FlushError() error {
	if w.status == 0 {
		if err := w.request.Context().Err(); err != nil {
			return err
		}
		w.WriteHeader(http.StatusOK)
	}
	w.begin()
	defer w.clock.doneWriting()
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.streams()
	return err
}

// Hijack hands the connection over, without deadlines; the answer counts as 101
// then.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.body != nil {
		w.body.release()
	}
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return conn, rw, err
	}
	w.hijacked = true
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	w.streams()
	return conn, rw, nil
}

// streams notes that the answer goes on from here for as long as it likes.
func (w *writer) streams() {
	if w.stream.IsZero() {
		w.stream = time.Now()
	}
}

// latency returns what took says of the service: of a stream, the time until it
// began.
func (w *writer) latency(began time.Time, took time.Duration) time.Duration {
	if w.stream.IsZero() {
		return took
	}
	return w.stream.Sub(began)
}
