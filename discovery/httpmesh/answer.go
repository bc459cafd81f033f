package httpmesh

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
)

// restAfter is how long a body moves no byte before it is no load any more.
const restAfter = time.Second

// answerBody is a response's body: its end is the end of the try.
type answerBody struct {
	io.ReadCloser
	attempt *attempt
	load    balancer.Body
	state   atomic.Uint32
	moved   atomic.Int64    // when a byte moved last, from the try's start
	finish  func(err error) // io.EOF: read to the end; nil: closed before
}

const (
	bodyMoves = iota
	bodyRests
	bodyOver
)

// tick is called when the body may have rested for restAfter.
func (b *answerBody) tick() {
	if left := restAfter - (time.Since(b.attempt.Start) - time.Duration(b.moved.Load())); left > 0 {
		if b.state.Load() == bodyMoves {
			b.attempt.timer.Reset(left)
		}
		return
	}
	if b.state.CompareAndSwap(bodyMoves, bodyRests) {
		b.load.Rest()
	}
}

// move notes that bytes have moved.
func (b *answerBody) move(n int) {
	if n <= 0 {
		return
	}
	b.moved.Store(int64(time.Since(b.attempt.Start)))
	if b.state.CompareAndSwap(bodyRests, bodyMoves) {
		b.load.Resume()
		b.attempt.timer.Reset(restAfter)
	}
}

func (b *answerBody) end(err error) {
	switch b.state.Swap(bodyOver) {
	case bodyOver:
		return
	case bodyRests:
		b.load.Resume()
	}
	b.attempt.timer.Stop()
	b.finish(err)
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.move(n)
	if err != nil {
		b.end(err)
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.end(nil)
	return err
}

// switchedBody is the body of a 101: both directions of a connection, which is
// in use until it is closed.
type switchedBody struct {
	*answerBody
	both io.ReadWriteCloser
}

func (b *switchedBody) Write(p []byte) (int, error) {
	n, err := b.both.Write(p)
	b.move(n)
	return n, err
}

func (b *switchedBody) CloseWrite() error { return closeWrite(b.both) }
