package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/failover"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/internal/rates"
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// ErrNoInstance is catalog.ErrNoInstance: the service has no instance, or none
// that may be sent to.
var ErrNoInstance = catalog.ErrNoInstance

// Mesh is one process's membership, or a view of it with another selection. Use
// Open.
type Mesh struct {
	root      *Mesh // the one that was opened, itself or that of a view
	started   time.Time
	calls     rates.Services // of all views; the root's
	consul    consul.Config
	own       *consul.Client // of the caller's; nil: made of consul
	center    string         // the datacenter that is watched; empty: the agent's own
	log       *slog.Logger
	trace     Trace
	whole     catalog.Source // whatever is selected
	watcher   *watch.Watcher // nil if Config.Source was given, and in a view without a filter
	following watch.Config   // the watcher's
	first     *initial       // what bounds the wait for its first answer
	identity  *mtls.Identity // nil: Config.TLS is zero
	far       []*watch.Watcher
	failover  *failover.Source // nil: there are no other datacenters
	sending   httpmesh.Config
	selection func(service string) catalog.Selection
	latest    catalog.Source // what transport sends to
	transport *httpmesh.Transport
	client    *http.Client

	closing  sync.Once
	closeErr error // of closing

	mu         sync.Mutex          // guards what follows
	agent      *registration.Agent // for all registrations; nil before the first
	asking     *consul.Client      // see asker; nil before the first question
	registered []*registration.Registration
	views      map[*Mesh]struct{}
	callers    []*shown // besides transport
	closeIdle  []func() // of the clients, and of what they share
	closed     bool
}

