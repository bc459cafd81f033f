// Package rest is what the services' HTTP transports share: go-kit servers whose
// errors are problems ([Server]), strict reading of paths and JSON ([ID],
// [Decode]), and exact writing of JSON ([Encode]). It has no state; what it
// returns is safe for any number of goroutines.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-kit/kit/endpoint"
	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
	"github.com/rollcall-mesh/rollcall/services/internal/sqlite"
	"github.com/rollcall-mesh/rollcall/services/internal/text"
)

// fullRetryAfter is when a write is worth another try after the disk was full:
// somebody has to make room first.
const fullRetryAfter = 5 * time.Second

// Server binds a go-kit endpoint to HTTP. Its errors are written as problems;
// those of status 500 and above are logged as well, with their cause.
func Server(e endpoint.Endpoint, dec kithttp.DecodeRequestFunc, enc kithttp.EncodeResponseFunc, log *slog.Logger) http.Handler {
	errs := reporter{log: log}
	return kithttp.NewServer(e, dec, enc,
		kithttp.ServerBefore(func(ctx context.Context, r *http.Request) context.Context {
			return context.WithValue(ctx, requestKey{}, r)
		}),
		kithttp.ServerErrorEncoder(func(ctx context.Context, err error, w http.ResponseWriter) {
			// Set by ServerBefore, which runs before anything can fail.
			r, _ := ctx.Value(requestKey{}).(*http.Request)
			problem.Write(w, r, problemOf(ctx, err))
		}),
		kithttp.ServerErrorHandler(errs),
	)
}

// requestKey is the context's key for the *http.Request: go-kit's error encoder
// is not given the request.
type requestKey struct{}

// reporter is a go-kit transport.ErrorHandler.
type reporter struct{ log *slog.Logger }

func (h reporter) Handle(ctx context.Context, err error) { _ = Report(ctx, h.log, err) }

// Report logs an error that is our fault: not what a request asked for in vain,
// nor that of a request which its sender has given up. It returns the problem
// that the error is to the sender, whatever the protocol.
func Report(ctx context.Context, log *slog.Logger, err error) *problem.Problem {
	p := problemOf(ctx, err)
	if p.Status < http.StatusInternalServerError || errors.Is(ctx.Err(), context.Canceled) {
		return p
	}
	level := slog.LevelError
	if p.Status == http.StatusServiceUnavailable {
		level = slog.LevelWarn
	}
	log.LogAttrs(ctx, level, "request failed", slog.Int("status", p.Status), slog.String("error", err.Error()))
	return p
}

// problemOf is problem.Of, which besides knows the errors of our domains and of
// our store.
func problemOf(ctx context.Context, err error) *problem.Problem {
	if _, ok := errors.AsType[*problem.Problem](err); ok {
		return problem.Of(err)
	}
	if invalid, ok := errors.AsType[*text.InvalidError](err); ok {
		return problem.New(http.StatusBadRequest, "the field %s", invalid.Error())
	}
	if cause := ctx.Err(); cause != nil {
		// Whatever the store says of it ("interrupted"), this is why.
		return problem.Of(fmt.Errorf("%w: %w", cause, err))
	}
	switch {
	case errors.Is(err, idempotency.ErrReused):
		p := problem.New(http.StatusUnprocessableEntity, "the %s was used before, with another body; want a new one for each new request", idempotency.Header)
		p.Cause = err
		return p
	case errors.Is(err, sqlite.ErrBusy):
		return problem.Unavailable(err, "the store is busy")
	case errors.Is(err, sqlite.ErrFull):
		p := problem.New(http.StatusInsufficientStorage, "the store has no room to write; what it has can be read")
		p.RetryAfter = fullRetryAfter
		p.Cause = err
		return p
	}
	return problem.Of(err)
}

// Encode writes v as JSON with one newline at its end, text as it is (no
// \u003c for <). Headers must have been set before.
func Encode(w http.ResponseWriter, status int, v any) error {
	body, err := Marshal(v)
	if err != nil {
		return err
	}
	idempotency.Answer{Status: status, Body: body}.Write(w)
	return nil
}

// Marshal returns v as Encode writes it.
func Marshal(v any) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return body.Bytes(), nil
}
