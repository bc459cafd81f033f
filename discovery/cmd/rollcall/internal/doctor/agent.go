package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// agent is what the agent that answers says of itself. What is not known is empty.
type agent struct {
	node, address string
	version       string
	server        bool
	dnsPort       int // below 0: it has no DNS; 0: unknown
	dnsDomain     string
}

// whoIs asks the agent who it is.
func whoIs(ctx context.Context, client *api.Client) (a agent, err error) {
	q, cancel := query(ctx)
	defer cancel()
	var self map[string]map[string]any
	if _, err = client.Raw().Query("/v1/agent/self", &self, q); err != nil {
		return agent{}, consul.Clip(err)
	}
	config, debug := self["Config"], self["DebugConfig"]
	a.node, _ = config["NodeName"].(string)
	a.version, _ = config["Version"].(string)
	a.server, _ = config["Server"].(bool)
	a.address, _ = self["Member"]["Addr"].(string)
	a.dnsDomain, _ = debug["DNSDomain"].(string)
	port, _ := debug["DNSPort"].(float64)
	a.dnsPort = int(port)
	if a.node == "" {
		return agent{}, errors.New("the agent's answer has no name of its node")
	}
	return a, nil
}

// askAgent asks who the agent is, how old, and whether it is on this host.
func (x *examination) askAgent(ctx context.Context) {
	a, err := whoIs(ctx, x.cfg.Client)
	switch {
	case consul.Denied(err):
		x.found(Note, checkAgent, "agent:read, if you want to know", "the token may not ask the agent who it is: whether it is on this host, its version, and whether there are several are not known")
		return
	case err != nil:
		x.found(Warning, checkAgent, "Consul answers, but not this: see its log, and whether something stands between", "the agent can't be asked who it is: %s", why(err))
		return
	}
	x.agent = a
	kind := "a client agent"
	if a.server {
		kind = "a server"
	}
	if here(a.address) || loopback(hostOf(x.cfg.HostPort)) || x.cfg.HostPort == "" {
		x.found(OK, checkAgent, "", "node %s (%s), %s, on this host", a.node, a.address, kind)
	} else {
		x.found(Note, checkAgent, "for a trial, or with containers, that may be meant so; else run an agent on each host: what is registered with one goes with it, see docs/how-to/consul-agents.md",
			"node %s (%s), %s, is not on this host", a.node, a.address, kind)
	}
	x.judgeVersion(a.version)
}

// oldest is the first Consul whose answers say that rights have left something out
// (X-Consul-Results-Filtered-By-ACLs): with an older one an empty service may be one
// that the token may not see.
var oldest = [2]int{1, 11}

func (x *examination) judgeVersion(version string) {
	major, minor, ok := parseVersion(version)
	switch {
	case !ok:
		x.found(Note, checkVersion, fmt.Sprintf("see that it is %d.%d or later", oldest[0], oldest[1]), "Consul's version %q can't be read", version)
	case slices.Compare([]int{major, minor}, oldest[:]) < 0:
		x.found(Warning, checkVersion, fmt.Sprintf("use %d.%d or later", oldest[0], oldest[1]), "Consul %s does not say what the rights of a token have left out of an answer: a service without instances may be one that may not be read", version)
	default:
		x.found(OK, checkVersion, "", "Consul %s", version)
	}
}

func parseVersion(text string) (major, minor int, ok bool) {
	parts := strings.SplitN(strings.TrimPrefix(text, "v"), ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(parts[1])
	return major, minor, err == nil
}

// fresh is over how many new connections the agent is asked who it is.
const fresh = 8

// askAgents asks whether the address leads to one agent.
func (x *examination) askAgents(ctx context.Context) {
	if x.cfg.Fresh == nil || x.agent.node == "" {
		return
	}
	nodes := []string{x.agent.node}
	for range fresh {
		client, closeIdle, err := x.cfg.Fresh()
		if err != nil {
			x.found(Warning, checkAgents, howToReach(err), "no new connection to Consul: %v", err)
			return
		}
		a, err := whoIs(ctx, client)
		closeIdle()
		if err != nil {
			x.found(Warning, checkAgents, howToReach(err), "a new connection to Consul does not answer: %s", why(err))
			return
		}
		nodes = append(nodes, a.node)
	}
	slices.Sort(nodes)
	if nodes = slices.Compact(nodes); len(nodes) > 1 {
		x.found(Failure, checkAgents, "give CONSUL_HTTP_ADDR the address of one of them, best the one on this host: an entry belongs to the agent that took it, and only that one takes its heartbeats; see docs/how-to/consul-behind-a-balancer.md",
			"%s leads to %d agents: %s", x.cfg.Address, len(nodes), strings.Join(nodes, ", "))
		return
	}
	x.found(OK, checkAgents, "", "%d connections led to one agent", fresh)
}

// here reports whether an address is one of this machine.
func here(address string) bool {
	want, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		return ok && ip.Unmap() == want.Unmap()
	})
}

// loopback reports whether a host is each machine's own.
func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().IsLoopback()
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

func hostOf(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return ""
	}
	return host
}
