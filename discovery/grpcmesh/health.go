package grpcmesh

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// health is the health service (grpc.health.v1). All names have the same health,
// the empty one too, which is what Consul's check asks for. grpc-go's own is not
// used: it answers what it was told last, and its streams would hold up a
// shutdown until its bound.
type health struct {
	healthpb.UnimplementedHealthServer
	ready func() error
	log   *slog.Logger
	asked atomic.Uint64 // numbers the questions to ready
	over  chan struct{} // closed by end
	end   func()

	mu      sync.Mutex // guards what follows
	names   map[string]bool
	status  healthpb.HealthCheckResponse_ServingStatus
	told    uint64        // the question whose answer status is
	retired bool          // NOT_SERVING for good
	changed chan struct{} // closed when status changes
}

func newHealth(ready func() error, log *slog.Logger) *health {
	over := make(chan struct{})
	return &health{
		ready: ready, log: log, over: over, end: sync.OnceFunc(func() { close(over) }),
		status: healthpb.HealthCheckResponse_NOT_SERVING, changed: make(chan struct{}),
	}
}

// serve sets the names that have a health.
func (h *health) serve(names map[string]bool) {
	h.mu.Lock()
	h.names = names
	h.mu.Unlock()
	h.refresh()
}

// refresh asks ready, tells those who watch if that is news, and returns what is
// so now. Of two questions at once the later one counts.
func (h *health) refresh() healthpb.HealthCheckResponse_ServingStatus {
	question := h.asked.Add(1)
	status := h.ask()
	h.mu.Lock()
	defer h.mu.Unlock()
	if question > h.told && !h.retired {
		h.told = question
		h.set(status)
	}
	return h.status
}

// ask is what ready says; one that panics says no.
func (h *health) ask() (status healthpb.HealthCheckResponse_ServingStatus) {
	status = healthpb.HealthCheckResponse_NOT_SERVING
	defer func() {
		if p := recover(); p != nil {
			h.log.Error("ServerConfig.Ready panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if h.ready() == nil {
		status = healthpb.HealthCheckResponse_SERVING
	}
	return status
}

func (h *health) retire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.retired = true
	h.set(healthpb.HealthCheckResponse_NOT_SERVING)
}

// set is called with mu held.
func (h *health) set(status healthpb.HealthCheckResponse_ServingStatus) {
	if h.status == status {
		return
	}
	h.status = status
	close(h.changed)
	h.changed = make(chan struct{})
}

// now returns the status of a name, and what is closed when it changes.
func (h *health) now(name string) (healthpb.HealthCheckResponse_ServingStatus, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.names[name] {
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN, nil
	}
	return h.status, h.changed
}

// Check is the health service's.
func (h *health) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if known, _ := h.now(r.GetService()); known == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Error(codes.NotFound, "the server does not have this service")
	}
	return &healthpb.HealthCheckResponse{Status: h.refresh()}, nil
}

// List is the health service's.
func (h *health) List(context.Context, *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	now := h.refresh()
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]*healthpb.HealthCheckResponse{}
	for name := range h.names {
		all[name] = &healthpb.HealthCheckResponse{Status: now}
	}
	return &healthpb.HealthListResponse{Statuses: all}, nil
}

// Watch is the health service's. It ends when the server shuts down.
func (h *health) Watch(r *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	h.refresh()
	for {
		now, changed := h.now(r.GetService())
		if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
			return err
		}
		select {
		case <-changed: // nil for an unknown name, which stays unknown
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-h.over:
			return status.Error(codes.Unavailable, "the server shuts down")
		}
	}
}
