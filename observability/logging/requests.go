package logging

import (
	"crypto/rand"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/internal/answer"
)

// RequestIDHeader carries a request's ID: in from the sender, on to the services
// behind, and back in the answer.
const RequestIDHeader = "X-Request-Id"

const maxRequestID = 128

// Handler logs one line for each request that next serves, at level info, and
// gives the request its ID: the sender's, if that is well formed, else a new one.
// The ID is in the request's header, in its context, so that every line that is
// logged with it says it, and in the answer's header.
//
// The line has the path without its query, which may hold secrets, and no body.
// Its route is the pattern that an http.ServeMux inside of next notes in the
// request.
func Handler(log *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		id := TakeRequestID(r.Header)
		w.Header().Set(RequestIDHeader, id)
		inner := r.WithContext(WithRequestID(r.Context(), id))
		inner.Header = r.Header.Clone()
		inner.Header.Set(RequestIDHeader, id)
		out, noted := answer.Note(w)
		whole := false
		defer func() {
			r.Pattern = inner.Pattern // for the middleware outside
			line := Line{Status: noted.Status(inner, whole), Bytes: noted.Bytes, Took: time.Since(began), Cut: !whole}
			line.Log(log, slog.LevelInfo, inner)
		}()
		next.ServeHTTP(out, inner)
		whole = true
	})
}

// Line is what is logged of one request, besides what the request says itself.
type Line struct {
	Status int
	Bytes  int64         // of the answer's body
	Took   time.Duration // from the arrival of the header to the end of the answer
	Peer   string        // the ID of the instance that served it for us; empty means none
	Cut    bool          // the answer was broken off
}

// Log writes the line of r.
func (l Line) Log(log *slog.Logger, level slog.Level, r *http.Request) {
	ctx := r.Context()
	if !log.Enabled(ctx, level) {
		return
	}
	route := r.Pattern
	if route == "" {
		route = "unmatched"
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method),
		slog.String("route", route),
		slog.String("path", r.URL.EscapedPath()),
		slog.Int("status", l.Status),
		slog.Int64("bytes", l.Bytes),
		milliseconds("duration_ms", l.Took),
		slog.String("remote", remote),
	}
	if l.Peer != "" {
		attrs = append(attrs, slog.String("peer", l.Peer))
	}
	if l.Cut {
		attrs = append(attrs, slog.Bool("cut_off", true))
	}
	log.LogAttrs(ctx, level, "request", attrs...)
}

// TakeRequestID returns the ID that the sender gave, if it is one of 1 to 128 of
// [A-Za-z0-9._-], else a new one: it goes into logs, which must not be made to
// lie.
func TakeRequestID(h http.Header) string {
	if given := h[RequestIDHeader]; len(given) == 1 && wellFormed(given[0]) {
		return given[0]
	}
	return rand.Text()
}

func wellFormed(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		switch b := id[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', b == '.', b == '_', b == '-':
		default:
			return false
		}
	}
	return true
}

// PassRequestID returns a RoundTripper that sends the request ID of each
// request's context along, so that the logs of all services tell one story.
func PassRequestID(next http.RoundTripper) http.RoundTripper { return passOn{next} }

type passOn struct{ next http.RoundTripper }

func (p passOn) RoundTrip(r *http.Request) (*http.Response, error) {
	id := RequestID(r.Context())
	if id == "" || r.Header.Get(RequestIDHeader) != "" {
		return p.next.RoundTrip(r)
	}
	out := *r // a RoundTripper must not change the request
	out.Header = r.Header.Clone()
	if out.Header == nil {
		out.Header = http.Header{}
	}
	out.Header.Set(RequestIDHeader, id)
	return p.next.RoundTrip(&out)
}
