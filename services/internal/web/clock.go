package web

import (
	"net/http"
	"time"
)

// clock sets the deadlines of a request whose answer may last for ever. Each
// wait for the client, to send a piece or to take one, has the time each,
// instead of a limit for the whole: a stream lives for as long as it moves, and
// a client that neither sends nor reads is cut off. The zero value sets none:
// the server's own limits hold.
//
// Over HTTP/1 a deadline concerns nothing but a wait. So the last one stands,
// and bounds what net/http reads by itself: the body that a handler left.
// Over HTTP/2 it is a timer, which ends the stream also while nobody waits. So
// it is lifted after each wait.
//
// A connection that has no deadlines, as an upgraded one, says so in an error,
// which there is nothing to do about.
type clock struct {
	control *http.ResponseController
	each    time.Duration
	lifts   bool
}

func newClock(each time.Duration, w http.ResponseWriter) clock {
	if each <= 0 {
		return clock{}
	}
	// What net/http says of it. A request can claim HTTP/2 over HTTP/1 ("PRI *
	// HTTP/2.0").
	_, http1 := w.(http.Hijacker)
	c := clock{control: http.NewResponseController(w), each: each, lifts: !http1}
	// net/http has set both for the time until the handler is called.
	c.doneReading()
	c.doneWriting()
	return c
}

// read begins to wait for a piece.
func (c *clock) read() {
	if c.each > 0 {
		_ = c.control.SetReadDeadline(time.Now().Add(c.each))
	}
}

func (c *clock) doneReading() {
	if c.lifts {
		_ = c.control.SetReadDeadline(time.Time{})
	}
}

// write begins to send a piece. Where the rest of the body is read first, over
// HTTP/1, it has its own time.
func (c *clock) write(bodyFirst bool) {
	if c.each <= 0 {
		return
	}
	each := c.each
	if bodyFirst && !c.lifts {
		each *= 2
	}
	_ = c.control.SetWriteDeadline(time.Now().Add(each))
}

func (c *clock) doneWriting() {
	if c.lifts {
		_ = c.control.SetWriteDeadline(time.Time{})
	}
}
