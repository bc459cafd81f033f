package consultest

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
)

// The ways to an agent.

// Client returns a client of Consul's real API module that talks to the agent
// over connections of its own. It has a token that may everything; see Tokens.
func (a *Agent) Client() *api.Client { return a.ClientWith(managementToken) }

func client(c *http.Client, token string) *api.Client {
	// NewClient can only fail for an address or TLS setting that it can't
	// read, and these are fixed. Scheme and Address are given so that
	// CONSUL_HTTP_ADDR and CONSUL_HTTP_SSL have no say.
	made, err := api.NewClient(&api.Config{Address: Address, Scheme: "http", Token: token, HttpClient: c})
	if err != nil {
		return nil
	}
	return made
}

// Address is the host and port that stand for the agent in URLs. Nothing
// listens there: see DialContext.
const Address = "127.0.0.1:8500"

// HTTPClient returns an HTTP client, without a timeout, that reaches the agent
// whatever the host of the URL is, over connections of its own.
func (a *Agent) HTTPClient() *http.Client { return a.httpClient(a.DialContext) }

// httpClient returns a client that dials so and ends with the agent.
func (a *Agent) httpClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	t := &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 100, IdleConnTimeout: 90 * time.Second}
	a.mu.Lock()
	a.transports = append(a.transports, t)
	a.mu.Unlock()
	return &http.Client{Transport: t}
}

// DialContext connects to the agent; network and address are ignored. It is
// made for http.Transport.
func (a *Agent) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	if a.fault("").refuse {
		return nil, errRefused()
	}
	return a.pipe.dial(ctx)
}

// Listen serves the agent on a free port of the loopback interface too, until
// it is closed, and returns host:port: for what can only be given an address.
// It is real I/O, and has no place in a synctest bubble. Faults hold there too,
// but Refuse can only close a new connection, not refuse it.
func (a *Agent) Listen() (string, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	a.listen(l)
	return l.Addr().String(), nil
}

func (a *Agent) listen(l net.Listener) {
	a.serving.Go(func() {
		// Serve closes the listener, and ends when the server is closed.
		_ = a.server.Serve(l)
	})
}

// Connections returns the number of connections that are open.
func (a *Agent) Connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conns)
}

// LimitConnections sets how many connections may be open; a request on one
// more is answered with 429 and the connection closed, as Consul does with its
// http_max_conns_per_client (200 by default there). 0 means no limit, which is
// the default here.
func (a *Agent) LimitConnections(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.limit = n
}

type overLimit struct{}

func (a *Agent) admit(ctx context.Context, c net.Conn) context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.limit > 0 && len(a.conns) >= a.limit {
		return context.WithValue(ctx, overLimit{}, true)
	}
	a.conns[c] = struct{}{}
	return ctx
}

func (a *Agent) track(c net.Conn, s http.ConnState) {
	if s != http.StateClosed && s != http.StateHijacked {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
}

// cut closes every connection, as a process that ends does.
func (a *Agent) cut() {
	a.mu.Lock()
	conns := make([]net.Conn, 0, len(a.conns))
	for c := range a.conns {
		conns = append(conns, c)
	}
	a.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
