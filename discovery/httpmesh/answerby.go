package httpmesh

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// answerBy is a context that ends at a time unless the answer has begun. It is
// in front of a context of the standard library, so those derived from it cost
// no goroutine.
type answerBy struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelCauseFunc
	at              time.Time
	timer           *time.Timer
	state           atomic.Uint32
}

// What came first. It is decided once.
const (
	byWaits = iota // neither
	byBegun        // the answer
	byOver         // the deadline
)

func waitUntil(parent context.Context, at time.Time) *answerBy {
	c := &answerBy{at: at}
	c.Context, c.cancel = context.WithCancelCause(parent)
	c.timer = time.AfterFunc(time.Until(at), c.timeOut)
	return c
}

// begin lifts the deadline.
func (c *answerBy) begin() {
	if c.state.CompareAndSwap(byWaits, byBegun) {
		c.timer.Stop()
	}
}

// timeOut is the deadline. The timer may have been about to call it when begin
// stopped the timer.
func (c *answerBy) timeOut() {
	if c.state.CompareAndSwap(byWaits, byOver) {
		c.cancel(context.DeadlineExceeded)
	}
}

func (c *answerBy) end() {
	c.timer.Stop()
	c.cancel(nil)
}

// Deadline is none once the answer has begun.
func (c *answerBy) Deadline() (time.Time, bool) {
	at, ok := c.Context.Deadline()
	if c.state.Load() == byBegun || ok && at.Before(c.at) {
		return at, ok
	}
	return c.at, true
}

func (c *answerBy) Err() error {
	err := c.Context.Err()
	if err != nil && context.Cause(c.Context) == context.DeadlineExceeded { //nolint:errorlint // ours, as it was given
		return context.DeadlineExceeded
	}
	return err
}

// beginning notices that an answer begins.
type beginning struct {
	http.ResponseWriter
	by    *answerBy
	wrote bool // also what came after the deadline
}

func (w *beginning) begin() {
	w.wrote = true
	w.by.begin()
}

// Unwrap is for http.ResponseController.
func (w *beginning) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *beginning) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *beginning) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController. It begins an answer, unless the
// request has ended by then: it is no word of the handler's.
func (w *beginning) FlushError() error {
	if !w.wrote {
		if err := w.by.Err(); err != nil {
			return err
		}
	}
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush is for code that asks for an http.Flusher.
func (w *beginning) Flush() { _ = w.FlushError() }

// Hijack hands the connection over, without a deadline.
func (w *beginning) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.begin()
	return http.NewResponseController(w.ResponseWriter).Hijack()
}
