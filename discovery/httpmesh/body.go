package httpmesh

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// payload is a request's body over all of its tries.
//
// http.Transport closes the body of a request even if it could not connect, and
// the body of a request that came in through a server can't be had again. So
// each try gets a tryBody, whose Close is not passed on until the try has read,
// and which can be taken from it before. A body that can be had again (GetBody)
// needs none of this.
type payload struct {
	r       *http.Request
	current *tryBody // of the try that runs
	inner   io.ReadCloser
	started bool
}

func newPayload(r *http.Request) *payload {
	p := &payload{r: r}
	if r.Body != nil && r.Body != http.NoBody && r.GetBody == nil {
		p.inner = r.Body
	}
	return p
}

// next returns the body for a try: the first, or one that again allowed.
func (p *payload) next() (io.ReadCloser, error) {
	first := !p.started
	p.started = true
	switch {
	case p.inner != nil:
		p.current = &tryBody{inner: p.inner}
		return p.current, nil
	case first || p.r.Body == nil || p.r.Body == http.NoBody:
		return p.r.Body, nil
	}
	return p.r.GetBody()
}

// left reports whether the body could be sent once more, as far as can be seen.
func (p *payload) left() bool {
	return p.inner == nil || p.current.state.Load()&(bodyRead|bodyTaken) == 0
}

// again reports whether the body can be sent once more, and takes it from the
// try before.
func (p *payload) again() bool { return p.inner == nil || p.current.take() }

// answered lets the last try close the body; it may still be sending it.
func (p *payload) answered() {
	if p.current != nil {
		p.current.pass()
	}
}

// abandon closes the body unless a try does.
func (p *payload) abandon() {
	switch {
	case !p.started:
		closeBody(p.r)
	case p.inner != nil && (p.current.taken() || p.current.take()):
		_ = p.inner.Close()
	}
}

// fault returns the error that reading the body gave: the caller's fault.
func (p *payload) fault() error {
	if p.current == nil {
		return nil
	}
	if err := p.current.err.Load(); err != nil {
		return *err
	}
	return nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// tryBody is a request's body as one try sees it.
type tryBody struct {
	inner io.ReadCloser
	state atomic.Uint32
	err   atomic.Pointer[error]
}

// The bits of a tryBody's state. They are only ever set.
const (
	bodyRead   = 1 << iota // the try has begun to read
	bodyTaken              // it was taken away before
	bodyPassed             // Close may be passed on
	bodyClosed             // the try has called Close
	bodyEnded              // Close was passed on
)

var errTaken = errors.New("the try is over")

func (b *tryBody) Read(p []byte) (int, error) {
	if b.state.Or(bodyRead)&bodyTaken != 0 {
		return 0, errTaken
	}
	n, err := b.inner.Read(p)
	if err != nil && err != io.EOF {
		b.err.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (b *tryBody) Close() error {
	if old := b.state.Or(bodyClosed); old&bodyTaken == 0 && old&(bodyRead|bodyPassed) != 0 {
		return b.end()
	}
	return nil
}

func (b *tryBody) pass() {
	if b.state.Or(bodyPassed)&bodyClosed != 0 {
		_ = b.end()
	}
}

// end closes the inner body, once.
func (b *tryBody) end() error {
	if b.state.Or(bodyEnded)&bodyEnded != 0 {
		return nil
	}
	return b.inner.Close()
}

// take gets the body back: false if the try has begun to read.
func (b *tryBody) take() bool {
	for {
		old := b.state.Load()
		if old&(bodyRead|bodyTaken) != 0 {
			return false
		}
		if b.state.CompareAndSwap(old, old|bodyTaken) {
			return true
		}
	}
}

func (b *tryBody) taken() bool { return b.state.Load()&bodyTaken != 0 }

// answerBody is a response's body: its end is the end of the request.
type answerBody struct {
	io.ReadCloser
	finished atomic.Bool
	finish   func(err error) // nil: read to the end, or closed
}

func (b *answerBody) end(err error) {
	if !b.finished.Swap(true) {
		b.finish(err)
	}
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.end(nil)
	case err != nil:
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
	io.ReadWriteCloser
	answer *answerBody
}

func (b *switchedBody) Close() error      { return b.answer.Close() }
func (b *switchedBody) CloseWrite() error { return closeWrite(b.ReadWriteCloser) }
