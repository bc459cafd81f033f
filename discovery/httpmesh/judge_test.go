package httpmesh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestErrorsAreTranslatedIntoOutcomes(t *testing.T) {
	broken := errors.New("broken")
	dial := fmt.Errorf("wrapped: %w", &dialError{outcome.Unreachable, broken})
	own := fmt.Errorf("%w: %w", errOwnFault, syscall.EMFILE)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, stop := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer stop()
	clock, giveUp := context.WithCancelCause(t.Context())
	giveUp(fmt.Errorf("a clock of the caller's: %w", context.DeadlineExceeded))
	const long = 2 * time.Second
	for _, c := range []struct {
		name         string
		caller       context.Context //nolint:containedctx // a case's; nil: the caller still waits
		cut          error           // why we ended it; nil: we did not
		err          error
		noConn       bool
		wrote, heard bool
		reused       bool
		silent       time.Duration
		raced        bool
		body         io.Reader
		length       int64
		want         outcome.Code
	}{
		{name: "failed dial", err: dial, noConn: true, want: outcome.Unreachable},
		{name: "dial that failed for want of descriptors", err: own, noConn: true, want: outcome.Unsent},
		{name: "dial that takes too long", cut: errStalled, err: errStalled, noConn: true, want: outcome.Stalled},
		{name: "one dial too many that takes too long", err: errStalled, noConn: true, want: outcome.Stalled},
		{name: "failed dial after a byte was written", err: dial, wrote: true, want: outcome.Broken},
		{name: "reset", err: broken, wrote: true, want: outcome.Broken},
		{name: "nothing written on a new connection", err: broken, want: outcome.Unsent},
		{name: "nothing written on an idle connection", err: broken, reused: true, want: outcome.Unsent},
		{name: "end of an idle connection", err: broken, wrote: true, reused: true, want: outcome.IdleClosed},
		{name: "end of an idle connection amid an answer", err: broken, wrote: true, reused: true, heard: true, want: outcome.Broken},
		{name: "request that can't be sent", err: broken, noConn: true, want: outcome.CallerError},
		{name: "body that can't be read", err: broken, wrote: true, body: iotest.ErrReader(broken), want: outcome.CallerError},
		{name: "body that is too short", err: broken, wrote: true, body: strings.NewReader("x"), length: 2, want: outcome.CallerError},
		{name: "body that is too long", err: broken, wrote: true, body: strings.NewReader("xyz"), length: 2, want: outcome.CallerError},
		{name: "body that is right", err: broken, wrote: true, body: strings.NewReader("xy"), length: 2, want: outcome.Broken},
		{name: "cut for the next try", cut: tries.ErrSilent, err: tries.ErrSilent, wrote: true, want: outcome.Silent},
		{name: "outrun soon", cut: tries.ErrOutrun, err: tries.ErrOutrun, wrote: true, want: outcome.Outrun},
		{name: "outrun after a long silence", cut: tries.ErrOutrun, err: tries.ErrOutrun, wrote: true, silent: long, want: outcome.Silent},
		{name: "outrun before it had a connection", cut: tries.ErrOutrun, err: tries.ErrOutrun, noConn: true, silent: long, want: outcome.Outrun},
		{name: "deadline", caller: late, err: broken, wrote: true, want: outcome.Timeout},
		{name: "deadline after a long silence", caller: late, err: broken, wrote: true, silent: long, want: outcome.Silent},
		{name: "deadline after a long silence of two", caller: late, err: broken, wrote: true, silent: long, raced: true, want: outcome.Timeout},
		{name: "deadline while it dials", caller: late, err: dial, noConn: true, silent: long, want: outcome.Timeout},
		{name: "caller's own clock", caller: clock, err: broken, wrote: true, want: outcome.Timeout},
		{name: "caller's own clock after a long silence", caller: clock, err: broken, wrote: true, silent: long, want: outcome.Silent},
		{name: "caller who leaves", caller: ended, err: broken, wrote: true, want: outcome.Canceled},
		{name: "caller who leaves after a long silence", caller: ended, err: broken, wrote: true, silent: long, want: outcome.Silent},
		{name: "caller who leaves amid a long upload", caller: ended, err: broken, wrote: true, silent: long, body: blank{}, want: outcome.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := cmp.Or(c.caller, t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://order/", c.body)
			if err != nil {
				t.Fatal(err)
			}
			if c.length != 0 {
				r.ContentLength = c.length
			}
			x := newExchange(&Transport{cfg: Config{Trace: new(Trace)}, closed: make(chan struct{}), rules: tries.Rules{Patience: defaultTryTimeout}}, r, routeKey{service: "order"})
			x.Raced.Store(c.raced)
			body, err := x.body.next()
			if err != nil {
				t.Fatal(err)
			}
			if body != nil {
				_, _ = io.CopyN(io.Discard, body, 100)
			}
			a := &attempt{Try: tries.Try{Start: time.Now().Add(-c.silent)}, x: x, body: body, reused: c.reused}
			a.ctx, a.Cancel = context.WithCancelCause(ctx)
			a.Cancel(c.cut)
			if !c.noConn {
				a.conn = &conn{network: &network{began: a.Start}}
			}
			if c.wrote {
				a.conn.sent.Add(1)
			}
			if c.heard {
				a.conn.received.Add(1)
			}
			if got := a.errorCode(c.err); got != c.want {
				t.Errorf("got %v; want %v", got, c.want)
			}
		})
	}
}

