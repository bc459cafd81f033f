package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Config is what New needs. All but Source may be left zero.
type Config struct {
	// Source says who offers a service. Required.
	Source catalog.Source
	// Policy chooses among the instances. nil means balancer.P2C.
	Policy balancer.Policy
	// DialTimeout bounds the making of a connection. 0 means 300ms. A dead
	// container does not refuse, it swallows packets, so this is what its
	// callers wait before they go elsewhere; too short, and a busy host or a
	// lost packet (TCP repeats it after 1s) looks dead.
	DialTimeout time.Duration
	// TryTimeout bounds the time from the start of a try to the response's
	// headers, while another instance is left and the request may be sent
	// again. It never cuts the last try, a body, an upgrade, or an unsafe
	// method. 0 means 1s, negative means none. Too short, and slow answers are
	// thrown away and asked for twice.
	TryTimeout time.Duration
	// MaxRetries is the number of tries after the first. 0 means 2, negative
	// means none.
	MaxRetries int
	// Trace is told of what happens. nil means nobody listens.
	Trace *Trace

	// dial replaces net.Dialer in tests.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

const (
	defaultDialTimeout = 300 * time.Millisecond
	defaultTryTimeout  = time.Second
	defaultMaxRetries  = 2
	maxMaxRetries      = 10
)

// filled returns the settings with their defaults, or what is wrong with them.
func (c Config) filled() (Config, error) {
	var wrong []error
	if c.Source == nil {
		wrong = append(wrong, errors.New("httpmesh: Source is nil; want a catalog.Source"))
	}
	if c.DialTimeout < 0 {
		wrong = append(wrong, fmt.Errorf("httpmesh: DialTimeout is %v; want more than 0, or 0 for %v", c.DialTimeout, defaultDialTimeout))
	}
	if c.MaxRetries > maxMaxRetries {
		wrong = append(wrong, fmt.Errorf("httpmesh: MaxRetries is %d; want at most %d, or negative for none", c.MaxRetries, maxMaxRetries))
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = defaultDialTimeout
	}
	if c.TryTimeout == 0 {
		c.TryTimeout = defaultTryTimeout
	}
	switch {
	case c.MaxRetries == 0:
		c.MaxRetries = defaultMaxRetries
	case c.MaxRetries < 0:
		c.MaxRetries = 0
	}
	if c.Trace == nil {
		c.Trace = new(Trace)
	}
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	return c, errors.Join(wrong...)
}
