package gateway

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

var (
	errMisdirected = errors.New("every address that was tried belongs to another service")
	errUnasked     = errors.New("the instance switched to a protocol that was not asked for")
)

// failed answers a request that did not get an answer.
func (g *Gateway) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	cause := context.Cause(r.Context())
	if x.body != nil {
		broken := x.body.broken()
		if errors.Is(err, errLength) {
			broken = err
		}
		if broken != nil && !errors.Is(cause, errNoAnswer) {
			// It was the client's part that failed: nothing is said of the service.
			status, detail := http.StatusBadRequest, "the request's body ended before its time"
			if errors.Is(broken, os.ErrDeadlineExceeded) {
				status, detail = http.StatusRequestTimeout, "the request's body did not come in time"
			}
			problem.Write(w, r, problem.New(status, "%s", detail))
			return
		}
	}
	if cause != nil && !errors.Is(cause, errNoAnswer) {
		// The client has left, or we are told to cut it off. net/http would say
		// 200 for a handler that says nothing, and a client that has only closed
		// its sending half would read that.
		panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to break a connection off
	}
	p := x.problem(err, cause)
	g.log.WarnContext(r.Context(), "no answer", "peer", x.service, "status", p.Status,
		"known", x.report.Counts.Known, "tried", x.tried(), "error", err.Error())
	problem.Write(w, r, p)
}

// problem says what became of the request: which service, how many of its
// instances discovery knew of, and how many were tried.
func (x *exchange) problem(err, cause error) *problem.Problem {
	known, tried := x.report.Counts.Known, x.tried()
	say := func(status int, what string) *problem.Problem {
		p := problem.New(status, "%s %s (%d instances known, %d tried)", x.service, what, known, tried)
		p.Cause = err
		if status != http.StatusBadGateway {
			p.RetryAfter = time.Second
		}
		p.Extensions = map[string]any{"service": x.service, "known": known, "tried": tried}
		return p
	}
	if errors.Is(cause, errNoAnswer) {
		return say(http.StatusGatewayTimeout, "did not answer in time")
	}
	if errors.Is(err, errMisdirected) {
		return say(http.StatusServiceUnavailable, "can't be reached")
	}
	if errors.Is(err, errUnasked) {
		return say(http.StatusBadGateway, "switched to a protocol that was not asked for")
	}
	failure, ok := errors.AsType[*httpmesh.Error](err)
	if !ok {
		return say(http.StatusBadGateway, "could not be asked")
	}
	switch failure.Report.Outcome {
	case outcome.NoInstance:
		if x.grpc {
			return say(http.StatusServiceUnavailable, "has no instance that speaks gRPC and can serve")
		}
		return say(http.StatusServiceUnavailable, "has no instance that can serve")
	case outcome.Unreachable, outcome.Untrusted, outcome.WrongScheme, outcome.Stalled, outcome.Unsent, outcome.Misdirected, outcome.Foreign:
		return say(http.StatusServiceUnavailable, "can't be reached")
	case outcome.Closed:
		return say(http.StatusServiceUnavailable, "is not asked any more: the gateway is leaving")
	case outcome.CallerError:
		return say(http.StatusBadGateway, "could not be asked")
	case outcome.Timeout, outcome.Silent:
		return say(http.StatusGatewayTimeout, "did not answer in time")
	}
	// The connection broke after the request was sent: it may have been served,
	// so nothing invites the client to send it again.
	return say(http.StatusBadGateway, "broke the connection off")
}

// tried counts the instances, not the tries.
func (x *exchange) tried() int {
	seen := map[string]bool{}
	for _, try := range x.report.Tries {
		seen[try.Instance.ID] = true
	}
	return len(seen)
}
