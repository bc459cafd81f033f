package registration

import (
	"net"
	"net/netip"
	"strings"

	"github.com/hashicorp/consul/api"
)

const howToReach = "set Host (the setting ROLLCALL_ADVERTISE_HOST) to an address of this machine that others can connect to"

// loopback reports whether a host is this machine to whoever dials it.
func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// warnOfHost warns at the start of a Host that hardly anybody can reach. What
// nobody can reach at all is refused: see advertisable.
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
		c.Log.Warn("a link-local address is registered, which only neighbours on the same link can reach: "+howToReach,
			"service", c.Service, "id", c.ID, "host", c.Host)
	case loopback(c.Host) && consul != "" && !loopback(consul):
		c.Log.Warn("a loopback address is registered with a Consul elsewhere, and nobody outside of this machine can reach it: "+howToReach,
			"service", c.Service, "id", c.ID, "host", c.Host, "consul", addr)
	}
}

// warnOfNode warns, once, when the way to Consul is a loopback because the agent
// is on this machine, but the agent's node is known to others by an address.
func (l *life) warnOfNode(node *api.Node) {
	if l.nodeChecked || node == nil {
		return
	}
	l.nodeChecked = true
	if ip, err := netip.ParseAddr(node.Address); err == nil && !ip.IsLoopback() && l.cfg.Host == "" && loopback(l.host) {
		l.cfg.Log.Warn("a loopback address is registered, found as the way to the agent on this machine; other machines can't reach it: "+howToReach,
			"service", l.cfg.Service, "id", l.cfg.ID, "host", l.host, "node", node.Node, "node_address", node.Address)
	}
}

// warnOfDoubles warns of other entries at our address and port. We hold the port,
// so they were left by an earlier life with another ID, or this process registers
// twice. Their heartbeats end, and Consul removes them.
func (l *life) warnOfDoubles(all map[string]*api.AgentService, host string) {
	for id, e := range all {
		if id != l.cfg.ID && e != nil && e.Address == host && e.Port == l.cfg.Port {
			l.cfg.Log.Warn("the agent has another entry at our address and port: one left by an earlier life goes by itself when its heartbeat has run out; else give each instance its own port",
				"service", l.cfg.Service, "id", l.cfg.ID, "their_service", e.Service, "their_id", id, "host", host, "port", l.cfg.Port)
		}
	}
}
