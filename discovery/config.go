package discovery

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/failover"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// Config says which Consul to join and how to call. Its zero value works, with
// Consul's own CONSUL_* variables.
type Config struct {
	// Consul says where Consul is, and how it is spoken to. Zero means what
	// CONSUL_HTTP_ADDR and the other CONSUL_* variables say, else
	// 127.0.0.1:8500.
	Consul Consul
	// Follow names services to watch from the start and for good. Others are
	// watched from their first use on, until there was none for 10 minutes.
	Follow []string
	// Select says, by the name of a service, which of its instances this process
	// asks: by tags, Meta, health, protocol. Clients need not know. A service that
	// is not in it has all of its instances asked, but for proxies and gateways of
	// Consul's service mesh. Where no Protocol is named, a
	// client takes the instances that speak its own: those that are tagged grpc
	// alone are none of an HTTP client's. It costs Consul nothing, since all
	// instances are watched; see Mesh.Select for more than one selection of a
	// service.
	Select map[string]catalog.Selection
	// Failover names other datacenters, whose instances are asked when none is left
	// here. Zero means none.
	Failover Failover
	// InitialFetchTimeout is how long a request waits for Consul's first answer
	// about a service; from then on the last set is used, however old. 0 means
	// 5s, negative means for as long as its context allows. Longer bridges a
	// Consul that starts later than this process. The error wraps ErrNoAnswer.
	InitialFetchTimeout time.Duration
	// Trace has functions for what happens. nil means none.
	Trace *Trace
	// Log gets what has no other way to be told: trouble with Consul, a watch
	// that was lost, an entry that was mended, an instance that was ejected. nil
	// means slog.Default().
	Log *slog.Logger

	// TLS is the identity that https URLs are called with, and that Mesh.TLS has for
	// servers: roots, certificate and key from files, which are followed. Its Trace
	// and Log must be nil: they are the mesh's. Zero means the system's roots and no
	// certificate.
	TLS mtls.Config

	// HTTP says how requests are sent: the policy, ejection, timeouts, retries and
	// their budget, the age of connections. Its Source and Trace must be nil:
	// they are the mesh's.
	HTTP httpmesh.Config
	// Watch says how services are followed: how long a set without proof and a
	// missing instance are used, where sets are kept on disk, how many services
	// and questions there may be. Its Client, Trace and Log must be nil: they are
	// the mesh's.
	Watch watch.Config
	// Source of the instances, in place of Consul: for tests, and for another
	// registry. Register still goes to Consul. nil means Consul.
	Source catalog.Source
}

// Consul says where Consul is, and how it is spoken to. What is empty is taken
// from Consul's own variables, which each field names.
type Consul struct {
	// Address of the agent: host:port, a URL of http or https, whose path is put
	// before every path of Consul's, or unix:///path. Empty means
	// CONSUL_HTTP_ADDR, else 127.0.0.1:8500.
	Address string
	// Token is the ACL token. Empty means CONSUL_HTTP_TOKEN, else none. Watching
	// takes service:read and node:read, registering service:write.
	Token string
	// TokenFile holds the token instead, and wins over Token. It is read for each
	// call, so that a token is rotated without a restart; while it is away or
	// empty the last token holds. Empty means CONSUL_HTTP_TOKEN_FILE, unless
	// Token is set.
	TokenFile string
	// CAFile, CertFile and KeyFile are PEM files for TLS, ServerName is the name
	// in the agent's certificate. Empty means CONSUL_CACERT, CONSUL_CLIENT_CERT,
	// CONSUL_CLIENT_KEY and CONSUL_TLS_SERVER_NAME. A file that is replaced holds for
	// new connections within 11s, without a restart; while it is broken what was last
	// good does, and Log says so: see package mtls.
	CAFile, CertFile, KeyFile, ServerName string
	// Datacenter to watch. Empty means the agent's own, to which registrations
	// always go.
	Datacenter string
	// Namespace and Partition of Consul Enterprise, as which they are sent with each
	// question. Empty means CONSUL_NAMESPACE and CONSUL_PARTITION. The community
	// edition refuses every name: ErrEnterprise.
	Namespace, Partition string
	// DialTimeout bounds the making of a connection to the agent. 0 means 2s for
	// watches and 500ms for registrations. Shorter finds a dead agent sooner,
	// longer suits an agent far away.
	DialTimeout time.Duration
	// Client replaces all of the above but Address, which says where it goes to:
	// a registration finds its own address by the way there. It needs
	// Watch.MaxQueries connections and three more, and one
	// for each FollowServices and FollowKey, and must have no time limit
	// for whole calls, since some wait for a minute. Close leaves its
	// connections open. nil means one that is made of the above.
	Client *api.Client
}

