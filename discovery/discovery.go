package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// ErrNoInstance is catalog.ErrNoInstance: nobody offers the service, or nobody
// who may be sent to.
var ErrNoInstance = catalog.ErrNoInstance

// Config says which Consul to join and how to call. Its zero value works, with
// Consul's own CONSUL_* variables.
type Config struct {
	// Address of Consul's HTTP interface: host:port, a URL of http or https, or
	// unix:///path. Empty means CONSUL_HTTP_ADDR, else 127.0.0.1:8500.
	Address string
	// Token for Consul's ACLs. Empty means CONSUL_HTTP_TOKEN or
	// CONSUL_HTTP_TOKEN_FILE, else none.
	Token string
	// Source of the instances. nil means Consul; anything else replaces the
	// watch, while Register still goes to Consul.
	Source catalog.Source
	// Policy that chooses among the instances. nil means balancer.PeakEWMA.
	Policy balancer.Policy
	// Outliers says which instances are ejected for failing, whatever Consul says
	// of them. nil means the defaults of outlier.Config; a negative Consecutive
	// switches it off.
	Outliers *outlier.Config
	// DialTimeout is how long a request waits for a connection to an instance
	// before it goes elsewhere. 0 means 300ms. Longer waits for slow networks, and
	// costs that much for each dead instance that is met: its address often
	// swallows packets rather than refuse. The dial goes on for ten times as long.
	DialTimeout time.Duration
	// TryTimeout is how long a try may be without the response's headers before
	// another runs beside it; a silence of that length is the instance's failure.
	// 0 means 1s, negative means that none does. Shorter gets by a hung instance
	// sooner, and asks twice where answers are slow. See httpmesh.Config.
	TryTimeout time.Duration
	// IdleTimeout is how long a connection is kept that no request uses. 0 means
	// 4s, less than common servers keep theirs. Shorter dials more.
	IdleTimeout time.Duration
	// StaleFor is how long the last set is used while Consul does not answer. 0
	// means for ever: a stale set is better than none.
	StaleFor time.Duration
	// MissingFor is how long an instance that vanished from the catalog while it
	// was passing stays in use. 0 means 30s, negative means not at all.
	MissingFor time.Duration
	// SnapshotDir is a folder in which the last set of each service is kept, for
	// a start while Consul is away: see watch.Config.Dir. Empty means none.
	SnapshotDir string
	// Follow names services to watch from the start and for good. Others are
	// watched from their first use on, until nobody asked for 10 minutes.
	Follow []string
	// Trace is told what happens. nil means nobody is.
	Trace *Trace
	// Log gets what nobody asked for: a watch that was lost, an entry that was
	// mended, an instance that was ejected. nil means that nothing is logged.
	Log *slog.Logger
}

// Trace is a Trace for each room; nil ones are skipped.
type Trace struct {
	Watch        *watch.Trace
	Registration *registration.Trace
	HTTP         *httpmesh.Trace
}

// Mesh is one process's membership. Use Open.
type Mesh struct {
	consul    consul.Config
	log       *slog.Logger
	trace     Trace
	source    catalog.Source
	watcher   *watch.Watcher // nil if Config.Source was given
	transport *httpmesh.Transport
	client    *http.Client

	mu         sync.Mutex          // guards what follows
	agent      *registration.Agent // for all registrations; nil before the first
	registered []*registration.Registration
	closeIdle  []func() // of the clients
	closed     bool
}

