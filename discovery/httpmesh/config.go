package httpmesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// Config is what New needs. All but Source may be left zero.
type Config struct {
	// Source says who offers a service. Required.
	Source catalog.Source
	// Policy chooses among the instances. nil means balancer.PeakEWMA.
	Policy balancer.Policy
	// Outliers says which instances are ejected for failing. nil means the
	// defaults of outlier.Config; a negative Consecutive switches it off.
	Outliers *outlier.Config
	// DialTimeout bounds the making of a connection. 0 means 300ms. A dead
	// container does not refuse, it swallows packets, so this is what its
	// callers wait before they go elsewhere; too short, and a busy host or a
	// lost packet (TCP repeats it after 1s) looks dead.
	DialTimeout time.Duration
	// TryTimeout bounds the time from the start of a try to the response's
	// headers, while another instance is left, the request may be sent again and
	// Budget allows it. It never cuts the last try, a body, an upgrade, or an
	// unsafe method without an Idempotency-Key. 0 means 1s, negative means none.
	// Too short, and slow answers are thrown away and asked for twice.
	TryTimeout time.Duration
	// MaxRetries is the number of tries after the first. 0 means 2, negative
	// means none.
	MaxRetries int
	// Budget bounds the retries of all requests to a service taken together.
	// Zero means a tenth of the requests and 3 a second.
	Budget Budget
	// MaxConnAge is the age, give or take a tenth, at which a connection is
	// renewed: the next request that uses it asks the server to close it after
	// the answer. 0 means 5m, negative means never. Shorter dials more; longer
	// keeps what an address in between (a proxy, a NAT) has decided.
	MaxConnAge time.Duration
	// Trace is told of what happens. nil means nobody listens.
	Trace *Trace

	// dial replaces net.Dialer in tests.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

const (
	defaultDialTimeout = 300 * time.Millisecond
	defaultTryTimeout  = time.Second
	defaultMaxRetries  = 2
	defaultMaxConnAge  = 5 * time.Minute
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
	var err error
	if c.Budget, err = c.Budget.filled(); err != nil {
		wrong = append(wrong, err)
	}
	if c.MaxConnAge == 0 {
		c.MaxConnAge = defaultMaxConnAge
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
	if c.Outliers == nil {
		c.Outliers = new(outlier.Config)
	}
	if c.Trace == nil {
		c.Trace = new(Trace)
	}
	if c.dial == nil {
		c.dial = new(net.Dialer).DialContext
	}
	return c, errors.Join(wrong...)
}
