package web

import (
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/internal/problem"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

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

		id := logging.TakeRequestID(r.Header)
		noted := &note{}
		ctx := context.WithValue(logging.WithRequestID(r.Context(), id), noteKey{}, noted)
		if s.cfg.Spans != nil {
			ctx = s.cfg.Spans.Begin(ctx, r)
		}
		r = r.WithContext(ctx)
		r.Header[logging.RequestIDHeader] = []string{id} // for who passes the request on
		unlist(r.Header, "Connection")                   // a proxy drops what stands there (RFC 9110, section 7.6.1)
		out := &writer{
			ResponseWriter: w, request: r, requestID: id, retired: &s.retired, edge: s.cfg.Edge,
			clock: newClock(s.cfg.Limits.StreamTimeout, w),
		}
		out.Header().Set(logging.RequestIDHeader, id)
		if r.Body != nil && r.Body != http.NoBody {
			out.body = newBody(r, &out.clock)
			r.Body = out.body
		}
		if s.cfg.Metrics != nil {
			s.cfg.Metrics.Begin()
		}
		whole := false
		defer func() { s.finish(r, out, noted, began, whole) }()
		h.ServeHTTP(out, r)
		if out.status == 0 && ctx.Err() != nil {
			// The client has left, or a drain has cut the request off. net/http
			// would answer 200, as if it had been served.
			panic(http.ErrAbortHandler) //nolint:forbidigo // net/http's own way to break a connection off
		}
		whole = true
	})
}

// finish counts and logs a request whose handler has ended; whole says that it
// returned, and was not given up.
func (s *Server) finish(r *http.Request, out *writer, noted *note, began time.Time, whole bool) {
	out.leave()
	took := time.Since(began)
	status := out.status
	if status == 0 {
		status = metrics.StatusNoAnswer
		if whole {
			status = http.StatusOK // net/http's, for a handler that says nothing
		}
	}
	if s.cfg.Metrics != nil {
		s.cfg.Metrics.End(r.Context(), r.Pattern, r.Method, status, out.latency(began, took))
	}
	line := logging.Line{Status: status, Bytes: out.bytes, Took: took, Cut: !whole}
	if peer := noted.peer.Load(); peer != nil {
		line.Peer = *peer
	}
	line.Log(s.cfg.Log, s.cfg.AccessLevel, r)
	if s.cfg.Spans != nil {
		s.cfg.Spans.End(r.Context(), r, status)
	}
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
			if name == logging.RequestIDHeader {
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
