package grpcmesh

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	grpcbalancer "google.golang.org/grpc/balancer"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// ClientConfig has what only gRPC needs: policy, ejection, time limits, retries and
// their budget, the age of connections and the trace are those of the mesh, see
// discovery.Config.HTTP. Its zero value works.
type ClientConfig struct {
	// Repeatable says of methods, by their full names ("/order.v1.Orders/Cancel"),
	// whether a call may be served twice. It wins over what the proto says in
	// idempotency_level, and costs what that costs: true for a method that may not
	// be done twice does it twice. nil means the proto's word alone.
	Repeatable map[string]bool
	// Credentials are for instances that speak TLS, and make the client one that
	// calls no others. The name verified is the service's, unless they say
	// another. nil means plain text, and no instance that speaks TLS.
	Credentials credentials.TransportCredentials
}

// NewClient returns a connection to the instances of a service that speak gRPC (see
// catalog.GRPC), for generated clients. It does no I/O, and begins to follow the
// service with the first call. Close it before the mesh, or after: the mesh's Close
// ends no call of it, and lets none begin.
//
// Interceptors among the options run once for each call, outside of its tries.
// Resolver, load balancing, service config, retry, idleness, dialer and transport
// credentials are the mesh's own.
func NewClient(mesh *discovery.Mesh, service string, cfg ClientConfig, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	if mesh == nil {
		return nil, errors.New("grpcmesh: the mesh is nil; want what discovery.Open returns")
	}
	if err := catalog.CheckService(service); err != nil {
		return nil, fmt.Errorf("grpcmesh: %w", err)
	}
	for method := range cfg.Repeatable {
		if len(method) < 4 || method[0] != '/' || strings.Count(method, "/") != 2 {
			return nil, fmt.Errorf("grpcmesh: Repeatable has %q; want a full name, as in /order.v1.Orders/Cancel", method)
		}
	}
	settings, tls := mesh.RoundTripper().Config(), cfg.Credentials != nil
	health, err := outlier.New(*settings.Outliers)
	if err != nil {
		return nil, fmt.Errorf("grpcmesh: Outliers: %w", err)
	}
	c := &client{
		service: service, settings: settings, repeatable: cfg.Repeatable, tls: tls,
		all:      mesh.Source(catalog.GRPC),
		balancer: balancer.New(service, balancer.Config{Policy: settings.Policy, Outliers: health, Trace: &settings.Trace.Balancer}),
		ledger:   &tries.Ledger{Ratio: settings.Budget.Ratio, Floor: settings.Budget.Floor, Began: time.Now()},
		wake:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
	}
	c.hide = mesh.Show(service, c)
	creds, speaks := insecure.NewCredentials(), ""
	if tls {
		creds, speaks = cfg.Credentials, "true"
	}
	c.source = catalog.Select(c.all, catalog.Selection{Meta: map[string]string{catalog.MetaTLS: speaks}})
	c.rules = tries.Rules{MaxRetries: settings.MaxRetries, Patience: settings.TryTimeout, Closed: c.closed}
	if c.rules.Patience <= 0 {
		c.rules.Patience = defaultPatience
	}
	cc, err := grpc.NewClient(scheme+":///"+service, append(slices.Clip(options),
		grpc.WithResolvers(builder{c}),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"`+policyName+`":{}}]}`),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		// A connection that is being made outlasts DialTimeout, see link.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: dialPatience * settings.DialTimeout}),
		grpc.WithChainUnaryInterceptor(c.unary),
		grpc.WithChainStreamInterceptor(c.stream),
	)...)
	if err != nil {
		c.hide()
		return nil, fmt.Errorf("grpcmesh: %w", err)
	}
	cc.Connect() // makes resolver and balancer, and nothing more
	return cc, nil
}

// defaultPatience is the length of silence that counts where TryTimeout is off.
const defaultPatience = time.Second

// dialPatience is how many times DialTimeout a dial lasts in all: a lost packet is
// sent again after a second.
const dialPatience = 10

// client is what resolver, balancer and interceptors of one grpc.ClientConn share.
type client struct {
	service    string
	all        catalog.Source // those that speak gRPC
	source     catalog.Source // those of them that speak TLS, or not, as we do
	settings   httpmesh.Config
	repeatable map[string]bool
	tls        bool
	rules      tries.Rules
	balancer   *balancer.Balancer
	ledger     *tries.Ledger

	using     atomic.Pointer[catalog.Snapshot] // the source's that was used last
	following atomic.Bool                      // the resolver waits for the next one
	wake      chan struct{}                    // has the resolver follow

	conn   atomic.Pointer[attached] // grpc's side; nil until the balancer is built
	hide   func()                   // from the mesh's Status
	closed chan struct{}            // with the ClientConn
	close  sync.Once

	links sync.Map   // *balancer.Endpoint to *link
	mu    sync.Mutex // held to change links
}

// attached is the ClientConn as its balancer has it.
type attached struct{ grpcbalancer.ClientConn }

// use makes a snapshot the one to pick from, unless a newer one was. It costs a
// comparison if it already is.
func (c *client) use(s *catalog.Snapshot, now time.Time) {
	if c.using.Load() == s {
		return
	}
	c.balancer.Use(s, now)
	c.using.Store(s)
	c.mu.Lock()
	known := map[any]bool{}
	for _, e := range c.balancer.Endpoints() {
		known[e] = true
	}
	gone := c.take(known)
	c.mu.Unlock()
	for _, l := range gone {
		l.retire()
	}
}

// take takes out the links to all but some endpoints. The mutex is held.
func (c *client) take(but map[any]bool) (gone []*link) {
	for e, l := range c.links.Range {
		if !but[e] {
			c.links.Delete(e)
			gone = append(gone, l.(*link))
		}
	}
	return gone
}

// link returns the endpoint's link; it is made at the first pick.
func (c *client) link(e *balancer.Endpoint) *link {
	if l, ok := c.links.Load(e); ok {
		return l.(*link)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l, ok := c.links.Load(e); ok {
		return l.(*link)
	}
	l := &link{client: c, endpoint: e, addr: e.Instance().Addr()}
	if slices.Contains(c.balancer.Endpoints(), e) {
		c.links.Store(e, l)
	} else { // it went between the pick and now: for this call only
		l.retired = true
	}
	return l
}

// release lets the connections go when the source follows the service no more.
func (c *client) release() {
	c.mu.Lock()
	gone := c.take(nil)
	c.mu.Unlock()
	for _, l := range gone {
		l.retire()
	}
}

// changed has grpc ask the picker again for what waits for a connection.
func (c *client) changed() {
	if cc := c.conn.Load(); cc != nil {
		cc.UpdateState(grpcbalancer.State{ConnectivityState: connectivity.Ready, Picker: &picker{}})
	}
}

// Balancer is for the mesh's Status, as Connections and RetriesLeft are.
func (c *client) Balancer() *balancer.Balancer { return c.balancer }

// Connections counts those that take calls; one that was renewed lasts until its last call
// has ended.
func (c *client) Connections() map[catalog.Key]int {
	open := map[catalog.Key]int{}
	for e, l := range c.links.Range {
		if ready := l.(*link).ready.Load(); ready != nil && !ready.lost.Load() {
			open[e.(*balancer.Endpoint).Instance().Key()]++
		}
	}
	return open
}

// RetriesLeft is what the budget would pay for now.
func (c *client) RetriesLeft(now time.Time) int { return c.ledger.Left(now) }

// end ends what goes on beside the calls.
func (c *client) end() {
	c.close.Do(func() {
		close(c.closed)
		c.hide()
	})
}

func (c *client) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}