// Open joins the mesh. It reads the files that cfg names, and does not wait for
// Consul: an error means a wrong setting, or that ctx has ended. Close ends what it began.
func Open(ctx context.Context, cfg Config) (*Mesh, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("discovery: open: %w", err)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m := &Mesh{
		started: time.Now(),
		consul:  cfg.Consul.settings(),
		center:  cfg.Consul.Datacenter,
		own:     cfg.Consul.Client,
		log:     cmp.Or(cfg.Log, slog.Default()),
		whole:   cfg.Source,
		views:   map[*Mesh]struct{}{},
	}
	m.root = m
	if cfg.Trace != nil {
		m.trace = *cfg.Trace
	}
	if err := m.identifyToConsul(); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if m.whole == nil {
		if err := m.watch(cfg); err != nil { //nolint:contextcheck // its watches end by Close, not with ctx
			return nil, errors.Join(fmt.Errorf("discovery: %w", err), m.Close())
		}
	}
	m.sending = cfg.HTTP
	m.sending.Trace = counted(loggedEjections(m.trace.HTTP, m.log), &m.calls)
	selection, err := selections(cfg.Select)
	if err == nil && cfg.hasTLS() {
		err = m.identify(cfg.TLS)
	}
	if err == nil {
		err = m.send(selection)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// identifyToConsul looks after the files of TLS that Consul is asked with.
func (m *Mesh) identifyToConsul() error {
	if m.own != nil {
		return nil
	}
	identity, err := consul.Identify(m.consul, m.log)
	if err == nil && identity != nil {
		m.consul.Identity = identity
		m.closeIdle = append(m.closeIdle, identity.Close)
	}
	return err
}

// watch makes Consul the source. What it has begun by an error is Close's to end.
func (m *Mesh) watch(cfg Config) error {
	following := cfg.Watch
	if following.Client = cfg.Consul.Client; following.Client == nil {
		far := m.consul
		far.Datacenter = cfg.Consul.Datacenter
		most := cmp.Or(cfg.Watch.MaxQueries, defaultQueries) + otherConns + len(cfg.Failover.Datacenters)*(farQueries+otherConns)
		far.MaxConns = min(max(most, consul.DefaultMaxConns), consul.MaxConns)
		client, closeIdle, err := consul.Open(far)
		if err != nil {
			return err
		}
		m.closeIdle = append(m.closeIdle, closeIdle)
		following.Client = client
	}
	first := &initial{consul: m.consul.String(), timeout: cmp.Or(cfg.InitialFetchTimeout, defaultInitialFetchTimeout), log: m.log}
	following.Trace, following.Log = first.trace(m.looking(m.trace.Watch)), m.log
	watcher, err := watch.New(following)
	if err != nil {
		return err
	}
	m.watcher, m.following, m.first = watcher, following, first
	first.Source, m.whole = watcher, first
	if err := watcher.Pin(cfg.Follow...); err != nil {
		return fmt.Errorf("services to Follow: %w", err)
	}
	if len(cfg.Failover.Datacenters) > 0 {
		if err := m.lookFar(cfg, following); err != nil {
			return err
		}
		first.Source = m.failover
	}
	return nil
}

// identify makes the mesh's identity, which requests are sent with.
func (m *Mesh) identify(cfg mtls.Config) error {
	cfg.Trace, cfg.Log = m.trace.TLS, m.log
	identity, err := mtls.Open(cfg)
	if err != nil {
		return fmt.Errorf("discovery: TLS: %w", err)
	}
	m.identity, m.sending.TLS = identity, identity.Client
	return nil
}

// lookFar watches the other datacenters too.
func (m *Mesh) lookFar(cfg Config, following watch.Config) error {
	over := failover.Config{Local: m.watcher, Settle: cfg.Failover.Settle, Trace: m.trace.Failover, Log: m.log}
	for _, name := range cfg.Failover.Datacenters {
		following.Datacenter, following.StaleFor = name, cmp.Or(cfg.Failover.StaleFor, defaultFarStaleFor)
		following.Dir, following.MaxQueries = "", farQueries
		following.Trace, following.Log = m.trace.beside(), m.log.With("datacenter", name)
		watcher, err := watch.New(following)
		if err != nil {
			return err
		}
		m.far = append(m.far, watcher)
		if err := watcher.Pin(cfg.Follow...); err != nil {
			return err
		}
		over.Others = append(over.Others, failover.Datacenter{Name: name, Source: watcher})
	}
	var err error
	m.failover, err = failover.New(over)
	return err
}

const (
	// otherConns is how many connections a watch needs besides Watch.MaxQueries.
	otherConns = 16
	// defaultQueries is Watch.MaxQueries where it is 0, farQueries that of another
	// datacenter's watch.
	defaultQueries, farQueries = 64, 32
)

// Client returns an HTTP client for the mesh: the host of a URL is a service
// name, without a port. It has no timeout of its own: give each request a
// context with a deadline.
func (m *Mesh) Client() *http.Client { return m.client }

// RoundTripper returns what Client sends with.
func (m *Mesh) RoundTripper() *httpmesh.Transport { return m.transport }

// TLS returns the identity that Config.TLS names, for servers and for clients of
// other protocols; nil if it is zero.
func (m *Mesh) TLS() *mtls.Identity { return m.root.identity }

// Latest returns the latest snapshot of a service, of the instances that Client
// sends to; it waits for the first answer about it, or until ctx ends. A service
// without instances is an empty snapshot.
func (m *Mesh) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	m.latest.KeepAlive(service)
	return m.latest.Latest(ctx, service)
}

// snapshots returns the latest snapshot of each service that is watched and had an
// answer. Asking here does not keep a watch alive. It is empty when Config.Source was
// given.
func (m *Mesh) snapshots() []*catalog.Snapshot {
	watcher := cmp.Or(m.watcher, m.root.watcher)
	if watcher == nil {
		return nil
	}
	all := watcher.Snapshots()
	if m.root.failover != nil && watcher == m.root.watcher {
		for n, s := range all {
			all[n] = cmp.Or(m.root.failover.Current(s.Service()), s)
		}
	}
	return all
}

// Register begins an instance's life in Consul, over connections that the
// watches can't starve and all registrations of the mesh share. The Agent,
// ConsulAddr, Trace and Log of cfg are filled in where they are empty. It does not
// wait for Consul: an error means a wrong setting or a closed mesh. Close the result to
// deregister; the mesh's Close does so too.
func (m *Mesh) Register(cfg registration.Config) (*registration.Registration, error) {
	m = m.root
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
	m.mu.Lock()
	views := slices.Collect(maps.Keys(m.views))
	m.mu.Unlock()
	errs := make([]error, len(views)+2)
	var ending sync.WaitGroup
	for n, v := range views {
		ending.Go(func() { errs[n] = v.Shutdown(ctx) })
	}
	errs[len(views)] = m.transport.Shutdown(ctx)
	ending.Wait()
	errs[len(views)+1] = m.Close()
	return errors.Join(errs...)
}

// Close deregisters what was registered and is not closed yet, ends the watches
// and closes all connections, those in use too. Each call waits for all of that,
// and returns the same error. Of a view it closes that view's connections only.
func (m *Mesh) Close() error {
	m.closing.Do(func() { m.closeErr = m.close() })
	return m.closeErr
}

func (m *Mesh) close() error {
	if m.root != m {
		return m.closeView()
	}
	m.mu.Lock()
	registered, views, agent, closeIdle := m.registered, m.views, m.agent, m.closeIdle
	m.registered, m.views, m.agent, m.closeIdle, m.closed = nil, nil, nil, nil, true
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
	for v := range views {
		errs = append(errs, v.Close())
	}
	if m.transport != nil {
		errs = append(errs, m.transport.Close())
	}
	if m.failover != nil {
		errs = append(errs, m.failover.Close())
	}
	for _, w := range m.far {
		errs = append(errs, w.Close())
	}
	if m.watcher != nil {
		errs = append(errs, m.watcher.Close())
	}
	if m.identity != nil {
		m.identity.Close()
	}
	for _, closeIdle := range closeIdle {
		closeIdle()
	}
	return errors.Join(errs...)
}
