package registration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
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
func (c Config) findHost(ctx context.Context) (string, error) {
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
	return host, nil
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
	want := errors.New("host:port or http(s)://host:port, with a port from 1 to 65535")
	hp := addr
	if scheme, _, ok := strings.Cut(addr, "://"); ok {
		defaults := map[string]string{"http": "80", "https": "443"}
		u, err := url.Parse(addr)
		if err != nil || defaults[scheme] == "" {
			return "", want
		}
		hp = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), defaults[scheme]))
	}
	host, port, err := net.SplitHostPort(hp)
	if err != nil || host == "" {
		return "", want
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", want
	}
	return hp, nil
}
