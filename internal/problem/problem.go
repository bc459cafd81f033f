// Package problem says what went wrong over HTTP: RFC 9457 problem details.
//
// A [Problem] is an error that knows its status; [Of] finds the problem in any
// error without telling strangers what they need not know; [Write] sends one;
// and [Router] makes the standard library's own 404 and 405 problems too. All
// of it is safe for any number of goroutines, a Problem as long as nobody
// changes it.
package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// ContentType is the media type of a problem as JSON (RFC 9457, section 3).
const ContentType = "application/problem+json"

// Problem is one problem as RFC 9457 has it. It is an error, and unwraps to its
// Cause. The zero value is an internal server error.
type Problem struct {
	// Type is a URI reference that names the kind of problem. Empty means
	// "about:blank": the title is that of the status and nothing more (RFC
	// 9457, section 4.2.1).
	Type string `json:"type"`
	// Title is the kind of problem in a few words, always the same for a Type.
	// Empty means the status' own text.
	Title string `json:"title"`
	// Status is the HTTP status. 0 means 500.
	Status int `json:"status"`
	// Detail says what was wrong with this very request. Whoever sent it can
	// read it.
	Detail string `json:"detail"`
	// Instance is a URI reference to what the request was about. Empty means
	// the request's path.
	Instance string `json:"instance"`

	// Extensions are members of the problem's own (RFC 9457, section 3.2), sent
	// after the five above in the order of their names. One of their names, or
	// a value that JSON can't hold, is left out. nil means none.
	Extensions map[string]any `json:"-"`
	// RetryAfter is after how long another try makes sense; it is sent in whole
	// seconds, at least 1. 0 means that nothing is said about it.
	RetryAfter time.Duration `json:"-"`
	// Header is sent besides, such as the Allow of a 405. nil means nothing.
	Header http.Header `json:"-"`
	// Cause is what lies behind it, for logs. It is never sent.
	Cause error `json:"-"`
}

// New returns a problem of the status' own kind, whose detail is formatted as
// by fmt.Sprintf.
func New(status int, format string, args ...any) *Problem {
	return &Problem{
		Type:   "about:blank",
		Title:  http.StatusText(status),
		Status: status,
		Detail: fmt.Sprintf(format, args...),
	}
}

// Unavailable returns a 503 that asks to come back in a second, with its cause
// for the logs (nil: none).
func Unavailable(cause error, format string, args ...any) *Problem {
	p := New(http.StatusServiceUnavailable, format, args...)
	p.RetryAfter = time.Second
	p.Cause = cause
	return p
}

func (p *Problem) Error() string {
	whole := p.whole()
	text := strconv.Itoa(whole.Status) + " " + whole.Title
	if whole.Detail != "" {
		text += ": " + whole.Detail
	}
	if whole.Cause != nil {
		text += ": " + whole.Cause.Error()
	}
	return text
}

// Unwrap returns the Cause.
func (p *Problem) Unwrap() error { return p.Cause }

// whole returns a copy with the defaults filled in.
func (p *Problem) whole() Problem {
	whole := *p
	if whole.Status == 0 {
		whole.Status = http.StatusInternalServerError
	}
	if whole.Type == "" {
		whole.Type = "about:blank"
	}
	if whole.Title == "" {
		whole.Title = http.StatusText(whole.Status)
	}
	return whole
}

// Of returns the problem that err is for whoever sent the request:
//
//   - a *Problem in its chain, the outermost one;
//   - 413 for an *http.MaxBytesError;
//   - 503 for a context that ended: either we had no time left, or nobody
//     reads the answer (504 is a gateway's word about its upstream: RFC 9110,
//     section 15.6.5);
//   - else 500, whose detail does not hold the error's text.
//
// nil is a 500 too: who asks has something to report.
func Of(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		p := New(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", tooLarge.Limit)
		p.Cause = err
		return p
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable(err, "the time for this request has run out")
	}
	p := New(http.StatusInternalServerError, "the request could not be served; the logs say why")
	p.Cause = err
	return p
}

// Write sends the problem as the answer to r: status, headers, and the JSON
// with one newline at its end, which a HEAD request goes without. A gRPC call
// gets a status of gRPC's own in place of all of that. Nothing must
// have been written before; headers that told of another body are dropped. An
// error in writing means that nobody reads the answer, so there is none to
// return.
func Write(w http.ResponseWriter, r *http.Request, p *Problem) {
	whole := p.whole()
	if whole.Instance == "" {
		whole.Instance = r.URL.EscapedPath()
	}
	if grpcwire.Is(r.Header) { // which can't read a problem
		writeStatus(w, whole)
		return
	}
	body := whole.json()
	header := w.Header()
	// As http.Error does: these spoke of the body that is not sent.
	for _, stale := range [...]string{"Content-Encoding", "Etag", "Last-Modified"} {
		header.Del(stale)
	}
	maps.Copy(header, whole.Header)
	header.Set("Content-Type", ContentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	if whole.RetryAfter > 0 {
		seconds := max(1, int64((whole.RetryAfter+time.Second-1)/time.Second))
		header.Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	w.WriteHeader(whole.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// json returns the problem as it is sent.
func (p *Problem) json() []byte {
	body := encode(p) // four strings and an integer: can't fail
	for _, name := range slices.Sorted(maps.Keys(p.Extensions)) {
		switch name {
		case "type", "title", "status", "detail", "instance":
			continue
		}
		member := encode(map[string]any{name: p.Extensions[name]})
		if member == nil {
			continue
		}
		body = append(bytes.TrimSuffix(body, []byte("}\n")), ',')
		body = append(body, member[1:]...)
	}
	return body
}

// encode returns v as JSON with a newline at its end, text as it is; nil if that
// can't be.
func encode(v any) []byte {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil
	}
	return body.Bytes()
}