// blank is a body that does not end.
type blank struct{}

func (blank) Read(p []byte) (int, error) { return len(p), nil }

func TestStatusesAreTranslatedIntoOutcomes(t *testing.T) {
	for _, c := range []struct {
		status int
		reason string
		want   outcome.Code
	}{
		{200, "", outcome.OK},
		{304, "", outcome.OK},
		{404, "", outcome.OK},
		{501, "", outcome.OK},
		{505, "", outcome.OK},
		{101, "", outcome.Error},
		{500, "", outcome.Error},
		{500, "overload", outcome.Error},
		{599, "", outcome.Error},
		{421, "", outcome.Misdirected},
		{429, "", outcome.Busy},
		{502, "", outcome.Gateway},
		{502, "downstream", outcome.Downstream},
		{502, "overload", outcome.Gateway},
		{503, "", outcome.Gateway},
		{503, "downstream", outcome.Downstream},
		{503, "a word to come", outcome.Gateway},
		{503, "overload", outcome.Overload},
		{504, "", outcome.GatewayTimeout},
		{504, "overload", outcome.GatewayTimeout},
		{504, "downstream", outcome.Downstream},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://order/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer := &http.Response{StatusCode: c.status, Header: http.Header{}}
		if c.reason != "" {
			answer.Header.Set(ReasonHeader, c.reason)
		}
		a := &attempt{x: newExchange(&Transport{cfg: Config{Trace: new(Trace)}}, r, routeKey{service: "order"}), route: new(route)}
		if got := a.answerCode(answer); got != c.want {
			t.Errorf("%d with reason %q: got %v; want %v", c.status, c.reason, got, c.want)
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
	n := &network{timeout: time.Minute, began: time.Now(), dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.dial(ended, "10.0.0.1:1", nil, false, nil); err == nil {
		t.Error("got a connection")
	} else if _, failed := errors.AsType[*dialError](err); failed {
		t.Errorf("got %v; want it not marked as a failed dial", err)
	}
	n.timeout = time.Millisecond
	if _, err := n.dial(t.Context(), "10.0.0.1:1", nil, false, nil); err == nil {
		t.Error("got a connection")
	} else if _, failed := errors.AsType[*dialError](err); !failed {
		t.Errorf("got %v; want it marked as a failed dial", err)
	}
}

func TestConnectionThatComesWhenItsRequestHasGoneSendsNothing(t *testing.T) {
	for name, had := range map[string]*conn{"elsewhere": nil, "from a connection that was closed": new(conn)} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			_ = here.SetWriteDeadline(time.Now().Add(time.Second)) // or a write would wait for its reader
			a := &attempt{conn: had}
			a.ctx, a.Cancel = context.WithCancelCause(t.Context())
			if had == nil {
				a.stall()
			}
			a.get("")
			c := &conn{Conn: here, network: &network{began: time.Now()}}
			a.got(httptrace.GotConnInfo{Conn: c})
			if n, err := c.Write([]byte("POST")); n != 0 || !errors.Is(err, errVeto) {
				t.Errorf("wrote %d bytes, %v; want none", n, err)
			}
			if a.ctx.Err() == nil {
				t.Error("the try was not ended")
			}
		})
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
