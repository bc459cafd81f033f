package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// errNoAnswer is the cause of a request that was given up since no header came
// in time. The transport sees a canceled context, whose cause says that it was a
// clock: so it can judge the service by the length of its silence.
var errNoAnswer = fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)

// answerClock measures how long a service takes to answer. It stands still
// while the gateway waits for the client.
type answerClock struct {
	limit time.Duration

	mu    sync.Mutex // guards what follows
	timer *time.Timer
	over  bool // the header came, or the request has ended
}

func newAnswerClock(limit time.Duration, giveUp context.CancelCauseFunc) *answerClock {
	return &answerClock{limit: limit, timer: time.AfterFunc(limit, func() { giveUp(errNoAnswer) })}
}

// pause and start are called around each wait for the client.
func (c *answerClock) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
}

func (c *answerClock) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.timer.Reset(c.limit)
	}
}

// stop ends it for good.
func (c *answerClock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	c.timer.Stop()
}

// watchedBody is a request's body that remembers how reading it ended.
type watchedBody struct {
	io.ReadCloser
	clock   *answerClock
	trailer http.Header // comes with the end; nil: none was announced
	ended   atomic.Bool // all of it was read

	mu  sync.Mutex // guards what follows
	err error
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.clock.pause()
	n, err := b.ReadCloser.Read(p)
	b.clock.start()
	switch {
	case errors.Is(err, io.EOF):
		dropOurs(b.trailer)
		b.ended.Store(true)
	case err != nil:
		b.mu.Lock()
		defer b.mu.Unlock()
		b.err = err
	}
	return n, err
}

// broken returns the error that reading ended with: nil if none, or at its end.
func (b *watchedBody) broken() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
