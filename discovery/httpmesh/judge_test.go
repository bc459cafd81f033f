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
		method        string
		err           error
		noConn, wrote bool
		reused        bool
		body          io.Reader
		want          verdict
	}{
		{name: "failed dial", method: "POST", err: dial, noConn: true, want: verdict{again: true, failed: true, unreachable: true, try: Try{Outcome: dialFailed}}},
		{name: "failed dial after a byte was written", method: "POST", err: dial, wrote: true, want: verdict{failed: true, try: Try{Outcome: transport}}},
		{name: "reset of a post", method: "POST", err: broken, wrote: true, want: verdict{failed: true, try: Try{Outcome: transport}}},
		{name: "reset of a get", method: "GET", err: broken, wrote: true, want: verdict{again: true, failed: true, try: Try{Outcome: transport}}},
		{name: "nothing written on a fresh connection", method: "POST", err: broken, want: verdict{again: true, failed: true, try: Try{Outcome: transport}}},
		{name: "nothing written on an idle connection", method: "POST", err: broken, reused: true, want: verdict{again: true, try: Try{Outcome: transport}}},
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
			if got.again != c.want.again || got.failed != c.want.failed || got.unreachable != c.want.unreachable || got.try.Outcome != c.want.try.Outcome {
				t.Errorf("got %+v; want %+v", got, c.want)
			}
		})
	}
}

func TestStatusesAreJudged(t *testing.T) {
	for code, want := range map[int]verdict{
		200: {}, 304: {}, 404: {}, 429: {}, 501: {}, 505: {},
		500: {failed: true}, 502: {failed: true}, 503: {failed: true}, 504: {failed: true}, 599: {failed: true},
		421: {again: true, failed: true, unreachable: true},
	} {
		var got verdict
		new(attempt).judgeStatus(code, &got)
		if got.again != want.again || got.failed != want.failed || got.unreachable != want.unreachable {
			t.Errorf("%d: got %+v; want %+v", code, got, want)
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
