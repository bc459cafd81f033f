package registration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// machine is the network of the machine we run on.
type machine struct{}

// towards asks the kernel for the route: a connected UDP socket sends nothing.
func (machine) towards(ctx context.Context, addr string) (netip.Addr, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", addr)
	if err != nil {
		return netip.Addr{}, err
	}
	defer func() { _ = conn.Close() }()
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, err
	}
	return local.Addr().Unmap(), nil
}

// has says yes when in doubt: an address is given up only when it is known to be
// gone.
func (machine) has(host string) bool {
	want, err := netip.ParseAddr(host)
	if err != nil {
		return true
	}
	if want.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap() == want {
				return true
			}
		}
	}
	return false
}

// findHost returns the host to advertise now.
func (c Config) findHost(ctx context.Context, s *sight) (string, error) {
	if c.Host != "" {
		return c.Host, nil
	}
	addr, err := hostPort(c.ConsulAddr)
	if err != nil {
		return "", err
	}
	ip, err := c.network.towards(ctx, addr)
	if err != nil {
		return "", fmt.Errorf("find the address to advertise: %w", err)
	}
	host := ip.String()
	if err := advertisable(host); err != nil {
		return "", fmt.Errorf("find the address to advertise: the way to Consul (%s) begins at %s; want %w", addr, host, err)
	}
	if ip.IsLoopback() && c.ownsAgentOf(s) {
		// An agent on each host is the normal case: others reach both there.
		return s.address, nil
	}
	return host, nil
}

// ownsAgentOf reports whether the agent is on this machine, and others know it by
// an address of this machine that is no loopback.
func (c Config) ownsAgentOf(s *sight) bool {
	ip, err := netip.ParseAddr(s.address)
	return err == nil && !ip.IsLoopback() && advertisable(s.address) == nil && c.network.has(s.address)
}

// ErrLoopback is the trouble, wrapped, of an instance that is registered at a
// loopback address though its agent is known to others by another: no other machine
// or container can reach it.
var ErrLoopback = errors.New("a loopback address is registered, which only this machine can reach: set registration.Config.Host to an address of this machine that others can connect to")

// reach is ErrLoopback where it is due.
func (c Config) reach(host string, s *sight) error {
	if c.Host != "" || !loopback(host) || s.address == "" || loopback(s.address) {
		return nil
	}
	return fmt.Errorf("%w; it is %s, found as the way to Consul, whose agent is known to others as %s", ErrLoopback, host, s.address)
}

// moved reports whether the host found earlier is no longer the machine's own.
// That the way to Consul begins elsewhere by now does not count: a machine in
// two networks would change its entry at every look.
func (c Config) moved(host string) bool {
	return c.Host == "" && !c.network.has(host)
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// advertisable says what is wanted of a host that others are to connect to; nil
// if it is that.
func advertisable(host string) error {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if !usable(host) {
			return errors.New("an IP address, IPv6 without brackets, or a host name, without a port")
		}
		return nil
	}
	ip = ip.Unmap()
	if ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" || ip.IsLinkLocalUnicast() && !ip.Is4() || ip == broadcast {
		return errors.New("an address that others can connect to: not unspecified, multicast, broadcast, IPv6 link-local or with a zone")
	}
	return nil
}

// usable reports whether those who read the entry would take its host.
func usable(host string) bool {
	return catalog.Instance{ID: "this", Host: host, Port: 1, Weight: 1}.Validate() == nil
}

// hostPort takes the host and port out of Consul's address. The error says what
// is wanted.
func hostPort(addr string) (string, error) {
	if addr != "" { // which would mean what the environment says
		if at := (consul.Config{Address: addr}).HostPort(); at != "" {
			return at, nil
		}
	}
	return "", errors.New("host:port or a URL of http or https, with a port from 1 to 65535")
}
