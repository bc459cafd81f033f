package tracing

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/rollcall-mesh/rollcall/observability/internal/answer"
	"github.com/rollcall-mesh/rollcall/observability/logging"
)

// Server makes the spans of an HTTP server. Most programs need its Handler only; Begin
// and End are for a server that copies the request itself.
type Server struct{ tracing *Tracing }

// Server returns what makes the spans of an HTTP server. It makes none if t is nil.
func (t *Tracing) Server() *Server { return &Server{tracing: t} }

// Handler makes a span for each request that next serves, and puts it into the request's
// context. The span's name has the route: the pattern that an http.ServeMux inside of
// next notes in the request. A handler in between that copies the request must hand the
// copy's Pattern back. Around logging.Handler, the lines of the log have the span's IDs,
// and the span has the ID that the lines have.
func (s *Server) Handler(next http.Handler) http.Handler {
	if s.tracing == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := s.Begin(r.Context(), r)
		inner := r.WithContext(ctx)
		out, noted := answer.Note(w)
		whole := false
		defer func() {
			r.Pattern = inner.Pattern // for the middleware outside
			if id := out.Header().Get(logging.RequestIDHeader); id != "" {
				trace.SpanFromContext(ctx).SetAttributes(RequestID(id))
			}
			s.End(ctx, inner, noted.Status(inner, whole))
		}()
		next.ServeHTTP(out, inner)
		whole = true
	})
}

// Begin begins the span of a request, and returns the context that it goes on with, made
// of ctx.
func (s *Server) Begin(ctx context.Context, r *http.Request) context.Context {
	if s.tracing == nil {
		return ctx
	}
	ctx = s.tracing.Receive(ctx, propagation.HeaderCarrier(r.Header), bounded(r.Method), semconv.HTTPRequestMethodKey.String(bounded(r.Method)), semconv.URLPath(r.URL.EscapedPath()))
	if id := logging.RequestID(ctx); id != "" {
		trace.SpanFromContext(ctx).SetAttributes(RequestID(id))
	}
	return ctx
}

// End ends the span that Begin has made. The status is the answer's.
func (s *Server) End(ctx context.Context, r *http.Request, status int) {
	if s.tracing == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	if r.Pattern != "" {
		span.SetName(bounded(r.Method) + " " + route(r.Pattern))
		span.SetAttributes(semconv.HTTPRoute(route(r.Pattern)))
	}
	switch {
	case status == answer.StatusNone:
		span.SetStatus(codes.Error, "there was no answer")
		span.SetAttributes(semconv.ErrorTypeKey.String("no_answer"))
	case status >= http.StatusInternalServerError:
		span.SetStatus(codes.Error, http.StatusText(status))
		span.SetAttributes(semconv.ErrorTypeKey.String(strconv.Itoa(status)), semconv.HTTPResponseStatusCode(status))
	default:
		span.SetAttributes(semconv.HTTPResponseStatusCode(status))
	}
	span.End()
}

// bounded returns a method that there is: a client may send any word, and each would be a
// name.
func bounded(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "_OTHER" // the word of OpenTelemetry's conventions
}

// route is a pattern of http.ServeMux without its method.
func route(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return path
	}
	return pattern
}
