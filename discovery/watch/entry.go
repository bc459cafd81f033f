package watch

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// maxReason bounds what is kept of a check's output, in bytes: an HTTP check's
// output holds whole pages.
const maxReason = 512

// Entries returns what an answer of Consul's about a service comes to in the catalog's
// words: each instance that can be used, with its checks, in the order of their IDs.
// prefer is Config.PreferAddresses.
func Entries(service string, answer []*api.ServiceEntry, prefer []string) []catalog.Entry {
	set, of := instancesOf(service, answer, prefer, func(catalog.Instance, *catalog.InvalidError) {})
	entries := make([]catalog.Entry, len(set))
	for n, i := range set {
		entries[n] = catalog.Entry{Instance: i, Checks: checksOf(of[n].Checks)}
	}
	slices.SortFunc(entries, func(a, b catalog.Entry) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Node, b.Node), cmp.Compare(a.Port, b.Port))
	})
	return entries
}

// checksOf returns the checks by their IDs.
func checksOf(checks api.HealthChecks) []catalog.Check {
	all := make([]catalog.Check, 0, len(checks))
	for _, c := range checks {
		if c == nil {
			continue
		}
		output := c.Output
		if stateOf(c) == catalog.StateMaintenance {
			output = c.Notes // where an operator's reason is
		}
		all = append(all, catalog.Check{ID: c.CheckID, Name: c.Name, Status: c.Status, Output: clip(output)})
	}
	slices.SortFunc(all, func(a, b catalog.Check) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// instancesOf returns the instances of the entries that can be used, each with the entry
// that it is of, and tells of the others. An instance that has moved from one agent to
// another may be there under both nodes: what was written last counts.
func instancesOf(service string, entries []*api.ServiceEntry, prefer []string, refused func(catalog.Instance, *catalog.InvalidError)) (set []catalog.Instance, of []*api.ServiceEntry) {
	set, of = make([]catalog.Instance, 0, len(entries)), make([]*api.ServiceEntry, 0, len(entries))
	at := make(map[catalog.Key]int, len(entries))
	for _, e := range entries {
		i, invalid := instanceOf(service, e, prefer)
		if invalid != nil {
			refused(i, invalid)
			continue
		}
		for i := range byPort(i, e.Service.Ports) {
			n, twice := at[i.Key()]
			switch {
			case !twice:
				at[i.Key()] = len(set)
				set, of = append(set, i), append(of, e)
			case e.Service.ModifyIndex > of[n].Service.ModifyIndex:
				set[n], of[n] = i, e
			}
		}
	}
	return set, of
}

// instanceOf makes an instance of an entry about the service, at its default port.
// prefer lists the tagged addresses that are used in place of its own, if it has
// one. The error says why it can't be used.
func instanceOf(service string, e *api.ServiceEntry, prefer []string) (catalog.Instance, *catalog.InvalidError) {
	var i catalog.Instance
	bad := func(field, problem string) (catalog.Instance, *catalog.InvalidError) {
		return i, &catalog.InvalidError{ID: i.ID, Field: field, Problem: problem}
	}
	if e == nil || e.Service == nil {
		return bad("Service", "is not there; want an entry with a service")
	}
	s := e.Service
	i = catalog.Instance{ID: s.ID, Service: s.Service, Tags: s.Tags, Meta: s.Meta}
	i.Kind = string(s.Kind) // Consul knows a list of them
	if e.Node == nil || e.Node.Node == "" {
		return bad("Node", "is not there; want an entry with a node")
	}
	i.Node = e.Node.Node
	if !strings.EqualFold(s.Service, service) { // Consul looks names up without regard to case
		return bad("Service", fmt.Sprintf("is %.80q; want %q", s.Service, service))
	}
	i.Host, i.Port = addressOf(s, e.Node, prefer)
	if place := s.Locality; place != nil {
		i.Region, i.Zone = place.Region, place.Zone
	} else if place := e.Node.Locality; place != nil {
		i.Region, i.Zone = place.Region, place.Zone
	}
	i.State, i.Reason = judge(e.Checks)
	i.Weight = s.Weights.Passing
	if i.State == catalog.StateWarning {
		i.Weight = s.Weights.Warning
	}
	if i.Weight == 0 {
		// {"Passing":10} alone makes Consul store 0 for Warning.
		i.Weight = 1
	}
	for _, p := range s.Ports {
		if p.Port < 1 || p.Port > 65535 {
			return bad("Ports", fmt.Sprintf("has %.80q at %d; want 1 to 65535", p.Name, p.Port))
		}
	}
	if err := i.Validate(); err != nil {
		invalid, ok := errors.AsType[*catalog.InvalidError](err)
		if !ok {
			return bad("Service", err.Error())
		}
		return i, invalid
	}
	return i, nil
}

// addressOf returns the first of the preferred addresses that the entry has, else its
// own. One without an address of its own has its node's.
func addressOf(s *api.AgentService, node *api.Node, prefer []string) (host string, port int) {
	host, port = cmp.Or(s.Address, node.Address), s.DefaultPort()
	for _, tag := range prefer {
		if addr := s.TaggedAddresses[tag]; addr.Address != "" {
			host, port = addr.Address, cmp.Or(addr.Port, port)
			break
		}
		if addr := node.TaggedAddresses[tag]; addr != "" && s.Address == "" {
			host = addr
			break
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		// Consul stores an address as it was written.
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			host = inner
		}
	}
	return host, port
}

// byPort yields the instance of an entry once for each protocol that a named port of
// it says, at that port and with that protocol's tag: an entry with the ports http and
// grpc is what two entries would be. What no port is named after, the default port
// speaks, as its tags say. An entry without such ports is one instance.
func byPort(i catalog.Instance, ports api.ServicePorts) iter.Seq[catalog.Instance] {
	return func(yield func(catalog.Instance) bool) {
		if len(ports) == 0 {
			yield(i)
			return
		}
		named := map[string]bool{}
		for _, p := range ports {
			if p.Name != catalog.HTTP && p.Name != catalog.GRPC || named[p.Name] {
				continue
			}
			named[p.Name] = true
			at := i
			at.Port, at.Tags = p.Port, append(without(i.Tags, catalog.HTTP, catalog.GRPC), p.Name)
			if !yield(at) {
				return
			}
		}
		byDefault := func(p api.ServicePort) bool { return p.Default && named[p.Name] }
		switch {
		case len(named) == 0:
			yield(i)
		case named[catalog.HTTP] && (named[catalog.GRPC] || !i.Speaks(catalog.GRPC)), slices.ContainsFunc(ports, byDefault):
		default:
			for protocol := range named {
				i.Tags = without(i.Tags, protocol)
			}
			yield(i)
		}
	}
}

// without returns the tags but for some.
func without(tags []string, some ...string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return slices.Contains(some, tag) })
}

