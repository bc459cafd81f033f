package metrics

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rollcall-mesh/rollcall/observability/internal/answer"
)

// Server has the metrics of an HTTP server: rate, errors and durations of its
// requests, and its connections. Most programs need its Handler only; the other
// methods are for a server that knows more than a handler can, as of connections
// that were refused.
type Server struct {
	cfg      Config
	requests *prometheus.HistogramVec
	inFlight prometheus.Gauge
	open     prometheus.Gauge
	accepted prometheus.Counter
	refused  prometheus.Counter
	panics   prometheus.Counter
}

func newServer(c *collector, cfg Config) *Server {
	service := cfg.Service
	return &Server{
		cfg:      cfg,
		requests: c.requests,
		inFlight: c.inFlight.WithLabelValues(service),
		open:     c.open.WithLabelValues(service),
		accepted: c.accepted.WithLabelValues(service),
		refused:  c.refused.WithLabelValues(service),
		panics:   c.panics.WithLabelValues(service),
	}
}

// Handler counts the requests that next serves. The route is the pattern that an
// http.ServeMux inside of next notes in the request: a handler in between that
// copies the request (WithContext) must hand the copy's Pattern back, else it is
// "unmatched".
//
// An answer that is flushed before its end, and a connection that is taken over,
// are streams: they last as long as their ends like, which says nothing of
// latency. What is observed of them is the time until they began.
func (s *Server) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		out, noted := answer.Note(w)
		s.Begin()
		whole := false
		defer func() { //nolint:contextcheck // the request carries it
			s.End(r.Context(), r.Pattern, r.Method, noted.Status(r, whole), noted.Latency(began))
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				s.Panicked()
			}
			panic(p) //nolint:forbidigo // it is for net/http to answer, as without us
		}()
		next.ServeHTTP(out, r)
		whole = true
	})
}

// Begin counts a request that is being served, until End.
func (s *Server) Begin() { s.inFlight.Inc() }

// End counts a request as served. route is a pattern, never a path; the empty
// one means that none fits. took is the time until the answer's end, for a stream
// until its beginning. The context is the request's.
func (s *Server) End(ctx context.Context, route, method string, code int, took time.Duration) {
	s.inFlight.Dec()
	if route == "" {
		route = Unmatched
	}
	s.cfg.observe(ctx, s.requests.WithLabelValues(s.cfg.Service, route, boundMethod(method), strconv.Itoa(code)), took)
}

// Accepted counts a connection that is open until Closed.
func (s *Server) Accepted() {
	s.accepted.Inc()
	s.open.Inc()
}

// Closed counts the end of an accepted connection.
func (s *Server) Closed() { s.open.Dec() }

// Refused counts a connection over the limit.
func (s *Server) Refused() { s.refused.Inc() }

// Panicked counts a handler that panicked.
func (s *Server) Panicked() { s.panics.Inc() }

// Unmatched is the route of a request that no pattern fits.
const Unmatched = "unmatched"

// StatusNoAnswer is the code of a request that was not answered: its client left,
// or it was cut off. It is never sent.
const StatusNoAnswer = answer.StatusNone

// boundMethod keeps the methods of RFC 9110 and PATCH: a client may send any
// word as a method, and each would be a series.
func boundMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return Other
}
