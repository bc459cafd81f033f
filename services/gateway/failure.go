package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/services/internal/problem"
)

var errMisdirected = errors.New("every address that was tried belongs to another service")

// unserved is the problem of a request that no instance answered: RFC 9457's
// members, and three of ours (its section 3.2 allows for them).
type unserved struct {
	*problem.Problem
	Service string `json:"service"`
	Known   int    `json:"known"` // instances that discovery knew of
	Tried   int    `json:"tried"` // instances that the request was sent to, or dialled for
}

// failed answers a request that did not get an answer.
func (g *Gateway) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	cause := context.Cause(r.Context())
	if x.body != nil {
		if broken := x.body.broken(); broken != nil && !errors.Is(cause, errNoAnswer) {
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
		return // the client has left, or we are told to cut it off: nobody reads an answer
	}
	p := x.problem(err, cause)
	g.log.WarnContext(r.Context(), "no answer", "peer", x.service, "status", p.Status,
		"known", p.Known, "tried", p.Tried, "error", err.Error())
	p.write(w, r)
}

// problem says what became of the request.
func (x *exchange) problem(err, cause error) *unserved {
	known, tried := x.report.Counts.Known, x.tried()
	say := func(status int, what string) *unserved {
		p := problem.New(status, "%s %s (%d instances known, %d tried)", x.service, what, known, tried)
		p.Cause = err
		if status != http.StatusBadGateway {
			p.RetryAfter = time.Second
		}
		return &unserved{Problem: p, Service: x.service, Known: known, Tried: tried}
	}
	if errors.Is(cause, errNoAnswer) {
		return say(http.StatusGatewayTimeout, "did not answer in time")
	}
	if errors.Is(err, errMisdirected) {
		return say(http.StatusServiceUnavailable, "can't be reached")
	}
	failure, ok := errors.AsType[*httpmesh.Error](err)
	if !ok {
		return say(http.StatusBadGateway, "could not be asked")
	}
	switch failure.Report.Outcome {
	case "no_instance":
		return say(http.StatusServiceUnavailable, "has no instance that can serve")
	case "unreachable":
		return say(http.StatusServiceUnavailable, "can't be reached")
	case "closed":
		return say(http.StatusServiceUnavailable, "is not asked any more: the gateway is leaving")
	case "timeout":
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

// write sends it as problem.Write would, which has no room for our members.
func (p *unserved) write(w http.ResponseWriter, r *http.Request) {
	p.Instance = r.URL.EscapedPath()
	var body bytes.Buffer
	out := json.NewEncoder(&body)
	out.SetEscapeHTML(false)
	if err := out.Encode(p); err != nil { // strings and integers: can't be
		problem.Write(w, r, p.Problem)
		return
	}
	h := w.Header()
	h.Set("Content-Type", problem.ContentType)
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(p.RetryAfter.Seconds())))
	}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes()) // the client has gone: nobody is left to tell
	}
}
