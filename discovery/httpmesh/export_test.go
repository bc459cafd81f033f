package httpmesh

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
)

// Balancer returns the service's balancer for http URLs; nil if there is none.
func (t *Transport) Balancer(service string) *balancer.Balancer {
	if all := t.Balancers(service); len(all) > 0 {
		return all[0]
	}
	return nil
}

// WithDial returns the config with another dialer.
func (c Config) WithDial(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Config {
	c.dial = dial
	return c
}

// Open returns the number of dials and connections that are open.
func (t *Transport) Open() int {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	return len(t.network.open)
}

// Routes returns the number of services that have a route.
func (t *Transport) Routes() int {
	n := 0
	t.routes.Range(func(any, any) bool { n++; return true })
	return n
}

// TrustOutside makes the hosts outside the mesh show certificates of these roots.
func (t *Transport) TrustOutside(roots *x509.CertPool) {
	t.outside.pool.TLSClientConfig = &tls.Config{RootCAs: roots}
}