// Failover says which datacenters stand in for this one, see package failover.
type Failover struct {
	// Datacenters by their names in Consul, in the order in which they stand in: the
	// first that has a ready instance of a service. Their instances are asked at
	// their WAN address. Each costs Consul as much as this one, at rest 8 questions a
	// minute for each service in use. nil means that none does.
	Datacenters []string
	// StaleFor is how old the last proof of another datacenter's set may be for it to
	// be used. 0 means 5m. Longer outlives a longer cut between the datacenters; its
	// addresses may meanwhile be others'.
	StaleFor time.Duration
	// Settle is how long this datacenter must have had a ready instance without a
	// break for the others to be asked no more. 0 means 10s.
	Settle time.Duration
}

// defaultFarStaleFor is for Failover.StaleFor.
const defaultFarStaleFor = 5 * time.Minute

// Trace is a Trace for each room; nil ones are skipped. Watch.Asked is told of the
// questions of FollowServices (op services), FollowKey (key) and WriteKey (write) too.
type Trace struct {
	Watch        *watch.Trace
	Registration *registration.Trace
	HTTP         *httpmesh.Trace
	TLS          *mtls.Trace
	Failover     *failover.Trace
}

// beside returns the trace of a watch beside the mesh's own: what is told by the name of
// a service alone is of the one.
func (t *Trace) beside() *watch.Trace {
	if t.Watch == nil {
		return nil
	}
	return &watch.Trace{Asked: t.Watch.Asked}
}

// defaultInitialFetchTimeout leaves time for a Consul that is just being started.
const defaultInitialFetchTimeout = 5 * time.Second

// validate says what is wrong with the settings that the rooms don't look at.
func (c Config) validate() error {
	for _, wrong := range []struct {
		is   bool
		what string
	}{
		{c.HTTP.Source != nil, "HTTP.Source is set; want Source"},
		{c.HTTP.GRPC != nil, "HTTP.GRPC is set; want Source"},
		{c.HTTP.Trace != nil, "HTTP.Trace is set; want Trace.HTTP"},
		{c.TLS.Trace != nil, "TLS.Trace is set; want Trace.TLS"},
		{c.TLS.Log != nil, "TLS.Log is set; want Log"},
		{c.HTTP.TLS != nil && c.hasTLS(), "HTTP.TLS is set beside TLS; want one of them"},
		{c.Watch.Client != nil, "Watch.Client is set; want Consul.Client"},
		{c.Watch.Trace != nil, "Watch.Trace is set; want Trace.Watch"},
		{c.Watch.Log != nil, "Watch.Log is set; want Log"},
		{c.Source != nil && len(c.Follow) > 0, "Follow is set beside Source; want one of them, since a Source follows by itself"},
		{c.Source != nil && !reflect.ValueOf(c.Watch).IsZero(), "Watch is set beside Source; want one of them, since a Source is not watched"},
		{c.Source != nil && len(c.Failover.Datacenters) > 0, "Failover is set beside Source; want one of them, since a Source is not watched"},
		{slices.Contains(c.Failover.Datacenters, ""), "Failover.Datacenters has an empty name; want a datacenter's"},
		{c.Failover.StaleFor < 0, fmt.Sprintf("Failover.StaleFor is %s; want 0 or more", c.Failover.StaleFor)},
		{c.Source != nil && c.InitialFetchTimeout != 0, "InitialFetchTimeout is set beside Source; want one of them, since a Source waits by itself"},
	} {
		if wrong.is {
			return errors.New("discovery: " + wrong.what)
		}
	}
	if _, err := selections(c.Select); err != nil {
		return err
	}
	if rest := c.Consul; c.Consul.Client != nil {
		rest.Client, rest.Address = nil, ""
		if rest != (Consul{}) {
			return errors.New("discovery: Consul.Client is set beside other fields of Consul; want it alone, or with Address")
		}
	}
	return nil
}

func (c Config) hasTLS() bool { return !reflect.ValueOf(c.TLS).IsZero() }

// settings returns what makes a client of Consul.
func (c Consul) settings() consul.Config {
	return consul.Config{
		Address: c.Address, Token: c.Token, TokenFile: c.TokenFile,
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, ServerName: c.ServerName,
		Namespace: c.Namespace, Partition: c.Partition, DialTimeout: c.DialTimeout,
	}
}
