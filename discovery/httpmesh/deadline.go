package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// TimeoutHeader of a request is how long its sender still waits for the header
// of the answer, in whole milliseconds: a decimal from 1 to 86400000 (a day). A
// duration and not a time of day, so that clocks need not agree (as gRPC's
// grpc-timeout).
//
// A Transport sets it anew for each try, to what is left for the caller: the least
// of what is left of the context's deadline, and of the value that the request came
// with, counted from RoundTrip on. Without either it is not set.
const TimeoutHeader = "Rollcall-Timeout"

const maxTimeout = 24 * time.Hour

// Deadline ends the context of a request when its TimeoutHeader says that its
// sender waits no longer, unless its answer has begun by then: what is streamed or
// upgraded lives on. So the deadline shrinks from hop to hop, with the context
// that next hands on. Err and Cause of that context are
// context.DeadlineExceeded; a context derived from it that can be canceled says
// context.Canceled, with the same Cause.
//
// A request without the header has no deadline; one whose header is malformed is
// answered 400 with a problem. One whose sender has gone, or whose time is over
// before it comes here, is dropped: next does not see it.
//
// A request whose time is over without a word of next is answered 504 with a
// problem. One whose sender has gone is aborted then (http.ErrAbortHandler):
// net/http would answer 200 for a handler that says nothing.
func Deadline(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ended := r.Context().Err(); ended != nil {
			giveUp(w, r, ended)
			return
		}
		said, ok := r.Header[TimeoutHeader]
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		limit, err := parseTimeout(said)
		if err != nil {
			problem.Write(w, r, problem.New(http.StatusBadRequest, "%s", err.Error()))
			return
		}
		by := waitUntil(r.Context(), time.Now().Add(limit))
		defer by.end()
		in := r.WithContext(by)                   //nolint:contextcheck // made of r.Context() by waitUntil
		defer func() { r.Pattern = in.Pattern }() // for what is outside and names the route
		out := &beginning{ResponseWriter: w, by: by}
		next.ServeHTTP(out, in)
		if ended := by.Err(); ended != nil && !out.wrote {
			giveUp(w, r, ended)
		}
	})
}

// giveUp ends a request that nothing was written for, and whose context has
// ended with this error.
func giveUp(w http.ResponseWriter, r *http.Request, ended error) {
	if !errors.Is(ended, context.DeadlineExceeded) {
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to give no answer
	}
	problem.Write(w, r, problem.New(http.StatusGatewayTimeout, "the time for this request was over before it was served"))
}

// parseTimeout reads the values of a TimeoutHeader.
func parseTimeout(said []string) (time.Duration, error) {
	if len(said) == 1 {
		if ms, err := strconv.ParseUint(said[0], 10, 32); err == nil && ms >= 1 && ms <= uint64(maxTimeout/time.Millisecond) {
			return time.Duration(ms) * time.Millisecond, nil
		}
	}
	text := fmt.Sprintf("%q", said)
	if len(said) == 1 {
		text = strconv.Quote(said[0])
	}
	return 0, fmt.Errorf("the header %s is %s; want one number of milliseconds, from 1 to %d", TimeoutHeader, clip.To(80, text), maxTimeout/time.Millisecond)
}

// timeoutValue is what a TimeoutHeader says of a time; less than a millisecond
// counts as one, since 0 would not be a limit.
func timeoutValue(left time.Duration) string {
	return strconv.FormatInt(int64(min(max(left, time.Millisecond), maxTimeout)/time.Millisecond), 10)
}
