package consultest

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/hashicorp/consul/api"
)

// Balancer is one address for several agents, as a load balancer or a
// Kubernetes Service makes of them: each new connection leads to one agent and
// stays with it. Use NewBalancer. Its methods may be called from any goroutine.
type Balancer struct {
	mu     sync.Mutex // guards what follows
	agents []*Agent
	lead   []*Agent // those that new connections lead to, in turn
	next   int      // of lead
	conns  map[*balanced]struct{}
}

// NewBalancer returns a balancer that leads new connections to the agents in
// turn.
func NewBalancer(agents ...*Agent) *Balancer {
	return &Balancer{agents: agents, lead: agents, conns: map[*balanced]struct{}{}}
}

// LeadTo leads new connections to these agents, in turn, or with none given to
// all again. Those that exist stay where they are; see Cut.
func (b *Balancer) LeadTo(agents ...*Agent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(agents) == 0 {
		agents = b.agents
	}
	b.lead, b.next = agents, 0
}

// Cut closes every connection.
func (b *Balancer) Cut() {
	b.mu.Lock()
	conns := b.conns
	b.conns = map[*balanced]struct{}{}
	b.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close() // it is gone either way
	}
}

// Connections returns the number of connections that lead to the agent.
func (b *Balancer) Connections(a *Agent) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for c := range b.conns {
		if c.to == a {
			n++
		}
	}
	return n
}

// Client is Agent.Client over connections through the balancer. It is closed
// with the first agent.
func (b *Balancer) Client() *api.Client { return client(b.HTTPClient(), managementToken) }

// HTTPClient is Agent.HTTPClient over connections through the balancer. It is
// closed with the first agent.
func (b *Balancer) HTTPClient() *http.Client { return b.agents[0].httpClient(b.DialContext) }

// DialContext connects to the agent whose turn it is; network and address are
// ignored.
func (b *Balancer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	b.mu.Lock()
	to := b.lead[b.next%len(b.lead)]
	b.next++
	b.mu.Unlock()
	conn, err := to.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &balanced{Conn: conn, to: to, of: b}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns[c] = struct{}{}
	return c, nil
}

// balanced is one connection through a balancer.
type balanced struct {
	net.Conn
	to *Agent
	of *Balancer
}

func (c *balanced) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
