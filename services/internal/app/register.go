package app

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/debug"
)

// entries are what the instance has in Consul: one for each protocol, with a port
// of its own. nil is none yet. They come and go together.
type entries []*registration.Registration

// register begins the entries. The one for HTTP stands for the instance: it is the
// one that Prometheus scrapes.
func (s *service) register(traffic, admin net.Addr, rpcsAt net.Listener) error {
	_, adminPort, err := split(admin)
	if err != nil {
		return err
	}
	var all entries
	begin := func(at net.Addr, cfg registration.Config) error {
		host, port, err := split(at)
		if err != nil {
			return err
		}
		if s.settings.AdvertiseHost != "" {
			host = s.settings.AdvertiseHost
		}
		cfg.Service, cfg.Host, cfg.Port, cfg.TLS = s.spec.Name, host, port, s.secure
		cfg.Checks, cfg.Ready = []registration.Check{{Path: "/readyz", Port: adminPort}}, s.checks.Ready
		cfg.Settle, cfg.SettleMax = time.Duration(s.settings.Settle), time.Duration(s.settings.SettleMax)
		cfg.ConsulTimeout = unreachable
		r, err := s.mesh.Register(cfg)
		if err != nil {
			return &settingsError{err} // Register fails for nothing else: it does not wait for Consul
		}
		all = append(slices.Clip(all), r) // a new one: others read what was stored
		stored := all
		s.registered.Store(&stored)
		return nil
	}
	err = begin(traffic, registration.Config{
		ID:       s.settings.InstanceID,
		Protocol: catalog.HTTP,
		Tags:     []string{"prometheus"},
		Meta: map[string]string{
			"version":         version(),
			"protocol":        "http",
			"prometheus_path": "/metrics",
			"prometheus_port": strconv.Itoa(adminPort),
			debug.MetaAdmin:   strconv.Itoa(adminPort),
		},
		Arrivals: s.traffic.Arrivals,
	})
	if err != nil || s.rpcs == nil {
		return err
	}
	id := s.settings.InstanceID
	if id != "" {
		id += "-grpc"
	}
	return begin(rpcsAt.Addr(), registration.Config{
		ID:       id,
		Protocol: catalog.GRPC,
		Meta:     map[string]string{"version": version(), debug.MetaAdmin: strconv.Itoa(adminPort)},
		Arrivals: s.rpcs.Arrivals,
	})
}

// drain takes all of them out of service at once.
func (e *entries) drain(ctx context.Context) error {
	return e.each(func(r *registration.Registration) error { return r.Drain(ctx) })
}

func (e *entries) close() error {
	return e.each((*registration.Registration).Close)
}

func (e *entries) each(do func(*registration.Registration) error) error {
	if e == nil {
		return nil
	}
	errs := make([]error, len(*e))
	var doing sync.WaitGroup
	for n, r := range *e {
		doing.Go(func() { errs[n] = do(r) })
	}
	doing.Wait()
	return errors.Join(errs...)
}

// ids are those of the entries, the instance's own first.
func (e *entries) ids() string {
	var all []string
	for _, r := range *e {
		all = append(all, r.ID())
	}
	return strings.Join(all, " ")
}

// refresh tells Consul at once, rather than with the next heartbeat, that the
// service has become ready or is not any more; and those who watch its health by
// gRPC.
func (s *service) refresh() {
	if s.rpcs != nil {
		s.rpcs.Refresh()
	}
	if all := s.registered.Load(); all != nil {
		for _, r := range *all {
			r.Refresh()
		}
	}
}
