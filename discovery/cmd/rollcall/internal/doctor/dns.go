package doctor

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"
)

const (
	// defaultDNSPort is Consul's.
	defaultDNSPort = 8600
	// mostNames is how many services DNS is asked for.
	mostNames = 20
)

// askDNS asks Consul's DNS for services that have passing instances. rollcall needs no
// DNS; others may.
func (x *examination) askDNS(ctx context.Context) {
	said := x.cfg.DNS != "" // then it is wanted
	if !said && x.agent.dnsPort < 0 {
		x.found(Note, checkDNS, "", "Consul has none (ports.dns); rollcall needs none")
		return
	}
	server := cmp.Or(x.cfg.DNS, net.JoinHostPort(cmp.Or(hostOf(x.cfg.HostPort), "127.0.0.1"), strconv.Itoa(cmp.Or(x.agent.dnsPort, defaultDNSPort))))
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	asked := 0
	for _, service := range x.services {
		if asked == mostNames || !x.inDNS(service) {
			continue
		}
		asked++
		n, err := lookUp(ctx, resolver, service+".service."+cmp.Or(strings.Trim(x.agent.dnsDomain, "."), "consul")+".")
		lost, ok := errors.AsType[*net.DNSError](err)
		switch {
		case err == nil && n > 0:
		case err == nil, ok && lost.IsNotFound:
			x.found(Warning, checkDNS, "Consul's DNS asks with a token of its own: give the agent one with service:read and node:read (`consul acl set-agent-token dns`), see docs/how-to/consul-acl.md", "DNS at %s does not know %s, which has passing instances", server, service)
		case said:
			x.found(Failure, checkDNS, "see whether Consul's DNS listens there: ports.dns and client_addr of the agent, TCP and UDP", "DNS does not answer at %s: %s", server, why(err))
			return
		default:
			x.found(Note, checkDNS, "rollcall needs none; if something else does: --dns ADDRESS says where it is, ports.dns and client_addr of the agent where it listens", "DNS does not answer at %s: %s", server, why(err))
			return
		}
	}
	if asked > 0 {
		x.well(checkDNS, "knows %s at %s", count(asked, "service"), server)
	}
}

// inDNS reports whether DNS should know a service: one of its instances passes, and
// its name can be one of DNS's.
func (x *examination) inDNS(service string) bool {
	return !strings.ContainsAny(service, "._") && slices.ContainsFunc(x.entries, func(e *api.ServiceEntry) bool {
		return isOf(e, service) && e.Checks.AggregatedStatus() == api.HealthPassing
	})
}

func lookUp(ctx context.Context, resolver *net.Resolver, name string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	_, found, err := resolver.LookupSRV(ctx, "", "", name)
	return len(found), err
}
