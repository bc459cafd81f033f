package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/pause"
)

// errRestart is the cause with which a blocking query is cancelled that waits
// for what won't come.
var errRestart = errors.New("begin anew")

// step is what to ask next, and after what time.
type step struct {
	kind  kind
	after time.Duration
	// early, when it is closed, cuts the time short. nil: nothing does.
	early <-chan struct{}
}

// A question that is asked early waits for at least retryAfter, so that calls of
// Retry without end are no flood, and for a random time more, so that the watches
// of a process, and those of all processes, do not ask all at once.
const (
	retryAfter  = 20 * time.Millisecond
	retryJitter = 50 * time.Millisecond
)

// signal wakes all goroutines that wait for it. The zero value is ready.
type signal struct {
	mu   sync.Mutex // guards what follows
	next chan struct{}
}

// wait returns what the next fire closes.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
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
func (q *queries) begin(ctx context.Context, s step, index uint64, longest time.Duration) {
	ctx, cancel := context.WithCancelCause(ctx)
	q.current, q.cancel = s.kind, cancel
	q.running.Go(func() {
		a := answer{kind: s.kind, err: s.pause(ctx)}
		if a.err == nil {
			// Taken before the question, so that a Retry counts that comes while it is
			// in flight.
			early := q.w.retries.wait()
			asking, done := q.answerable(ctx, s.kind, early)
			a = q.w.ask(asking, q.service, question{s.kind, index, longest})
			if errors.Is(context.Cause(asking), errOvertaken) && a.err != nil {
				a.err = errOvertaken
			}
			done()
			a.early = early
		}
		if a.err != nil && errors.Is(context.Cause(ctx), errRestart) {
			a.err = errRestart
		}
		cancel(nil)
		q.answers <- a
	})
}

// errOvertaken is the failure of a question that was to be answered at once, and was
// not while Consul is known to answer: it hangs at an address, or at a resolver, from
// before that.
var errOvertaken = fmt.Errorf("no answer, while Consul answered others: %w", context.DeadlineExceeded)

// overtakenAfter is for how long such a question is waited for still.
const overtakenAfter = 300 * time.Millisecond

// answerable returns a context for a question of the kind, which ends overtakenAfter a
// Retry if the question is not held by Consul; done releases it.
func (q *queries) answerable(ctx context.Context, k kind, retry <-chan struct{}) (asking context.Context, done func()) {
	asking, cancel := context.WithCancelCause(ctx)
	if k != block {
		q.running.Go(func() {
			select {
			case <-retry:
			case <-asking.Done():
				return
			}
			if pause.For(asking, overtakenAfter, nil) == nil {
				cancel(errOvertaken)
			}
		})
	}
	return asking, func() { cancel(nil) }
}

// audit asks beside the current question, unless an audit is in flight.
func (q *queries) audit(ctx context.Context, k kind) {
	if q.auditing {
		return
	}
	q.auditing = true
	q.running.Go(func() { q.audits <- q.w.ask(ctx, q.service, question{kind: k}) })
}

// restart ends a blocking query: its answer is errRestart.
func (q *queries) restart() {
	if q.current == block {
		q.cancel(errRestart)
	}
}

// pause waits until it is time to ask, or returns why it can't.
func (s step) pause(ctx context.Context) error {
	asked := time.Now().Add(s.after)
	if err := pause.For(ctx, s.after, s.early); err != nil || s.early == nil {
		return err
	}
	return pause.For(ctx, min(time.Until(asked), retryAfter+rand.N(retryJitter)), nil)
}
