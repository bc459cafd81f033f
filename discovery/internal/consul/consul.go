// Package consul is the one place that builds Consul clients: address, TLS,
// token, time limits and the number of connections. It also knows what an
// error of Consul's means for the next try, and keeps asking a question that Consul
// holds ([Follow]).
//
// A client is safe for any number of goroutines. Each has a connection pool of
// its own, so that blocking queries never starve a heartbeat. No client has a
// time limit for a whole call, since blocking queries are meant to be long:
// callers bound each call by its context.
package consul

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/mtls"
)

// MaxConns bounds Config.MaxConns: Consul closes the 201st connection of a
// client address with a 429 (limits.http_max_conns_per_client), and a process
// has more than one client.
const MaxConns = 199

// DefaultMaxConns is Config.MaxConns where it is 0.
const DefaultMaxConns = 100

// Config says which Consul to talk to, and how. The zero value is right for an
// agent on this host. What is empty here is taken from Consul's documented
// environment variables (CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN,
// CONSUL_HTTP_TOKEN_FILE, CONSUL_HTTP_AUTH, CONSUL_HTTP_SSL,
// CONSUL_HTTP_SSL_VERIFY, CONSUL_TLS_SERVER_NAME, CONSUL_CACERT,
// CONSUL_CAPATH, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_NAMESPACE,
// CONSUL_PARTITION), and what those leave open has Consul's defaults.
type Config struct {
	// Address of the agent: host:port, a URL of http or https, whose path is put
	// before every path of Consul's, or unix:///path. Empty means
	// CONSUL_HTTP_ADDR, else 127.0.0.1:8500.
	Address string
	// Token is the ACL token sent with each call. Empty means
	// CONSUL_HTTP_TOKEN.
	Token string
	// TokenFile holds the token instead, and wins over Token. It is read for each
	// call, so that a token is rotated without a restart; while it is away or
	// empty the last token holds. Empty means CONSUL_HTTP_TOKEN_FILE, unless
	// Token is set.
	TokenFile string
	// Datacenter to ask. Empty means the agent's own.
	Datacenter string
	// Namespace and Partition of Consul Enterprise. Empty means CONSUL_NAMESPACE
	// and CONSUL_PARTITION.
	Namespace, Partition string
	// CAFile, CertFile and KeyFile are PEM files for TLS, ServerName is the
	// name in the agent's certificate. Empty means CONSUL_CACERT,
	// CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY and CONSUL_TLS_SERVER_NAME.
	CAFile, CertFile, KeyFile, ServerName string
	// DialTimeout bounds the making of a connection, whatever number of addresses
	// the host's name has. 0 means 2s. Shorter finds a dead agent sooner, longer
	// suits an agent far away.
	DialTimeout time.Duration
	// MaxConns is the number of connections at most; calls beyond it queue
	// until their context ends. 0 means DefaultMaxConns; at most 199, because Consul
	// refuses more than 200 from one address.
	MaxConns int
	// Identity is what Identify returned for this Config: the files of TLS, looked
	// after. nil means that they are read once.
	Identity *mtls.Identity
}

// Client is the API's client, by a name for code that only passes it on.
type Client = api.Client

// New returns a client with a connection pool of its own. It makes no
// connection: an error means a wrong setting. Idle connections are closed
// after 30 seconds.
func New(cfg Config) (*api.Client, error) {
	client, _, err := Open(cfg)
	return client, err
}

