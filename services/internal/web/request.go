package web

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/problem"
)

// RequestIDHeader carries a request's ID: in from whoever sent the request, on
// to the services behind, and back in the answer.
const RequestIDHeader = "X-Request-Id"

// StatusNoAnswer is what logs and metrics say of a request that was not
// answered: its client left, or it was cut off. It is never sent.
const StatusNoAnswer = 499

const maxRequestID = 128

// note is what is known of a request besides what net/http knows.
type note struct {
	peer atomic.Pointer[string]
}

type noteKey struct{}

// NotePeer notes the ID of the instance that served the request for us; the
// line that is logged of the request tells it.
func NotePeer(ctx context.Context, instance string) {
	if n, ok := ctx.Value(noteKey{}).(*note); ok {
		n.peer.Store(&instance)
	}
}

// handler wraps h with all that each request gets, from the outside in: its ID,
// the log and the metrics, the answer to a panic, the limit of its header.
func (s *Server) handler(h http.Handler) http.Handler {
	h = limitHeader(s.cfg.Limits.MaxHeaderBytes, checkTarget(h))
	h = s.recover(h)
	return s.observe(h)
}

// observe makes the one copy of the request that there is, with the context
// that everything inside shares. A request whose context has ended while
// nothing was answered gets no answer.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		s.arrivals.Add(1)
		h := next
		if s.inFlight.add(1) > s.cfg.Limits.maxRequests() {
			h = http.HandlerFunc(s.refuse)
		}
		defer s.inFlight.add(-1)

		id := requestID(r.Header)
		noted := &note{}
		ctx := context.WithValue(logging.WithRequestID(r.Context(), id), noteKey{}, noted)
		r = r.WithContext(ctx)
		r.Header[RequestIDHeader] = []string{id} // for who passes the request on
		unlist(r.Header, "Connection")           // a proxy drops what stands there (RFC 9110, section 7.6.1)
		out := &writer{
			ResponseWriter: w, request: r, requestID: id, retired: &s.retired, edge: s.cfg.Edge,
			clock: newClock(s.cfg.Limits.StreamTimeout, w),
		}
		out.Header().Set(RequestIDHeader, id)
		if r.Body != nil && r.Body != http.NoBody {
			out.body = newBody(r, &out.clock)
			r.Body = out.body
		}
		if s.cfg.Metrics != nil {
			s.cfg.Metrics.Begin()
		}
		whole := false
		defer func() {
			out.leave()
			took := time.Since(began)
			status := out.status
			if status == 0 {
				status = StatusNoAnswer
				if whole {
					status = http.StatusOK // net/http's, for a handler that says nothing
				}
			}
			if s.cfg.Metrics != nil {
				s.cfg.Metrics.End(r.Pattern, r.Method, status, took)
			}
			s.log(r, noted, status, out.bytes, took, whole)
		}()
		h.ServeHTTP(out, r)
		if out.status == 0 && ctx.Err() != nil {
			// The client has left, or a drain has cut the request off. net/http
			// would answer 200, as if it had been served.
			panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to break a connection off
		}
		whole = true
	})
}

// refuse answers a request over the limit.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request) {
	limit := s.cfg.Limits.maxRequests()
	if s.refusals.now() {
		s.cfg.Log.WarnContext(r.Context(), "requests are refused", "limit", limit, "remote", r.RemoteAddr)
	}
	p := problem.Unavailable(nil, "%d requests are in flight, which is the limit; come back in a second", limit)
	p.Header = http.Header{httpmesh.ReasonHeader: {httpmesh.ReasonOverload}}
	problem.Write(w, r, p)
}

// log writes the one line of a request: its path without the query, which may
// hold secrets, and no body.
func (s *Server) log(r *http.Request, noted *note, status int, bytes int64, took time.Duration, whole bool) {
	ctx := r.Context()
	if !s.cfg.Log.Enabled(ctx, s.cfg.AccessLevel) {
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
		slog.Int("status", status),
		slog.Int64("bytes", bytes),
		slog.Float64("duration_ms", float64(took.Microseconds())/1000),
		slog.String("remote", remote),
	}
	if peer := noted.peer.Load(); peer != nil {
		attrs = append(attrs, slog.String("peer", *peer))
	}
	if !whole {
		attrs = append(attrs, slog.Bool("cut_off", true))
	}
	s.cfg.Log.LogAttrs(ctx, s.cfg.AccessLevel, "request", attrs...)
}

// requestID takes the sender's ID over if there is one and it is well formed:
// it goes into logs, which must not be made to lie.
func requestID(h http.Header) string {
	if given := h[RequestIDHeader]; len(given) == 1 && wellFormed(given[0]) {
		return given[0]
	}
	return rand.Text()
}

// wellFormed reports whether id is 1 to 128 of [A-Za-z0-9._-].
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

// recover answers 500 for a handler that panicked, and logs it with its stack.
// Where the answer had begun, and for http.ErrAbortHandler, which asks for it,
// the connection is broken off, so that the client sees that something is
// missing.
func (s *Server) recover(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { //nolint:contextcheck // the request carries it
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to break a connection off
			}
			if s.cfg.Metrics != nil {
				s.cfg.Metrics.Panicked()
			}
			s.cfg.Log.ErrorContext(r.Context(), "handler panicked", "panic", p, "stack", string(debug.Stack()))
			if out, ok := w.(*writer); !ok || out.status != 0 {
				panic(http.ErrAbortHandler) //nolint:forbidigo // as above
			}
			problem.Write(w, r, problem.New(http.StatusInternalServerError, "the request could not be served; the logs say why"))
		}()
		next.ServeHTTP(w, r)
	})
}

// limitHeader answers 431 for a request whose header is larger than limit, in
// bytes as HTTP/1.1 has them on the wire.
func limitHeader(limit int, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const separators = len(": \r\n")
		size := len(r.Method) + len(r.RequestURI) + len(r.Proto) + separators
		size += len("Host") + len(r.Host) + separators // not in r.Header
		for name, values := range r.Header {
			if name == RequestIDHeader {
				continue // ours by now
			}
			for _, v := range values {
				size += len(name) + len(v) + separators
			}
		}
		if size > limit {
			problem.Write(w, r, problem.New(http.StatusRequestHeaderFieldsTooLarge,
				"the request's header is %s bytes; want at most %d", strconv.Itoa(size), limit))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// checkTarget answers what is asked of no handler, by its target: "OPTIONS *",
// which is about the server (RFC 9110, section 9.3.7), is answered as net/http
// would; user information is an error, since it serves to mislead (section
// 4.2.4).
func checkTarget(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodOptions && r.RequestURI == "*":
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusOK)
		case r.URL.User != nil:
			problem.Write(w, r, problem.New(http.StatusBadRequest, "the target has user information (user@host); want it without"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}
