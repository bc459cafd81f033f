package httpmesh

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"
)

// maxKept is the largest body of a call of gRPC that is kept to be sent again, in bytes.
const maxKept = 64 << 10

// kept is what was read of a body that can be read once. When it was read to its end it
// can be sent again. Such are the requests of calls that have one message, which does
// not say how long it is; they are no slower for it. A stream that goes on is sent once.
// A nil one keeps nothing.
type kept struct {
	ended   chan struct{} // closed when nothing more is kept
	reading sync.Mutex    // held to read the body

	mu    sync.Mutex // guards what follows
	over  bool       // ended is closed
	whole bool
	data  []byte
}

func newKept() *kept { return &kept{ended: make(chan struct{})} }

// add notes what a read has given.
func (k *kept) add(p []byte, err error) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return
	}
	switch {
	case len(k.data)+len(p) > maxKept:
		k.end(false)
	case err != nil:
		k.data = append(k.data, p...)
		k.end(errors.Is(err, io.EOF))
	default:
		k.data = append(k.data, p...)
	}
}

// end ends the keeping. The mutex is held.
func (k *kept) end(whole bool) {
	if !whole {
		k.data = nil
	}
	k.over, k.whole = true, whole
	close(k.ended)
}

// rest reads what is left of a body, if it comes within a moment: a try that broke off
// may have left no more than the end.
func (k *kept) rest(body io.ReadCloser) {
	timer := time.AfterFunc(smallPatience, func() { _ = body.Close() }) // which ends a Read
	defer timer.Stop()
	k.reading.Lock()
	defer k.reading.Unlock()
	for p := []byte(nil); !k.isOver(); {
		if p == nil {
			p = make([]byte, firstRead)
		}
		n, err := body.Read(p)
		k.add(p[:n], err)
	}
}

func (k *kept) isOver() bool {
	select {
	case <-k.ended:
		return true
	default:
		return false
	}
}

// isWhole reports whether all of the body was kept.
func (k *kept) isWhole() bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.whole
}

// again returns the whole body.
func (k *kept) again() io.ReadCloser {
	k.mu.Lock()
	defer k.mu.Unlock()
	return io.NopCloser(bytes.NewReader(k.data))
}

// settle gives the end of the body a moment to come: it may be on its way when the
// answer is there.
func (p *payload) settle() {
	if p.kept == nil || p.once == nil || p.once.state.Load()&bodyRead == 0 {
		return
	}
	timer := time.NewTimer(smallPatience)
	defer timer.Stop()
	select {
	case <-p.kept.ended:
	case <-timer.C:
	}
}

// forget keeps nothing any more: the answer is the caller's.
func (p *payload) forget() {
	if p.kept == nil {
		return
	}
	p.kept.mu.Lock()
	defer p.kept.mu.Unlock()
	if !p.kept.over {
		p.kept.end(false)
	}
	p.kept.data, p.kept.whole = nil, false
}
