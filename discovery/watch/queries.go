package watch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// errRestart is the cause with which a blocking query is cancelled that waits
// for what won't come.
var errRestart = errors.New("begin anew")

// step is what to ask next, and after what time.
type step struct {
	kind  kind
	after time.Duration
}

// queries are the questions of one service: one is in flight or waits for its
// time, always, and beside it at most one audit.
type queries struct {
	w        *Watcher
	service  string
	answers  chan answer // has room for one
	audits   chan answer // has room for one
	running  sync.WaitGroup
	current  kind
	cancel   context.CancelCauseFunc // of the current question
	auditing bool
}

func newQueries(w *Watcher, service string) queries {
	return queries{w: w, service: service, answers: make(chan answer, 1), audits: make(chan answer, 1)}
}

// begin asks when it is time; the last question must have had its answer.
func (q *queries) begin(ctx context.Context, s step, index uint64) {
	ctx, cancel := context.WithCancelCause(ctx)
	q.current, q.cancel = s.kind, cancel
	q.running.Go(func() {
		a := answer{kind: s.kind, err: pause(ctx, s.after)}
		if a.err == nil {
			a = q.w.ask(ctx, q.service, s.kind, index)
		}
		if a.err != nil && errors.Is(context.Cause(ctx), errRestart) {
			a.err = errRestart
		}
		cancel(nil)
		q.answers <- a
	})
}

// audit asks beside the current question, unless an audit is in flight.
func (q *queries) audit(ctx context.Context, k kind) {
	if q.auditing {
		return
	}
	q.auditing = true
	q.running.Go(func() { q.audits <- q.w.ask(ctx, q.service, k, 0) })
}

// restart ends a blocking query: its answer is errRestart.
func (q *queries) restart() {
	if q.current == block {
		q.cancel(errRestart)
	}
}

// pause waits, or returns why it can't.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
