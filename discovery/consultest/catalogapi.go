package consultest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// The endpoints of /v1/health, /v1/catalog and /v1/status: the servers' view.

var entryFields = map[string]func(*api.ServiceEntry) string{
	"Service.ID":      func(e *api.ServiceEntry) string { return e.Service.ID },
	"Service.Service": func(e *api.ServiceEntry) string { return e.Service.Service },
	"Node.Node":       func(e *api.ServiceEntry) string { return e.Node.Node },
}

func (a *Agent) getHealthService(r *http.Request) answer {
	name := r.PathValue("name")
	q := parseQuery(r)
	keep, err := filter(q.params.Get("filter"), entryFields, func(e *api.ServiceEntry) map[string]string { return e.Service.Meta })
	switch {
	case name == "":
		err = badRequest("Missing service name")
	case q.err != nil:
		err = q.err
	}
	if err != nil {
		return failed(err)
	}
	passing := q.params.Has("passing")
	switch v := q.params.Get("passing"); v {
	case "", "1", "true":
	case "0", "false":
		passing = false
	default:
		return failed(badRequest("Invalid value for ?passing"))
	}
	// Only what concerns this service wakes the query, not what moves the
	// index that is told for a service that nobody offers.
	key := a.catalog.name(name)
	if err := a.block(r, q, func() uint64 { return a.catalog.modified[key] }); err != nil {
		return failed(err)
	}
	entries := slices.DeleteFunc(a.catalog.entries(name), func(e *api.ServiceEntry) bool {
		return !keep(e) || !tagged(e.Service, q.params["tag"]) ||
			passing && e.Checks.AggregatedStatus() != api.HealthPassing
	})
	index := a.catalog.lookup(key)
	if len(entries) > 0 && !a.acl.sees(r, "node:read", "service:read") {
		return a.partly(r, q, a.answer(q, index, entries[:0]))
	}
	return a.answer(q, index, entries)
}

// tagged reports whether the service has all of the tags.
func tagged(s *api.AgentService, tags []string) bool {
	for _, t := range tags {
		if !slices.ContainsFunc(s.Tags, func(has string) bool { return strings.EqualFold(has, t) }) {
			return false
		}
	}
	return true
}

func (a *Agent) getHealthChecks(r *http.Request) answer {
	q := parseQuery(r)
	if q.err != nil {
		return failed(q.err)
	}
	key := a.catalog.name(r.PathValue("name"))
	if err := a.block(r, q, func() uint64 { return a.catalog.lookup(key) }); err != nil {
		return failed(err)
	}
	out := api.HealthChecks{}
	entries := a.catalog.entries(key)
	if len(entries) > 0 && !a.acl.sees(r, "node:read", "service:read") {
		return a.partly(r, q, a.answer(q, a.catalog.lookup(key), out))
	}
	for _, e := range entries {
		for _, c := range e.Checks {
			if c.ServiceID != "" {
				out = append(out, c)
			}
		}
	}
	return a.answer(q, a.catalog.lookup(key), out)
}

// getHealthState answers with all checks of the catalog, those of nodes too.
func (a *Agent) getHealthState(r *http.Request) answer {
	q := parseQuery(r)
	state := r.PathValue("state")
	switch {
	case state == "":
		q.err = badRequest("Missing check state")
	case q.err == nil:
		q.err = a.block(r, q, func() uint64 { return a.catalog.allChecks })
	}
	if q.err != nil {
		return failed(q.err)
	}
	out := api.HealthChecks{}
	for _, n := range a.catalog.nodes {
		for _, c := range n.checks {
			if state == api.HealthAny || state == c.Status {
				out = append(out, c)
			}
		}
	}
	if len(out) > 0 && !a.acl.sees(r, "node:read", "service:read") {
		return a.partly(r, q, a.answer(q, a.catalog.allChecks, out[:0]))
	}
	return a.answer(q, a.catalog.allChecks, out)
}

func (a *Agent) getCatalogServices(r *http.Request) answer {
	q := parseQuery(r)
	if q.err != nil {
		return failed(q.err)
	}
	if err := a.block(r, q, func() uint64 { return a.catalog.services }); err != nil {
		return failed(err)
	}
	out := map[string][]string{}
	if !a.acl.sees(r, "service:read") {
		return a.partly(r, q, a.answer(q, a.catalog.services, out))
	}
	for _, n := range a.catalog.nodes {
		for _, s := range n.services {
			tags := append(out[s.Service], s.Tags...)
			slices.Sort(tags)
			out[s.Service] = slices.Compact(tags)
			if out[s.Service] == nil {
				out[s.Service] = []string{}
			}
		}
	}
	return a.answer(q, a.catalog.services, out)
}

func (a *Agent) getCatalogService(r *http.Request) answer {
	q := parseQuery(r)
	if q.err != nil {
		return failed(q.err)
	}
	key := a.catalog.name(r.PathValue("name"))
	if err := a.block(r, q, func() uint64 { return a.catalog.lookup(key) }); err != nil {
		return failed(err)
	}
	out := []*api.CatalogService{}
	entries := a.catalog.entries(key)
	if len(entries) > 0 && !a.acl.sees(r, "node:read", "service:read") {
		return a.partly(r, q, a.answer(q, a.catalog.lookup(key), out))
	}
	for _, e := range entries {
		if !tagged(e.Service, q.params["tag"]) {
			continue
		}
		s := e.Service
		out = append(out, &api.CatalogService{
			ID: e.Node.ID, Node: e.Node.Node, Address: e.Node.Address, Datacenter: Datacenter,
			TaggedAddresses: e.Node.TaggedAddresses, NodeMeta: e.Node.Meta,
			ServiceID: s.ID, ServiceName: s.Service, ServiceAddress: s.Address, ServicePort: s.Port,
			ServiceTaggedAddresses: s.TaggedAddresses, ServiceTags: s.Tags, ServiceMeta: s.Meta,
			ServiceWeights:           api.Weights{Passing: s.Weights.Passing, Warning: s.Weights.Warning},
			ServiceEnableTagOverride: s.EnableTagOverride, ServiceLocality: s.Locality, ServiceProxy: s.Proxy,
			CreateIndex: s.CreateIndex, ModifyIndex: s.ModifyIndex,
		})
	}
	return a.answer(q, a.catalog.lookup(key), out)
}

func (a *Agent) putCatalogRegister(r *http.Request) answer {
	var reg api.CatalogRegistration
	if err := decode(r, &reg); err != nil {
		return failed(err)
	}
	if reg.Node == "" || reg.Address == "" {
		return failed(badRequest("Must provide node and address"))
	}
	if err := a.writable(r, reg.Node); err != nil {
		return failed(err)
	}
	a.catalog.register(&reg)
	a.notify()
	return encode(true)
}

func (a *Agent) putCatalogDeregister(r *http.Request) answer {
	var reg api.CatalogDeregistration
	if err := decode(r, &reg); err != nil {
		return failed(err)
	}
	if err := a.writable(r, reg.Node); err != nil {
		return failed(err)
	}
	a.catalog.deregister(reg)
	a.notify()
	return encode(true)
}

// writable waits for a leader, and says why the catalog can't be written.
func (a *Agent) writable(r *http.Request, node string) error {
	if !a.waitUntil(r.Context(), rpcHold, func() bool { return a.leader }) {
		return &httpError{http.StatusInternalServerError, "No cluster leader"}
	}
	return a.acl.permit(r, "node:write", node)
}

func (a *Agent) getLeader(*http.Request) answer {
	if !a.leader {
		return encode("")
	}
	return encode("127.0.0.1:8300")
}
