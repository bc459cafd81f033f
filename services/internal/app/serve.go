package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
	"github.com/rollcall-mesh/rollcall/observability/health"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
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
	log      *slog.Logger
	// discoveryLog is log without the name of this service.
	discoveryLog *slog.Logger

	checks     *health.Registry
	metrics    *metrics.Metrics
	mesh       *discovery.Mesh
	runtime    *Runtime
	admin      *web.Server
	traffic    *web.Server
	serving    sync.WaitGroup
	failed     chan error  // gets one error or nil from each listener
	listening  atomic.Bool // all ports are served
	secure     bool        // the traffic ports speak TLS
	registered atomic.Pointer[registration.Registration]
}

func serve(ctx context.Context, spec Spec, settings *Settings, p Process) int {
	log, err := logging.New(logging.Config{
		Level: string(settings.LogLevel), Format: string(settings.LogFormat), Output: p.Stderr,
	})
	if err != nil {
		fmt.Fprintf(p.Stderr, "%s: %v\n", spec.Name, err)
		return ExitSetting
	}
	asked, cut, release := heed(ctx, p.Signals)
	defer release()

	// Discovery's own lines name the services they are about: they get no
	// second attribute of that name.
	s := &service{spec: spec, settings: settings, log: log.With("service", spec.Name), discoveryLog: log}
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

// start makes everything, up to the registration.
func (s *service) start(ctx context.Context, p Process) error {
	began := time.Now()
	s.checks = health.New(health.Config{})
	s.checks.OnChange(s.refresh)
	s.checks.Add("listener", health.Required, s.checkListening)
	s.checks.Add("registration", health.Informational, s.checkRegistered)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	s.metrics, err = metrics.New(metrics.Config{Registerer: registry, Service: s.spec.Name, Version: version(), Peers: s.spec.Peers})
	if err != nil {
		return err
	}

	s.mesh, err = discovery.Open(ctx, discovery.Config{
		Consul: discovery.Consul{Address: s.settings.Consul},
		Follow: s.spec.Peers,
		Trace:  s.metrics.Trace(),
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
	handlers, err := s.limited(ports)
	if err != nil {
		return err
	}
	serving, err := s.serveTLS(parts)
	if err != nil {
		return err
	}
	s.secure = serving != nil
	adminAt, at, err := bind(ctx, p, s.settings.AdminListen, ports)
	if err != nil {
		return err
	}

	s.failed = make(chan error, len(ports)+1)
	s.admin = web.New(web.Config{Limits: admin(), Log: s.log, AccessLevel: slog.LevelDebug}) //nolint:contextcheck // its requests end by Shutdown, not with the start
	s.serving.Go(func() {
		s.failed <- s.admin.Serve(adminAt, web.Admin(registry, s.checks, s.mesh))
	})
	s.traffic = web.New(web.Config{Limits: s.settings.traffic(parts.Stream), Edge: s.spec.Edge, Metrics: s.metrics.Server(), Log: s.log, TLS: serving}) //nolint:contextcheck // as above
	for n, handler := range handlers {
		if !s.spec.Edge {
			handler = httpmesh.RequireService(s.spec.Name, httpmesh.Deadline(handler))
		}
		s.serving.Go(func() { s.failed <- s.traffic.Serve(at[n], handler) })
	}
	if fault.Enabled {
		s.log.Warn("this is a test build: PUT /faults on the admin port makes it fail", "admin", adminAt.Addr().String())
	}
	s.listening.Store(true)
	if err := s.register(at[0].Addr(), adminAt.Addr()); err != nil { //nolint:contextcheck // the registration ends by Close, not with the start
		return err
	}
	s.log.Info("serving", "version", version(), "traffic", addrs(at), "admin", adminAt.Addr().String(),
		"id", s.registered.Load().ID(), "took_ms", time.Since(began).Milliseconds())
	return nil
}

// bind opens the listeners; all or none are open when it returns.
func bind(ctx context.Context, p Process, admin Addr, ports []Port) (adminAt net.Listener, at []net.Listener, err error) {
	wanted := []Addr{admin}
	for _, port := range ports {
		wanted = append(wanted, port.Addr)
	}
	var open []net.Listener
	for _, addr := range wanted {
		l, err := p.Listen(ctx, string(addr))
		if err != nil {
			for _, l := range open {
				_ = l.Close() // the first error is the one to tell
			}
			return nil, nil, fmt.Errorf("listen at %s: %w", addr, err)
		}
		open = append(open, l)
	}
	return open[0], open[1:], nil
}

func (s *service) register(traffic, admin net.Addr) error {
	host, port, err := split(traffic)
	if err != nil {
		return err
	}
	_, adminPort, err := split(admin)
	if err != nil {
		return err
	}
	if s.settings.AdvertiseHost != "" {
		host = s.settings.AdvertiseHost
	}
	r, err := s.mesh.Register(registration.Config{
		Service: s.spec.Name,
		ID:      s.settings.InstanceID,
		Host:    host,
		Port:    port,
		TLS:     s.secure,
		Tags:    []string{"prometheus"},
		Meta: map[string]string{
			"version":         version(),
			"protocol":        "http",
			"prometheus_path": "/metrics",
			"prometheus_port": strconv.Itoa(adminPort),
		},
		Checks:        []registration.Check{{Path: "/readyz", Port: adminPort}},
		Ready:         s.checks.Ready,
		Settle:        time.Duration(s.settings.Settle),
		SettleMax:     time.Duration(s.settings.SettleMax),
		Arrivals:      s.traffic.Arrivals,
		ConsulTimeout: unreachable,
	})
	if err != nil {
		return &settingsError{err} // Register fails for nothing else: it does not wait for Consul
	}
	s.registered.Store(r)
	return nil
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
	bound, cancel := context.WithTimeout(cut, time.Duration(s.settings.DrainTimeout))
	defer cancel()
	if err := s.registered.Load().Drain(bound); err != nil {
		s.log.Warn("the drain was not seen through", "error", err)
	}
	if err := s.traffic.Shutdown(bound); err != nil {
		s.log.Warn("not everything could be served", "error", err)
	}
	s.stop(cut)
	s.log.Info("drained", "took_ms", time.Since(began).Milliseconds())
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
	if r := s.registered.Load(); r != nil {
		errs = append(errs, r.Close())
	}
	if s.traffic != nil {
		within(s.traffic.Shutdown)
	}
	if s.mesh != nil {
		within(s.mesh.Shutdown)
	}
	if s.runtime != nil {
		errs = append(errs, s.runtime.close())
	}
	if s.admin != nil {
		within(s.admin.Shutdown)
	}
	s.serving.Wait()
	s.checks.Close()
	if err := errors.Join(errs...); err != nil {
		s.log.Warn("not everything could be closed", "error", err)
	}
}

// refresh tells Consul at once, rather than with the next heartbeat, that the
// service has become ready or is not any more.
func (s *service) refresh() {
	if r := s.registered.Load(); r != nil {
		r.Refresh()
	}
}

func (s *service) registration() (id string, status registration.Status, ok bool) {
	r := s.registered.Load()
	if r == nil {
		return "", registration.Status{}, false
	}
	return r.ID(), r.Status(), true
}
