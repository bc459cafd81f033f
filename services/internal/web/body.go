package web

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// body is the body of a request as handlers read it. Its clock gives time to
// each read.
//
// It notes when it breaks: where a body ends that could not be read is not
// known, so what comes after it must not be taken for a request. net/http sees
// to that itself only before it has sent the header of the answer.
type body struct {
	io.ReadCloser
	clock *clock

	mu     sync.Mutex // guards what follows; no deadline is set when over
	asks   bool       // over HTTP/1, the first read sends 100 Continue
	over   bool       // read to its end, broken, closed, or out of the handler's hands
	broken bool
}

func newBody(r *http.Request, c *clock) *body {
	if c.lifts && grpcwire.Is(r.Header) {
		c = &clock{} // a call's sender may have nothing to say for as long as it likes
	}
	return &body{ReadCloser: r.Body, clock: c, asks: !c.lifts && r.Header.Get("Expect") != ""}
}

func (b *body) Read(p []byte) (int, error) {
	b.begin()
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(err)
	} else {
		b.pause()
	}
	return n, err
}

// Close reads the rest, up to the 256 KB that net/http allows, for the next
// request is behind it.
func (b *body) Close() error {
	b.begin()
	err := b.ReadCloser.Close()
	b.end(err)
	return err
}

func (b *body) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	b.clock.read()
	if b.asks {
		b.asks = false
		b.clock.write(false)
	}
}

func (b *body) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.over {
		b.clock.doneReading()
	}
}

// end notes how reading ended; nil stands for a Close.
func (b *body) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	b.over = true
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, http.ErrBodyReadAfterClose):
		// From the end on net/http reads ahead, without a deadline, to notice
		// that the client leaves. It may have begun when the deadline was set.
		if b.clock.each > 0 {
			_ = b.clock.control.SetReadDeadline(time.Time{})
		}
	case err != nil:
		b.broken = true
	default:
		b.clock.doneReading()
	}
}

// release takes the body out of the handler's hands: no deadline is set any more.
// It reports whether there may be more to read.
func (b *body) release() (left bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left = !b.over
	b.over = true
	return left
}

// leave is release for a body whose rest is for net/http to read, for as long as
// one piece may take.
func (b *body) leave() (left bool) {
	left = b.release()
	if left {
		b.clock.read()
	}
	return left
}

// isLeft reports whether there may be more of the body to read.
func (b *body) isLeft() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.over
}

func (b *body) isBroken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

// closeAfter has net/http close the connection after the answer, also if its
// header has been sent: a reader over its limit is what tells it so. It means
// nothing to HTTP/2, where a body ends with its stream.
func closeAfter(w http.ResponseWriter) {
	_, _ = http.MaxBytesReader(w, io.NopCloser(strings.NewReader("more")), 0).Read(make([]byte, 1))
}
