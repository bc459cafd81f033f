package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// RPCServer has the metrics of a gRPC server, for a grpcmesh.ServerTrace or an
// interceptor to fill. It knows gRPC by words alone.
type RPCServer struct {
	cfg      Config
	calls    *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
}

// RPCServer returns the metrics of a gRPC server.
func (m *Metrics) RPCServer() *RPCServer {
	return &RPCServer{
		cfg:      m.cfg,
		calls:    m.all.rpcs,
		inFlight: m.all.rpcsInFlight.WithLabelValues(m.cfg.Service),
		panics:   m.all.rpcPanics.WithLabelValues(m.cfg.Service),
	}
}

// Begin counts a call that is being served, until End.
func (s *RPCServer) Begin() { s.inFlight.Inc() }

// End counts a call as served. method is one that the server has, as it is on the
// wire, else Unmatched: each would be a series. code is a status code's name. took
// is the time until the answer's end, for a stream too. The context is the call's.
func (s *RPCServer) End(ctx context.Context, method, code string, took time.Duration) {
	s.inFlight.Dec()
	s.cfg.observe(ctx, s.calls.WithLabelValues(s.cfg.Service, method, code), took)
}

// Panicked counts a handler that panicked.
func (s *RPCServer) Panicked() { s.panics.Inc() }
