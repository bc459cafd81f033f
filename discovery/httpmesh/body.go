package httpmesh

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
)

// payload is a request's body over all of its tries.
//
// http.Transport closes the body of a request even if it could not connect, and
// the body of a request that came in through a server can't be had again. So
// each try gets a tryBody, whose Close is not passed on until the try has read,
// and which can be taken from it before. One that can be had again (GetBody) is
// simply closed.
type payload struct {
	r       *http.Request
	once    *tryBody // of the latest try, if the body can't be had again
	kept    *kept    // what was read of it; nil: it is not kept
	started bool
}

// single reports whether there is a body that can be read once.
func (p *payload) single() bool { return p.some() && p.r.GetBody == nil }

func (p *payload) some() bool { return p.r.Body != nil && p.r.Body != http.NoBody }

// next returns the body for a try, nil if there is none: the first, or one that
// again allowed.
func (p *payload) next() (*tryBody, error) {
	first := !p.started
	p.started = true
	if !p.some() {
		return nil, nil
	}
	b := &tryBody{inner: p.r.Body, want: p.r.ContentLength, kept: p.kept}
	switch {
	case p.kept.isWhole():
		p.once, b.kept = nil, nil
		b.inner = p.kept.again()
		b.state.Store(bodyPassed)
	case p.r.GetBody == nil:
		p.once = b
	case first:
		b.state.Store(bodyPassed)
	default:
		inner, err := p.r.GetBody()
		if err != nil {
			return nil, err
		}
		b.inner = inner
		b.state.Store(bodyPassed)
	}
	if n, ok := inMemory(b.inner); ok && p.once == nil {
		b.plain = true
		if fault := b.misfit(int64(n), true); fault != nil {
			b.err.Store(&fault)
		}
	}
	return b, nil
}

// inMemory returns the length of a body that http.Transport knows to be in memory,
// and sends in one piece with the header if it gets it as it is.
func inMemory(r io.Reader) (n int, ok bool) {
	if t := reflect.TypeOf(r); t == nopCloser || t == nopCloserWriterTo {
		r, _ = reflect.TypeAssert[io.Reader](reflect.ValueOf(r).Field(0))
	}
	switch r := r.(type) {
	case *bytes.Reader:
		return r.Len(), true
	case *bytes.Buffer:
		return r.Len(), true
	case *strings.Reader:
		return r.Len(), true
	}
	return 0, false
}

var (
	nopCloser         = reflect.TypeOf(io.NopCloser(nil))
	nopCloserWriterTo = reflect.TypeOf(io.NopCloser(new(bytes.Reader)))
)

// left reports whether the body could be sent once more, as far as can be seen.
func (p *payload) left() bool {
	return p.once == nil || p.once.state.Load()&(bodyRead|bodyTaken) == 0 || p.kept.isWhole()
}

// again reports whether the body can be sent once more, and takes it from the
// try before.
func (p *payload) again() bool { return p.once == nil || p.once.take() || p.kept.isWhole() }

// abandon closes the body unless a try does.
func (p *payload) abandon() {
	switch {
	case !p.started:
		closeBody(p.r)
	case p.once != nil && (p.once.taken() || p.once.take()):
		_ = p.r.Body.Close()
	}
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// tryBody is a request's body as one try sees it. A nil one is a body that is
// not there.
type tryBody struct {
	inner io.ReadCloser
	want  int64 // its length as the request says it; 0 or less: it does not
	plain bool  // it is in memory, and is sent without being watched
	kept  *kept // nil: what is read is not kept
	got   atomic.Int64
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
	bodyEOF                // all of it was read
)

var errTaken = errors.New("the try is over")

func (b *tryBody) Read(p []byte) (int, error) {
	if b.kept != nil {
		b.kept.reading.Lock()
		defer b.kept.reading.Unlock()
	}
	if old := b.state.Or(bodyRead); old&bodyTaken != 0 || b.kept != nil && old&bodyClosed != 0 {
		return 0, errTaken
	}
	n, err := b.inner.Read(p)
	whole := errors.Is(err, io.EOF)
	fault := b.misfit(b.got.Add(int64(n)), whole)
	b.kept.add(p[:n], err)
	switch {
	case fault != nil:
	case whole:
		b.state.Or(bodyEOF)
	default:
		fault = err
	}
	if fault != nil {
		b.err.CompareAndSwap(nil, &fault)
	}
	return n, err
}

// misfit says that a body which has so many bytes, or more unless it is whole, is
// not as long as its Content-Length says; nil if it may be.
func (b *tryBody) misfit(got int64, whole bool) error {
	if b.want > 0 && (got > b.want || whole && got < b.want) {
		return fmt.Errorf("the request's body is of %d bytes or more; its Content-Length is %d", got, b.want)
	}
	return nil
}

// reader returns what the try sends.
func (b *tryBody) reader() io.ReadCloser {
	if b.plain {
		return b.inner
	}
	return b
}

// fault returns what is wrong with the body, nil if nothing is: the caller's
// fault.
func (b *tryBody) fault() error {
	if b == nil {
		return nil
	}
	if err := b.err.Load(); err != nil {
		return *err
	}
	return nil
}

// finished reports whether the try has read all of it.
func (b *tryBody) finished() bool {
	return b == nil || b.plain || b.state.Load()&bodyEOF != 0 || b.want > 0 && b.got.Load() >= b.want
}

func (b *tryBody) Close() error {
	if old := b.state.Or(bodyClosed); old&bodyTaken == 0 && old&(bodyRead|bodyPassed) != 0 {
		if b.kept != nil {
			b.kept.rest(b.inner)
		}
		return b.end()
	}
	return nil
}

// pass lets the try close the body; it may still be sending it.
func (b *tryBody) pass() {
	if b != nil && b.state.Or(bodyPassed)&bodyClosed != 0 {
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
