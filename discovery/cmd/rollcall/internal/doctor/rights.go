package doctor

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

const aclDocs = "; the smallest policies are in docs/how-to/consul-acl.md"

// askRights asks which rights the token lacks, and returns the services that it may not
// read. In most answers Consul leaves out what may not be read, and at best says that it
// did; the agent's own health of a service
// (https://developer.hashicorp.com/consul/api-docs/agent/service) is refused instead, for
// want of service:read alone. Whether the token may write is seen by writing only.
func (x *examination) askRights(ctx context.Context) (unreadable []string) {
	denied := make([]bool, len(x.services))
	each(len(x.services), func(n int) { denied[n] = x.mayNotRead(ctx, x.services[n]) })
	for n, service := range x.services {
		if denied[n] {
			unreadable = append(unreadable, service)
			x.found(Failure, checkRights, `give the token's policy: service "`+service+`" { policy = "read" }`+aclDocs,
				"service:read for %s is missing: who calls it finds no instance", service)
		}
	}
	if slices.ContainsFunc(x.hidden, func(service string) bool { return !slices.Contains(unreadable, service) }) {
		x.found(Failure, checkRights, `give the token's policy: node_prefix "" { policy = "read" }`+aclDocs,
			"node:read is missing: Consul leaves out instances at nodes that the token may not read, and a registration can't be seen")
	}
	if x.unlisted && x.cfg.Services == nil {
		x.found(Note, checkRights, "name the services that should be seen, and it is said which right is missing for each",
			"Consul leaves services out of its list that the token may not read")
	}
	x.well(checkRights, "nothing is left out of what the token reads of them")
	return unreadable
}

// mayNotRead reports whether the token lacks service:read for the service.
func (x *examination) mayNotRead(ctx context.Context, service string) bool {
	q, cancel := query(ctx)
	defer cancel()
	var health json.RawMessage
	_, err := x.cfg.Client.Raw().Query("/v1/agent/health/service/name/"+service, &health, q)
	return consul.Denied(err) // any other status is the service's health
}
