package consultest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"
)

// The two endpoints that ask about one node. A query is woken by what happens
// on that node only. The index told is that of the node for its services, so
// it moves when the query is woken and only then; for its checks it is that of
// the last write to any check in the catalog, so a query that begins with the
// index of the last answer may be answered at once although nothing happened
// on the node. (A real Consul's query for checks may also be woken by another
// node that comes or goes; that depends on the two names.)

// nodeIndex is what a query about a node goes by.
type nodeIndex struct {
	wipes int    // of the catalog
	wake  uint64 // changes with what the query asks about
	told  uint64
}

// blockOn waits, as a blocking query about a node does, and returns the index
// to tell. The caller holds mu.
func (a *Agent) blockOn(r *http.Request, q query, look func() nodeIndex) (uint64, error) {
	if err := a.readable(r, q); err != nil {
		return 0, err
	}
	last := look()
	if q.index == 0 || last.told > q.index {
		return last.told, nil
	}
	a.hold(r, a.jittered(q.wait), func() bool {
		// Consul looks at the index when it is woken, and tells the one that
		// it saw then: what moves it otherwise is not noticed.
		if now := look(); now.wipes != last.wipes || now.wake != last.wake {
			last = now
		}
		return last.told > q.index
	})
	return last.told, a.revoked(r, q, last.told > q.index)
}

var nodeServiceFields = map[string]func(*api.AgentService) string{
	"ID":      func(s *api.AgentService) string { return s.ID },
	"Service": func(s *api.AgentService) string { return s.Service },
	"Address": func(s *api.AgentService) string { return s.Address },
}

func metaOf(s *api.AgentService) map[string]string { return s.Meta }

// nodeServices is the answer about the services of a node; both are null for
// one that is not known.
type nodeServices struct {
	Node     *api.Node
	Services []*api.AgentService
}

func (a *Agent) getNodeServices(r *http.Request) answer {
	name := r.PathValue("node")
	q := parseQuery(r)
	keep, err := nodeFilter(name, q, nodeServiceFields, metaOf)
	if err != nil {
		return failed(err)
	}
	index, err := a.blockOn(r, q, func() nodeIndex {
		i := nodeIndex{wipes: a.catalog.wipes, told: a.catalog.nodeGone}
		if n := a.catalog.nodes[name]; n != nil {
			i.wake, i.told = n.touched, n.touched
		}
		return i
	})
	if err != nil {
		return failed(err)
	}
	var out nodeServices
	if q.params.Get("filter") != "" {
		out.Services = []*api.AgentService{} // as in Consul, where null means unfiltered
	}
	n := a.catalog.nodes[name]
	hidden := n != nil && !a.acl.sees(r, "node:read")
	if n != nil && !hidden {
		node := n.Node
		out.Node = &node
		hidden = len(n.services) > 0 && !a.acl.sees(r, "service:read")
	}
	if n != nil && !hidden {
		for _, s := range n.services {
			if keep(s) {
				v := *s
				v.Proxy, v.Connect = &api.AgentServiceConnectProxyConfig{}, &api.AgentServiceConnect{}
				out.Services = append(out.Services, &v)
			}
		}
		slices.SortFunc(out.Services, func(a, b *api.AgentService) int { return strings.Compare(a.ID, b.ID) })
	}
	ans := a.answer(q, index, out)
	if hidden {
		return a.partly(r, q, ans)
	}
	return ans
}

var nodeCheckFields = map[string]func(*api.HealthCheck) string{
	"CheckID":     func(c *api.HealthCheck) string { return c.CheckID },
	"ServiceID":   func(c *api.HealthCheck) string { return c.ServiceID },
	"ServiceName": func(c *api.HealthCheck) string { return c.ServiceName },
	"Status":      func(c *api.HealthCheck) string { return c.Status },
	"Notes":       func(c *api.HealthCheck) string { return c.Notes },
}

func (a *Agent) getNodeChecks(r *http.Request) answer {
	name := r.PathValue("node")
	q := parseQuery(r)
	keep, err := nodeFilter(name, q, nodeCheckFields)
	if err != nil {
		return failed(err)
	}
	index, err := a.blockOn(r, q, func() nodeIndex {
		i := nodeIndex{wipes: a.catalog.wipes, told: a.catalog.allChecks}
		if n := a.catalog.nodes[name]; n != nil {
			i.wake = n.checksTouched
		}
		return i
	})
	if err != nil {
		return failed(err)
	}
	out, hidden := api.HealthChecks{}, false
	if n := a.catalog.nodes[name]; n != nil {
		for _, c := range n.checks {
			switch {
			case !a.acl.sees(r, "node:read"), c.ServiceID != "" && !a.acl.sees(r, "service:read"):
				hidden = true
			case keep(c):
				out = append(out, c)
			}
		}
	}
	slices.SortFunc(out, func(a, b *api.HealthCheck) int { return strings.Compare(a.CheckID, b.CheckID) })
	ans := a.answer(q, index, out)
	if hidden {
		return a.partly(r, q, ans)
	}
	return ans
}

// nodeFilter returns the test of the filter, or what is wrong with the query.
func nodeFilter[T any](name string, q query, fields map[string]func(T) string, maps ...func(T) map[string]string) (func(T) bool, error) {
	if name == "" {
		return nil, badRequest("Missing node name")
	}
	if q.err != nil {
		return nil, q.err
	}
	return filter(q.params.Get("filter"), fields, maps...)
}