// Open joins the mesh. It does no I/O and does not wait for Consul: an error
// means a wrong setting, or that ctx has ended. Close ends what it began.
func Open(ctx context.Context, cfg Config) (*Mesh, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("discovery: open: %w", err)
	}
	m := &Mesh{
		consul: consul.Config{Address: cfg.Address, Token: cfg.Token},
		log:    cfg.Log,
		source: cfg.Source,
	}
	if cfg.Trace != nil {
		m.trace = *cfg.Trace
	}
	switch {
	case m.source != nil && len(cfg.Follow) > 0:
		return nil, errors.New("discovery: Follow is set beside Source; want one of them, since a Source follows by itself")
	case m.source == nil:
		client, closeIdle, err := consul.Open(m.consul)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		m.closeIdle = append(m.closeIdle, closeIdle)
		m.watcher, err = watch.New(watch.Config{ //nolint:contextcheck // its watches end by Close, not with ctx
			Client:     client,
			MissingFor: cfg.MissingFor,
			StaleFor:   cfg.StaleFor,
			Dir:        cfg.SnapshotDir,
			Trace:      m.looking(m.trace.Watch),
			Log:        cfg.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		if err := m.watcher.Pin(cfg.Follow...); err != nil {
			return nil, errors.Join(fmt.Errorf("discovery: Follow: %w", err), m.watcher.Close())
		}
		m.source = m.watcher
	}
	var err error
	m.transport, err = httpmesh.New(httpmesh.Config{
		Source:      m.source,
		Policy:      cfg.Policy,
		Outliers:    cfg.Outliers,
		DialTimeout: cfg.DialTimeout,
		TryTimeout:  cfg.TryTimeout,
		IdleTimeout: cfg.IdleTimeout,
		Trace:       loggedEjections(m.trace.HTTP, cfg.Log),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("discovery: %w", err), m.Close())
	}
	m.client = &http.Client{Transport: m.transport}
	return m, nil
}

// Client returns an HTTP client for the mesh: the host of a URL is a service
// name, without a port. It has no timeout of its own: give each request a
// context with a deadline.
func (m *Mesh) Client() *http.Client { return m.client }

// RoundTripper returns what Client sends with.
func (m *Mesh) RoundTripper() *httpmesh.Transport { return m.transport }

// Latest returns the latest snapshot of a service; it waits for the first
// answer about it, or until ctx ends. A service that nobody offers is an empty
// snapshot.
func (m *Mesh) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	return m.source.Latest(ctx, service)
}

// Snapshots returns the latest snapshot of each service that is watched and had
// an answer, for metrics and pages. Asking here does not keep a watch alive. It
// is empty when Config.Source was given.
func (m *Mesh) Snapshots() []*catalog.Snapshot {
	if m.watcher == nil {
		return nil
	}
	return m.watcher.Snapshots()
}

// Balancer returns the balancer of a service, nil if nothing was sent to it so
// far.
func (m *Mesh) Balancer(service string) *balancer.Balancer { return m.transport.Balancer(service) }

// Register begins an instance's life in Consul, over connections that the
// watches can't starve and all registrations of the mesh share. The Agent,
// ConsulAddr, Trace and Log of cfg are filled in where they are empty. It does not wait for Consul: an error means
// a wrong setting or a closed mesh. Close the result to deregister; the mesh's
// Close does so too.
func (m *Mesh) Register(cfg registration.Config) (*registration.Registration, error) {
	if cfg.ConsulAddr == "" {
		cfg.ConsulAddr = m.consul.HostPort()
	}
	if cfg.Trace == nil {
		cfg.Trace = m.trace.Registration
	}
	if cfg.Log == nil {
		cfg.Log = m.log
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, fmt.Errorf("discovery: register %s: %w", cfg.Service, catalog.ErrClosed)
	}
	if cfg.Client == nil && cfg.Agent == nil {
		if m.agent == nil {
			if err := m.openAgent(); err != nil {
				return nil, fmt.Errorf("discovery: register %s: %w", cfg.Service, err)
			}
		}
		cfg.Agent = m.agent
	}
	m.registered = slices.DeleteFunc(m.registered, func(r *registration.Registration) bool {
		return r.Status().State == registration.StateDeregistered // closed by its owner
	})
	registered, err := registration.Start(cfg)
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	m.registered = append(m.registered, registered)
	return registered, nil
}

// Shutdown refuses new requests, waits until those in flight have ended, their
// bodies included, or until ctx ends, and closes the mesh either way.
func (m *Mesh) Shutdown(ctx context.Context) error {
	return errors.Join(m.transport.Shutdown(ctx), m.Close())
}

// Close deregisters what was registered and is not closed yet, ends the watches
// and closes all connections, those in use too. It waits for all of that, and
// may be called twice.
func (m *Mesh) Close() error {
	m.mu.Lock()
	registered, agent, closeIdle := m.registered, m.agent, m.closeIdle
	m.registered, m.agent, m.closeIdle, m.closed = nil, nil, nil, true
	m.mu.Unlock()

	errs := make([]error, len(registered), len(registered)+2)
	var leaving sync.WaitGroup
	for n, r := range registered {
		leaving.Go(func() { errs[n] = r.Close() })
	}
	leaving.Wait()
	if agent != nil {
		agent.Close()
	}
	if m.transport != nil {
		errs = append(errs, m.transport.Close())
	}
	if m.watcher != nil {
		errs = append(errs, m.watcher.Close())
	}
	for _, closeIdle := range closeIdle {
		closeIdle()
	}
	return errors.Join(errs...)
}