// judge returns the worst of the checks, and its output unless it passes. Of
// checks that are equally bad the one with the least ID speaks, since Consul
// gives them in no order.
func judge(checks api.HealthChecks) (catalog.State, string) {
	state, speaker, reason := catalog.StatePassing, "", ""
	for _, c := range checks {
		if c == nil {
			continue
		}
		s := stateOf(c)
		if s < state || s == catalog.StatePassing || s == state && speaker <= c.CheckID {
			continue
		}
		state, speaker, reason = s, c.CheckID, c.Output
		if s == catalog.StateMaintenance {
			reason = c.Notes // where an operator's reason is
		}
	}
	return state, clip(reason)
}

func stateOf(c *api.HealthCheck) catalog.State {
	switch {
	case c.CheckID == api.NodeMaint, strings.HasPrefix(c.CheckID, api.ServiceMaintPrefix):
		return catalog.StateMaintenance
	case c.Status == api.HealthPassing:
		return catalog.StatePassing
	case c.Status == api.HealthWarning:
		return catalog.StateWarning
	case strings.HasSuffix(c.CheckID, ":rollcall") && strings.HasPrefix(c.Output, "draining"):
		// Our own TTL check, and our own words: Consul's "TTL expired" is
		// plain critical.
		return catalog.StateDraining
	}
	return catalog.StateCritical
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxReason {
		return s
	}
	cut := maxReason
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
