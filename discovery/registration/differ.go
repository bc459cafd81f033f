package registration

import (
	"fmt"
	"slices"

	"github.com/hashicorp/consul/api"
)

// differs says how the entry in the catalog is other than what was written; empty if
// it is not. What Consul fills in (tagged addresses of the same host, the default of
// named ports) and what an operator adds (tags, Meta) is no difference.
func differs(want *api.AgentServiceRegistration, have *api.AgentService) string {
	if have == nil {
		return "the entry is not in the catalog"
	}
	if have.Meta[writeKey] != want.Meta[writeKey] {
		return "the catalog has the entry as it was before"
	}
	wantPort := api.AgentService{Port: want.Port, Ports: want.Ports}.DefaultPort()
	for _, is := range []struct {
		so   bool
		what string
	}{
		{have.Address == want.Address && have.DefaultPort() == wantPort, fmt.Sprintf("at %s port %d, not %s port %d", have.Address, have.DefaultPort(), want.Address, wantPort)},
		{samePorts(want.Ports, have.Ports), fmt.Sprintf("with the ports %v, not %v", have.Ports, want.Ports)},
		{have.Weights == *want.Weights, fmt.Sprintf("with weights %+v, not %+v", have.Weights, *want.Weights)},
		{have.EnableTagOverride == want.EnableTagOverride, fmt.Sprintf("with EnableTagOverride %t", have.EnableTagOverride)},
		{want.Locality == nil || have.Locality != nil && *have.Locality == *want.Locality, "with another Locality"},
	} {
		if !is.so {
			return "the catalog has the entry " + is.what
		}
	}
	for tag, addr := range want.TaggedAddresses {
		if have.TaggedAddresses[tag] != addr {
			return fmt.Sprintf("the catalog has the entry with the tagged address %s at %v, not %v", tag, have.TaggedAddresses[tag], addr)
		}
	}
	for _, tag := range want.Tags {
		if !want.EnableTagOverride && !slices.Contains(have.Tags, tag) {
			return fmt.Sprintf("the catalog has the entry without the tag %q", tag)
		}
	}
	for k, v := range want.Meta {
		if have.Meta[k] != v {
			return fmt.Sprintf("the catalog has the entry with another Meta[%q]", k)
		}
	}
	return ""
}

// samePorts reports whether both have the same ports, in whatever order.
func samePorts(a, b api.ServicePorts) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(p api.ServicePort) bool { return !slices.Contains(b, p) })
}
