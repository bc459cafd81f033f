package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Server has the metrics of an HTTP server: rate, errors and durations of its
// requests, and its connections.
type Server struct {
	service   string
	durations *prometheus.HistogramVec
	inFlight  prometheus.Gauge
	open      prometheus.Gauge
	accepted  prometheus.Counter
	refused   prometheus.Counter
	panics    prometheus.Counter
}

func newServer(r prometheus.Registerer, service string) *Server {
	own := prometheus.Labels{"service": service}
	s := &Server{
		service: service,
		durations: prometheus.NewHistogramVec(durations("http_server_request_duration_seconds",
			"Time from the arrival of a request's header to the end of its answer, by the service that answered, the pattern of the route (\"unmatched\" if none fits), the method (unknown ones are \"other\") and the status code (499: there was no answer, since the client left or the request was cut off)."),
			[]string{"service", "route", "method", "code"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_server_requests_in_flight", Help: "Requests being served now.", ConstLabels: own,
		}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_server_connections_open", Help: "Connections that are open now, idle ones and upgraded ones included.", ConstLabels: own,
		}),
		accepted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "http_server_connections_accepted_total", Help: "Connections that were accepted and served.", ConstLabels: own,
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "http_server_connections_refused_total", Help: "Connections that were answered 503 and closed, since the limit of open connections was reached.", ConstLabels: own,
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "http_server_panics_total", Help: "Handlers that panicked; each was answered 500 if that was still possible.", ConstLabels: own,
		}),
	}
	r.MustRegister(s.durations, s.inFlight, s.open, s.accepted, s.refused, s.panics)
	return s
}

// Begin counts a request that is being served, until End.
func (s *Server) Begin() { s.inFlight.Inc() }

// End counts a request as served. route is a pattern, never a path; the empty
// one means that none fits.
func (s *Server) End(route, method string, code int, took time.Duration) {
	s.inFlight.Dec()
	if route == "" {
		route = Unmatched
	}
	s.durations.WithLabelValues(s.service, route, boundMethod(method), strconv.Itoa(code)).Observe(took.Seconds())
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
