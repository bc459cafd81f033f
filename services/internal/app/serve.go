package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/grpcmesh"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
	"github.com/rollcall-mesh/rollcall/observability/tracing"
	"github.com/rollcall-mesh/rollcall/observability/tracing/otlp"
	"github.com/rollcall-mesh/rollcall/services/internal/fault"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// unreachable is how long a Consul that does not answer may hold up a drain.
const unreachable = 2 * time.Second

// service is one run of serve. Its parts come to be in the order of the
// fields, and are closed in the opposite one.
type service struct {
	spec     Spec
	settings *Settings
	level    *slog.LevelVar // of the log
	log      *slog.Logger
	// discoveryLog is log without the name of this service.
	discoveryLog *slog.Logger

	checks     *health.Registry
	spans      *otlp.Provider
	metrics    *metrics.Metrics
	mesh       *discovery.Mesh
	runtime    *Runtime
	admin      *web.Server
	traffic    *web.Server
	rpcs       *grpcmesh.Server // nil: no gRPC port
	serving    sync.WaitGroup
	failed     chan error  // gets one error or nil from each listener
	listening  atomic.Bool // all ports are served
	secure     bool        // the traffic ports speak TLS
	registered atomic.Pointer[entries]
}

func serve(ctx context.Context, spec Spec, settings *Settings, p Process) int {
	level := new(slog.LevelVar)
	log, err := logging.New(logging.Config{
		Level: string(settings.LogLevel), Var: level, Format: string(settings.LogFormat), Output: p.Stderr,
		Context: tracing.LogAttrs,
	})
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
		return ExitSetting
	}
	asked, cut, release := heed(ctx, p.Signals)
	defer release()

	// Discovery's own lines name the services they are about: they get no
	// second attribute of that name.
	s := &service{spec: spec, settings: settings, level: level, log: log.With("service", spec.Name), discoveryLog: log}
	log = s.log
	if err := s.start(asked, p); err != nil {
		defer s.stop(cut)
		if _, ok := errors.AsType[*settingsError](err); ok {
			fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
			return ExitSetting
		}
		if asked.Err() != nil {
			log.Info("stopped before it could serve", "why", err)
			return ExitDrained
		}
		log.Error("could not start", "error", err)
		return ExitFailed
	}
	select {
	case err := <-s.failed:
		log.Error("can't go on serving", "error", err)
		s.stop(cut)
		return ExitFailed
	case <-asked.Done():
	}
	s.drain(cut)
	if cut.Err() != nil {
		log.Warn("the drain was cut short")
		return ExitCut
	}
	return ExitDrained
}

// heed turns signals into contexts: asked ends with the first (or with ctx),
// cut with the second.
func heed(ctx context.Context, signals <-chan os.Signal) (asked, cut context.Context, release func()) {
	asked, ask := context.WithCancelCause(ctx)
	cut, cutShort := context.WithCancelCause(context.WithoutCancel(ctx))
	done := make(chan struct{})
	var heeding sync.WaitGroup
	heeding.Go(func() {
		for _, end := range []context.CancelCauseFunc{ask, cutShort} {
			select {
			case got := <-signals:
				end(fmt.Errorf("signal: %v", got))
			case <-done:
				return
			}
		}
	})
	return asked, cut, func() {
		close(done)
		heeding.Wait()
		ask(nil)
		cutShort(nil)
	}
}

// observe makes what tells of requests, spans and metrics, and returns the trace of a mesh
// that fills both.
func (s *service) observe(ctx context.Context, registry prometheus.Registerer) (*discovery.Trace, error) {
	var err error
	if s.spans, err = otlp.Open(ctx, otlp.Config{Service: s.spec.Name, Version: version(), Log: s.log}); err != nil {
		return nil, &settingsError{err}
	}
	cfg := metrics.Config{Registerer: registry, Service: s.spec.Name, Version: version(), Peers: s.spec.Peers}
	if s.spans.Tracing() != nil {
		cfg.Exemplar = tracing.Exemplar
	}
	if s.metrics, err = metrics.New(cfg); err != nil {
		return nil, err
	}
	trace := s.metrics.Trace()
	trace.HTTP = s.spans.Tracing().Client(trace.HTTP)
	return trace, nil
}

