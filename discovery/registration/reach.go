package registration

import (
	"net"
	"net/netip"
	"strings"
)

const howToReach = "set registration.Config.Host to an address of this machine that others can connect to"

// loopback reports whether a host is this machine to those who dial it.
func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// warnOfHost warns at the start of a Host that hardly any can reach. What
// none can reach at all is refused: see advertisable.
func (c Config) warnOfHost() {
	ip, err := netip.ParseAddr(c.Host)
	linkLocal := err == nil && ip.IsLinkLocalUnicast()
	addr, err := hostPort(c.ConsulAddr)
	if err != nil {
		addr = ""
	}
	consul, _, _ := net.SplitHostPort(addr)
	switch {
	case linkLocal:
		c.Log.Warn("a link-local address is registered, which only machines on the same link can reach: "+howToReach,
			"service", c.Service, "id", c.ID, "host", c.Host)
	case loopback(c.Host) && consul != "" && !loopback(consul):
		c.Log.Warn("a loopback address is registered with a Consul elsewhere, which only this machine can reach: "+howToReach,
			"service", c.Service, "id", c.ID, "host", c.Host, "consul", addr)
	}
}
