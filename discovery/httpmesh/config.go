package httpmesh

import (
	"context"
	"crypto/tls"
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
	// Source says which instances offer a service. Required.
	Source catalog.Source
	// GRPC says which instances calls of gRPC go to. nil means those of Source that
	// speak it (catalog.GRPC).
	GRPC catalog.Source
	// Policy chooses among the instances. nil means balancer.PeakEWMA.
	Policy balancer.Policy
	// Outliers says which instances are ejected for failing. nil means the
	// defaults of outlier.Config; a negative Consecutive switches it off.
	Outliers *outlier.Config
	// DialTimeout is how long a request waits for a connection before it goes
	// elsewhere, if it can. 0 means 300ms. The dial goes on for ten times as long,
	// since a lost packet is repeated after a second; until it has ended the
	// instance is suspect, and what comes of it is kept. A dead container does not
	// refuse, it swallows packets, so this is what its callers wait; too short,
	// and a busy host is passed over.
	DialTimeout time.Duration
	// TryTimeout is patience: how long a try may be without the response's headers
	// before another runs beside it, at an instance that was not tried, if Budget
	// pays. The first answer that is no failure is used. It holds for safe
	// methods without a body or with GetBody; those that have an Idempotency-Key
	// go on one after the other, each ended for the next. 0 means 1s, negative
	// means none. Too short, and slow requests are done twice.
	//
	// A silence of that length or longer is the instance's failure, whatever ended
	// the wait; a shorter one proves nothing.
	TryTimeout time.Duration
	// MaxRetries is the number of tries after the first, 10 at most. 0 means 2,
	// negative means none. More outlives more failures at once, and lets a request
	// take longer to fail.
	MaxRetries int
	// Budget bounds the retries of all requests to a service taken together.
	// Zero means a tenth of the requests and 3 a second.
	Budget Budget
	// MaxConnAge is the age, give or take a tenth, at which a connection is
	// renewed: the next request that uses it asks the server to close it after
	// the answer. 0 means 5m, negative means never. Shorter dials more; longer
	// keeps what an address in between (a proxy, a NAT) has decided.
	MaxConnAge time.Duration
	// IdleTimeout is how long a connection is kept that no request uses. 0 means
	// 4s: less than common servers keep theirs (Node.js: 5s), for a request that
	// meets a connection which is just being closed is lost unless it may be done
	// twice. Shorter dials more.
	IdleTimeout time.Duration
	// TLS returns how an https URL's service is called: its ServerName is the name
	// that the instances' certificates must have, the service's own if it is empty.
	// It is asked once for each instance, and what it returns is not changed; what is
	// to change with time is in its functions, as in those that
	// (*mtls.Identity).Client returns. nil means the system's roots, the service's
	// name, and no certificate of ours.
	TLS func(service string) *tls.Config
	// MaxStreams is how many requests at once share one HTTP/2 connection to an
	// instance; with that many, or with as many as the instance allows, another
	// connection is made. HTTP/2 is spoken over TLS, to the instances that offer it, and
	// for gRPC. 0 means 100, negative means HTTP/1.1 for all but gRPC, which has 100. More saves connections; fewer
	// takes less along with one that breaks.
	MaxStreams int
	// Outside are hosts that are not in the mesh: "example.com", "*.example.com" for
	// all names under it, or "*" for whatever can't be the name of a service (a dot,
	// a port, an address, localhost). Requests for them, http and https, go as
	// net/http sends them: by DNS and the environment's proxy, to any port, once,
	// without a Rollcall-* header. nil means none: such a request is refused, so that
	// a typing error never goes astray.
	Outside []string
	// Trace is told of what happens. nil means that nothing listens.
	Trace *Trace

	// dial replaces net.Dialer in tests.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

const (
	defaultDialTimeout = 300 * time.Millisecond
	defaultTryTimeout  = time.Second
	defaultMaxRetries  = 2
	defaultMaxConnAge  = 5 * time.Minute
	defaultIdleTimeout = 4 * time.Second
	defaultMaxStreams  = 100
	maxMaxRetries      = 10
)

// filled returns the settings with their defaults, or what is wrong with them.
func (c Config) filled() (Config, error) {
	var wrong []error
	if c.Source == nil {
		wrong = append(wrong, errors.New("httpmesh: Source is nil; want a catalog.Source"))
	}
	if c.GRPC == nil && c.Source != nil {
		c.GRPC = catalog.Select(c.Source, catalog.Selection{Protocol: catalog.GRPC})
	}
	if c.DialTimeout < 0 {
		wrong = append(wrong, fmt.Errorf("httpmesh: DialTimeout is %v; want more than 0, or 0 for %v", c.DialTimeout, defaultDialTimeout))
	}
	if c.IdleTimeout < 0 {
		wrong = append(wrong, fmt.Errorf("httpmesh: IdleTimeout is %v; want more than 0, or 0 for %v", c.IdleTimeout, defaultIdleTimeout))
	}
	if c.MaxRetries > maxMaxRetries {
		wrong = append(wrong, fmt.Errorf("httpmesh: MaxRetries is %d; want at most %d, or negative for none", c.MaxRetries, maxMaxRetries))
	}
	if err := checkOutside(c.Outside); err != nil {
		wrong = append(wrong, err)
	}
	var err error
	if c.Budget, err = c.Budget.filled(); err != nil {
		wrong = append(wrong, err)
	}
	if c.MaxConnAge == 0 {
		c.MaxConnAge = defaultMaxConnAge
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = defaultIdleTimeout
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = defaultMaxStreams
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