// start makes everything, up to the registration.
func (s *service) start(ctx context.Context, p Process) error {
	began := time.Now()
	s.checks = health.New(health.Config{})
	s.checks.OnChange(s.refresh)
	s.checks.Add("listener", health.Required, s.checkListening)
	s.checks.Add("registration", health.Informational, s.checkRegistered)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	trace, err := s.observe(ctx, registry)
	if err != nil {
		return err
	}

	s.mesh, err = discovery.Open(ctx, discovery.Config{
		Consul: discovery.Consul{Address: s.settings.Consul},
		Follow: s.spec.Peers,
		Trace:  trace,
		TLS:    s.settings.identity(),
		Log:    s.discoveryLog,
		HTTP: httpmesh.Config{
			DialTimeout: time.Duration(s.settings.DialTimeout),
			TryTimeout:  time.Duration(s.settings.TryTimeout),
		},
		Watch: watch.Config{
			StaleFor:   time.Duration(s.settings.StaleFor),
			MissingFor: time.Duration(s.settings.MissingFor),
			Dir:        s.settings.Snapshots,
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return &settingsError{err} // Open fails for nothing else
	}
	s.metrics.Watch(s.mesh)
	s.checkPeers()

	s.runtime = &Runtime{Mesh: s.mesh, Transport: s.transport(), Health: s.checks, Metrics: s.metrics, Registry: registry, Log: s.log}
	parts, err := s.spec.Build(ctx, s.runtime)
	if err != nil {
		return err
	}
	ports := append([]Port{{s.settings.Listen, parts.Handler}}, parts.More...)
	limits, err := s.limit()
	if err != nil {
		return err
	}
	serving, err := s.serveTLS(parts)
	if err != nil {
		return err
	}
	s.secure = serving != nil
	if parts.GRPC != nil {
		if s.rpcs, err = s.newRPCs(parts, limits, serving); err != nil {
			return err
		}
	}
	adminAt, at, rpcsAt, err := s.bind(ctx, p, ports)
	if err != nil {
		return err
	}

	s.failed = make(chan error, len(ports)+2)
	s.admin = web.New(web.Config{Limits: admin(), Log: s.log, AccessLevel: slog.LevelDebug}) //nolint:contextcheck // its requests end by Shutdown, not with the start
	s.serving.Go(func() {
		s.failed <- s.admin.Serve(adminAt, web.Admin(registry, s.checks, s.mesh, s.pages(parts)))
	})
	s.traffic = web.New(web.Config{Limits: s.settings.traffic(parts.Stream), Edge: s.spec.Edge, Metrics: s.metrics.Server(), Spans: s.spans.Tracing().Server(), Log: s.log, TLS: serving}) //nolint:contextcheck // as above
	for n, handler := range traffics(ports, limits) {
		if !s.spec.Edge {
			handler = httpmesh.RequireService(s.spec.Name, httpmesh.Deadline(handler))
		}
		s.serving.Go(func() { s.failed <- s.traffic.Serve(at[n], handler) })
	}
	if s.rpcs != nil {
		s.serving.Go(func() { s.failed <- s.rpcs.Serve(s.traffic.Limited(rpcsAt)) })
	}
	if fault.Enabled {
		s.log.Warn("this is a test build: PUT /faults on the admin port makes it fail", "admin", adminAt.Addr().String())
	}
	s.listening.Store(true)
	if err := s.register(at[0].Addr(), adminAt.Addr(), rpcsAt); err != nil { //nolint:contextcheck // the registrations end by Close, not with the start
		return err
	}
	s.tellServing(began, adminAt, at, rpcsAt)
	return nil
}

// pages are what the admin port shows besides what every server has there.
func (s *service) pages(parts Parts) map[string]http.Handler {
	level := logging.LevelHandler(s.level, s.log)
	all := map[string]http.Handler{"GET /debug/level": level, "PUT /debug/level": level}
	maps.Copy(all, parts.Pages)
	return all
}

func (s *service) tellServing(began time.Time, adminAt net.Listener, at []net.Listener, rpcsAt net.Listener) {
	attrs := []any{"version", version(), "traffic", addrs(at), "admin", adminAt.Addr().String()}
	if rpcsAt != nil {
		attrs = append(attrs, "grpc", rpcsAt.Addr().String())
	}
	s.log.Info("serving", append(attrs, "id", s.registered.Load().ids(), "took_ms", time.Since(began).Milliseconds())...)
}

// bind opens the listeners; all or none are open when it returns. rpcs is nil
// without a gRPC port.
func (s *service) bind(ctx context.Context, p Process, ports []Port) (admin net.Listener, at []net.Listener, rpcs net.Listener, err error) {
	wanted := []Addr{s.settings.AdminListen}
	for _, port := range ports {
		wanted = append(wanted, port.Addr)
	}
	if s.rpcs != nil {
		wanted = append(wanted, s.settings.GRPCListen)
	}
	var open []net.Listener
	for _, addr := range wanted {
		l, err := p.Listen(ctx, string(addr))
		if err != nil {
			for _, l := range open {
				_ = l.Close() // the first error is the one to tell
			}
			return nil, nil, nil, fmt.Errorf("listen at %s: %w", addr, err)
		}
		open = append(open, l)
	}
	if s.rpcs != nil {
		rpcs, open = open[len(open)-1], open[:len(open)-1]
	}
	return open[0], open[1:], rpcs, nil
}

// settingsError is the error of a library that found a setting wrong; its text
// names that.
type settingsError struct{ error }

func (e *settingsError) Unwrap() error { return e.error }

// split returns the host and the port of a listener's address; the host is
// empty if it listens at every address.
func split(addr net.Addr) (host string, port int, err error) {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return "", 0, fmt.Errorf("the listener at %s is no TCP listener", addr)
	}
	if tcp.IP.IsUnspecified() {
		return "", tcp.Port, nil
	}
	return tcp.IP.String(), tcp.Port, nil
}

func addrs(at []net.Listener) []string {
	all := make([]string, 0, len(at))
	for _, l := range at {
		all = append(all, l.Addr().String())
	}
	return all
}

// drain takes the instance out of service without losing a request; it hurries
// when cut ends.
func (s *service) drain(cut context.Context) {
	began := time.Now()
	s.log.Info("draining")
	s.checks.SetDraining()
	s.traffic.Retire()
	if s.rpcs != nil {
		s.rpcs.Retire()
	}
	bound, cancel := context.WithTimeout(cut, time.Duration(s.settings.DrainTimeout))
	defer cancel()
	if err := s.registered.Load().drain(bound); err != nil {
		s.log.Warn("the drain was not seen through", "error", err)
	}
	if err := s.shutdown(bound); err != nil {
		s.log.Warn("not everything could be served", "error", err)
	}
	s.stop(cut)
	s.log.Info("drained", "took_ms", time.Since(began).Milliseconds())
}

// shutdown ends the traffic ports. The one after the other, since they share a
// count of connections: what is under way at either goes on meanwhile.
func (s *service) shutdown(ctx context.Context) error {
	var errs []error
	if s.rpcs != nil {
		errs = append(errs, s.rpcs.Shutdown(ctx))
	}
	if s.traffic != nil {
		errs = append(errs, s.traffic.Shutdown(ctx))
	}
	return errors.Join(errs...)
}

// stop closes what there is, the last part made first. Where something was
// never made, or is closed already, there is nothing to do.
func (s *service) stop(cut context.Context) {
	var errs []error
	// Each step has a bound of its own: one that was held up, as the
	// deregistration is by a Consul that does not answer, takes nothing from the
	// next. What is left by now was cut off, or never started.
	within := func(step func(context.Context) error) {
		bound, cancel := context.WithTimeout(cut, time.Second)
		defer cancel()
		errs = append(errs, step(bound))
	}
	s.checks.SetDraining()
	errs = append(errs, s.registered.Load().close())
	within(s.shutdown)
	if s.mesh != nil {
		within(s.mesh.Shutdown)
	}
	if s.runtime != nil {
		errs = append(errs, s.runtime.close())
	}
	if s.admin != nil {
		within(s.admin.Shutdown)
	}
	if s.spans != nil {
		within(s.spans.Shutdown)
	}
	s.serving.Wait()
	s.checks.Close()
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("not everything could be closed", "error", err)
	}
}
