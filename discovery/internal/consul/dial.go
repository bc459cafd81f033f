package consul

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// dialer tries every address of a host name within one limit. net.Dialer gives
// the first address at least two seconds (its saneMinimum), which is all there is
// of the limit: an address that swallows packets would leave none for the next.
type dialer struct {
	limit  time.Duration
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
}

// DialContext dials the addresses one after the other, the next one when the last
// has failed or has been silent for its part of half the limit. The earlier ones
// go on meanwhile, so that each has at least half of the limit (RFC 8305 does
// likewise). The first connection is returned, or the first error.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return d.dial(ctx, network, addr)
	}
	ips, err := d.lookup(ctx, "ip", host)
	if err == nil && len(ips) == 0 {
		err = &net.AddrError{Err: "no address", Addr: host}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	return d.race(ctx, network, port, ips)
}

// dialed is what came of one address.
type dialed struct {
	conn net.Conn
	err  error
}

func (d *dialer) race(ctx context.Context, network, port string, ips []netip.Addr) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan dialed)
	running := 0
	defer func() { // what is left is waited for, and closed if it has come about
		cancel()
		for range running {
			if late := <-results; late.conn != nil {
				_ = late.conn.Close()
			}
		}
	}()
	stagger := d.limit / time.Duration(2*len(ips))
	next := time.NewTimer(0)
	defer next.Stop()
	var first error
	for len(ips) > 0 || running > 0 {
		select {
		case <-next.C:
			if len(ips) == 0 {
				continue
			}
			ip := ips[0]
			ips = ips[1:]
			running++
			go func() {
				conn, err := d.dial(ctx, network, net.JoinHostPort(ip.Unmap().String(), port))
				results <- dialed{conn, err}
			}()
			next.Reset(stagger)
		case r := <-results:
			running--
			if r.err == nil {
				return r.conn, nil
			}
			if first == nil {
				first = r.err
			}
			next.Reset(0)
		}
	}
	return nil, first
}

// lookup asks for the addresses of a name, as net.DefaultResolver does. That one has
// callers who ask for the same name share one lookup: one that began while Consul's
// name was away hangs for seconds, and those that ask when it is back wait for it. So
// each lookup has a resolver of its own.
func lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	own := net.Resolver{
		PreferGo:     net.DefaultResolver.PreferGo,
		StrictErrors: net.DefaultResolver.StrictErrors,
		Dial:         net.DefaultResolver.Dial,
	}
	return own.LookupNetIP(ctx, network, host)
}
