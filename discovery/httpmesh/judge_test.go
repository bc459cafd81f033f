package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/iotest"
	"time"
)

// What is the instance's fault, and what may be repeated, is told to the
// balancer and to no caller.
func TestErrorsAreJudged(t *testing.T) {
	broken := errors.New("broken")
	dial := fmt.Errorf("wrapped: %w", &dialError{broken})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	for _, c := range []struct {
		name          string
		ended         func() context.Context // nil: the caller still waits
		method, key   string
		err           error
		noConn, wrote bool
		reused        bool
		body          io.Reader
		want          verdict
	}{
		{name: "failed dial", method: "POST", err: dial, noConn: true, want: verdict{again: true, free: true, failed: true, unreachable: true, try: Try{Outcome: dialFailed}}},
		{name: "failed dial after a byte was written", method: "POST", err: dial, wrote: true, want: verdict{failed: true, try: Try{Outcome: transport}}},
		{name: "reset of a post", method: "POST", err: broken, wrote: true, want: verdict{failed: true, try: Try{Outcome: transport}}},
		{name: "reset of a post with a key", method: "POST", key: "k", err: broken, wrote: true, want: verdict{again: true, failed: true, try: Try{Outcome: transport}}},
		{name: "reset of a get", method: "GET", err: broken, wrote: true, want: verdict{again: true, failed: true, try: Try{Outcome: transport}}},
		{name: "nothing written on a fresh connection", method: "POST", err: broken, want: verdict{again: true, free: true, failed: true, try: Try{Outcome: transport}}},
		{name: "nothing written on an idle connection", method: "POST", err: broken, reused: true, want: verdict{again: true, free: true, try: Try{Outcome: transport}}},
		{name: "request that can't be sent", method: "GET", err: broken, noConn: true, want: verdict{try: Try{Outcome: transport}}},
		{name: "body that can't be read", method: "GET", err: broken, wrote: true, body: iotest.ErrReader(broken), want: verdict{try: Try{Outcome: transport}}},
		{name: "TryTimeout", method: "GET", err: errTryTimeout, wrote: true, want: verdict{again: true, failed: true, try: Try{Outcome: timeout}}},
		{name: "caller's deadline", ended: func() context.Context { return late }, method: "GET", err: dial, noConn: true, want: verdict{failed: true, try: Try{Outcome: timeout}}},
		{name: "caller's cancel", ended: func() context.Context { return ended }, method: "GET", err: dial, noConn: true, want: verdict{try: Try{Outcome: canceled}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := t.Context()
			if c.ended != nil {
				ctx = c.ended()
			}
			r, err := http.NewRequestWithContext(ctx, c.method, "http://order/", c.body)
			if err != nil {
				t.Fatal(err)
			}
			if c.key != "" {
				r.Header.Set("Idempotency-Key", c.key)
			}
			x := newExchange(&Transport{closed: make(chan struct{})}, r, "order")
			body, err := x.body.next()
			if err != nil {
				t.Fatal(err)
			}
			if c.body != nil {
				_, _ = io.ReadAll(body)
			}
			a := &attempt{x: x, reused: c.reused}
			if !c.noConn {
				a.conn = new(conn)
			}
			if c.wrote {
				a.conn.sent.Add(1)
			}
			var got verdict
			a.judgeError(c.err, &got)
			if got.again != c.want.again || got.free != c.want.free || got.failed != c.want.failed || got.unreachable != c.want.unreachable || got.try.Outcome != c.want.try.Outcome {
				t.Errorf("got %+v; want %+v", got, c.want)
			}
		})
	}
}

func TestStatusesAreJudged(t *testing.T) {
	failed := verdict{failed: true}
	retried := verdict{failed: true, again: true, answered: true}
	for _, c := range []struct {
		status              int
		method, key, reason string
		want                verdict
	}{
		{200, "GET", "", "", verdict{}},
		{304, "GET", "", "", verdict{}},
		{404, "GET", "", "", verdict{}},
		{501, "GET", "", "", verdict{}},
		{505, "GET", "", "", verdict{}},
		{500, "GET", "", "", failed},
		{500, "GET", "", "overload", failed},
		{599, "GET", "", "", failed},
		{421, "POST", "", "", verdict{again: true, free: true, failed: true, unreachable: true}},
		{429, "GET", "", "", verdict{again: true, answered: true, busy: true}},
		{429, "POST", "", "", verdict{busy: true}},
		{429, "POST", "k", "", verdict{again: true, answered: true, busy: true}},
		{502, "GET", "", "", retried},
		{502, "POST", "", "", failed},
		{502, "POST", "k", "", retried},
		{502, "GET", "", "downstream", verdict{proxied: true}},
		{502, "GET", "", "overload", retried},
		{503, "GET", "", "", retried},
		{503, "POST", "", "", failed},
		{503, "POST", "k", "", retried},
		{503, "GET", "", "downstream", verdict{proxied: true}},
		{503, "GET", "", "a word to come", retried},
		{503, "POST", "", "overload", verdict{again: true, answered: true, load: true}},
		{504, "GET", "", "", failed},
		{504, "POST", "k", "", failed},
		{504, "GET", "", "downstream", verdict{proxied: true}},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://order/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer := &http.Response{StatusCode: c.status, Header: http.Header{}}
		if c.key != "" {
			r.Header.Set("Idempotency-Key", c.key)
		}
		if c.reason != "" {
			answer.Header.Set(ReasonHeader, c.reason)
		}
		var got verdict
		(&attempt{x: newExchange(new(Transport), r, "order")}).judgeAnswer(answer, &got)
		got.try = Try{}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
			t.Errorf("%d to a %s with key %q, reason %q: got %+v; want %+v", c.status, c.method, c.key, c.reason, got, c.want)
		}
	}
}

func TestRetryAfterIsReadAsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for said, want := range map[string]time.Duration{
		"": 0, "0": 0, "1": time.Second, "120": 2 * time.Minute, "-1": 0, "1.5": 0, "soon": 0, "99999999999999999999": 0,
		"4294967295":                    1 << 30 * time.Second,
		"Tue, 24 Nov 2026 12:00:03 GMT": 3 * time.Second,
		"Tue, 24 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {said}}, now); got != want {
			t.Errorf("%q: got %v; want %v", said, got, want)
		}
	}
}

func TestDialThatWasCalledOffIsNoFailedDial(t *testing.T) {
	n := &network{timeout: time.Minute, dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.dial(ended, "tcp", "10.0.0.1:1"); err == nil {
		t.Error("got a connection")
	} else if _, failed := errors.AsType[*dialError](err); failed {
		t.Errorf("got %v; want it not marked as a failed dial", err)
	}
	n.timeout = time.Millisecond
	if _, err := n.dial(t.Context(), "tcp", "10.0.0.1:1"); err == nil {
		t.Error("got a connection")
	} else if _, failed := errors.AsType[*dialError](err); !failed {
		t.Errorf("got %v; want it marked as a failed dial", err)
	}
}

func TestBudgetComesBackAsItsWindowMovesOn(t *testing.T) {
	began := time.Unix(0, 0)
	l := &ledger{budget: Budget{Ratio: 0.1, Floor: 0.5}, began: began}
	spend := func(at time.Duration) (n int) {
		for n < 1000 && l.spend(began.Add(at)) {
			n++
		}
		return n
	}
	for range 100 {
		l.request(began)
	}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{
		{0, 15},                // a tenth of 100, and 0.5 a second for 10 s
		{9 * time.Second, 0},   // all of it was spent within the window
		{10 * time.Second, 5},  // the floor alone: nobody has asked since
		{15 * time.Second, 0},  //
		{20 * time.Second, 5},  //
		{200 * time.Second, 5}, // what was not used is not saved up
	} {
		if got := spend(c.at); got != c.want {
			t.Errorf("after %v: %d retries; want %d", c.at, got, c.want)
		}
	}
}

func TestTryTimeoutThatComesWithTheHeadersSpendsNothing(t *testing.T) {
	x := &exchange{ledger: &ledger{budget: Budget{Floor: 0.1}, began: time.Now()}}
	a := &attempt{x: x, cancel: func(error) { t.Error("the try was ended") }}
	if a.stop() != clockStopped {
		t.Fatal("the clock was not stopped")
	}
	a.timeOut() // the timer had begun to call it
	if a.cut() || !x.ledger.spend(time.Now()) {
		t.Error("the one retry there is was spent on a try that was answered")
	}
}

func TestAnswerThatBeginsWithItsDeadlineIsNotCut(t *testing.T) {
	by := waitUntil(t.Context(), time.Now().Add(time.Hour))
	defer by.end()
	by.begin()
	by.timeOut() // the timer had begun to call it
	if err := by.Err(); err != nil {
		t.Errorf("got %v; want none: the answer has begun", err)
	}
	late := waitUntil(t.Context(), time.Now().Add(time.Hour))
	defer late.end()
	late.timeOut()
	late.begin()
	if err := late.Err(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v; want the deadline, which came first", err)
	}
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, said := range []string{"", "0", "1", "-1", "1.5", "99999999999999999999", "4294967295", "Tue, 24 Nov 2026 12:00:03 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		if got := retryAfter(http.Header{"Retry-After": {said}}, now); got < 0 {
			t.Errorf("%q: got %v; want no time that is over", said, got)
		}
	})
}
