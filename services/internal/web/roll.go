package web

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"time"
)

// roll gives each piece of a body, in and out, the time d, instead of a limit
// for the whole: a stream lives for as long as it moves, and a client that
// neither sends nor reads is cut off.
func roll(d time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &rollingReader{ReadCloser: r.Body, control: control, each: d}
		}
		out := &rollingWriter{ResponseWriter: w, control: control, each: d}
		next.ServeHTTP(out, r)
		if !out.hijacked {
			// What net/http still has to send, after a stream that was silent
			// for longer than d.
			out.extend()
		}
	})
}

type rollingReader struct {
	io.ReadCloser
	control *http.ResponseController
	each    time.Duration
	ended   bool
}

func (r *rollingReader) Read(b []byte) (int, error) {
	if !r.ended {
		// An upgraded or fake connection has no deadlines: then there is
		// nothing to roll.
		_ = r.control.SetReadDeadline(time.Now().Add(r.each))
	}
	n, err := r.ReadCloser.Read(b)
	if err != nil {
		// From the end on net/http reads ahead, without a deadline, to notice
		// that the client leaves. One that is set by whoever reads once more
		// (http.Transport does) would look like that.
		r.ended = true
	}
	return n, err
}

type rollingWriter struct {
	http.ResponseWriter
	control  *http.ResponseController
	each     time.Duration
	hijacked bool
}

func (w *rollingWriter) extend() { _ = w.control.SetWriteDeadline(time.Now().Add(w.each)) }

// Unwrap is for http.ResponseController.
func (w *rollingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *rollingWriter) WriteHeader(status int) {
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

func (w *rollingWriter) Write(b []byte) (int, error) {
	w.extend()
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController; it also makes an http.Flusher
// unnecessary to those who know it.
func (w *rollingWriter) FlushError() error {
	w.extend()
	return w.control.Flush()
}

// Flush is for code that asks for an http.Flusher.
func (w *rollingWriter) Flush() { _ = w.FlushError() }

// Hijack hands the connection over, without deadlines.
func (w *rollingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.hijacked = true
	return w.control.Hijack()
}