// Open is New, and returns besides what closes the client's idle connections
// at once: call it when the last call is done.
func Open(cfg Config) (client *api.Client, closeIdle func(), err error) {
	switch {
	case cfg.DialTimeout < 0:
		return nil, nil, fmt.Errorf("consul: DialTimeout is %s; want 0 or more", cfg.DialTimeout)
	case cfg.MaxConns < 0 || cfg.MaxConns > MaxConns:
		return nil, nil, fmt.Errorf("consul: MaxConns is %d; want 0 to %d", cfg.MaxConns, MaxConns)
	}
	for _, name := range []string{api.HTTPSSLEnvName, api.HTTPSSLVerifyEnvName} {
		// The API client logs a bad value and goes on without TLS.
		if v := os.Getenv(name); v != "" {
			if _, err := strconv.ParseBool(v); err != nil {
				return nil, nil, fmt.Errorf("consul: %s is %q; want true or false", name, v)
			}
		}
	}
	where, err := cfg.where()
	if err != nil {
		return nil, nil, err
	}

	transport := newTransport(cfg, where)
	c := api.DefaultConfig()
	// The API client would take a transport of its own for a socket, without
	// keep-alive and limits: so it sees a plain address, and the dialer knows
	// the path.
	c.Address = cmp.Or(where.host, "localhost")
	c.Scheme, c.PathPrefix = where.scheme, where.prefix
	c.Datacenter = cfg.Datacenter
	override(&c.Namespace, cfg.Namespace)
	override(&c.Partition, cfg.Partition)
	if cfg.Token != "" {
		c.Token, c.TokenFile = cfg.Token, ""
	}
	override(&c.TokenFile, cfg.TokenFile)
	if c.TokenFile == "" && !printable(c.Token) {
		return nil, nil, errors.New("consul: the token has what no token has; want one line of printable ASCII")
	}
	override(&c.TLSConfig.CAFile, cfg.CAFile)
	override(&c.TLSConfig.CertFile, cfg.CertFile)
	override(&c.TLSConfig.KeyFile, cfg.KeyFile)
	override(&c.TLSConfig.Address, cfg.ServerName)
	if transport.TLSClientConfig, err = withTLS(c.TLSConfig, where, cfg.Identity); err != nil {
		return nil, nil, fmt.Errorf("consul: make a client for %s: %w", where, err)
	}
	c.HttpClient = &http.Client{Transport: transport}
	if c.TokenFile != "" {
		if c.HttpClient.Transport, err = newFileToken(c.TokenFile, transport); err != nil {
			return nil, nil, err
		}
	}
	c.HttpClient.Transport = Bound(c.HttpClient.Transport, MaxAnswer)
	client, err = api.NewClient(c)
	if err != nil {
		return nil, nil, fmt.Errorf("consul: make a client for %s: %w", where, err)
	}
	return client, transport.CloseIdleConnections, nil
}

// String returns the address of the Config, the default included, for people.
func (c Config) String() string {
	where, err := c.where()
	if err != nil {
		return c.Address
	}
	return where.String()
}

// HostPort returns the host and port that a client of this Config connects to:
// empty for a Unix socket, and for an address that New refuses.
func (c Config) HostPort() string {
	where, err := c.where()
	if err != nil {
		return ""
	}
	return where.hostPort
}

func (c Config) where() (address, error) {
	if c.Address != "" {
		return parseAddress("Address", c.Address)
	}
	if value := os.Getenv(api.HTTPAddrEnvName); value != "" {
		return parseAddress(api.HTTPAddrEnvName, value)
	}
	return parseAddress("Address", "127.0.0.1:8500")
}

func override(setting *string, by string) {
	if by != "" {
		*setting = by
	}
}

// Identify looks after the files of TLS that the Config and the environment name, for
// the clients that are made with it. nil: there are none. The caller closes it.
func Identify(cfg Config, log *slog.Logger) (*mtls.Identity, error) {
	c := api.DefaultConfig().TLSConfig
	override(&c.CAFile, cfg.CAFile)
	override(&c.CertFile, cfg.CertFile)
	override(&c.KeyFile, cfg.KeyFile)
	if c.CAFile == "" && c.CertFile == "" && c.KeyFile == "" {
		return nil, nil //nolint:nilnil // said above
	}
	identity, err := mtls.Open(mtls.Config{CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile, Log: log})
	if err != nil {
		return nil, fmt.Errorf("consul: the files of TLS: %w", err)
	}
	return identity, nil
}

// withTLS is how connections to an agent are secured.
func withTLS(c api.TLSConfig, where address, identity *mtls.Identity) (*tls.Config, error) {
	hasRoots := c.CAFile != ""
	if identity != nil { // the files are its business, and may be broken now
		c.CAFile, c.CertFile, c.KeyFile = "", "", ""
		if hasRoots {
			c.CAPath = ""
		}
	}
	config, err := api.SetupTLSConfig(&c) // reads what is left once
	if err != nil || identity == nil {
		return config, err
	}
	name := config.ServerName
	if name == "" {
		name, _, _ = net.SplitHostPort(where.hostPort) // it has a port; a socket has no TLS
	}
	looked := identity.Client(name)
	config.GetClientCertificate = looked.GetClientCertificate
	if hasRoots && !c.InsecureSkipVerify {
		config.ServerName, config.InsecureSkipVerify, config.VerifyConnection = name, true, looked.VerifyConnection
	}
	return config, nil
}

// newTransport leaves HTTP/2 off: one connection for everything would bring
// all calls to a halt together when it is black-holed, and heartbeats with it.
func newTransport(cfg Config, where address) *http.Transport {
	const keepAlive = 15 * time.Second
	if cfg.DialTimeout == 0 {
		cfg.DialTimeout = 2 * time.Second
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	dialer := &dialer{
		limit:  cfg.DialTimeout,
		lookup: lookup,
		dial:   (&net.Dialer{Timeout: cfg.DialTimeout, KeepAlive: keepAlive}).DialContext,
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxConnsPerHost:       cfg.MaxConns,
		MaxIdleConnsPerHost:   cfg.MaxConns,
	}
	if where.socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.dial(ctx, "unix", where.socket)
		}
	}
	return t
}
