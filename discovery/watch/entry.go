package watch

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// maxReason bounds what is kept of a check's output, in bytes: an HTTP check's
// output holds whole pages.
const maxReason = 512

// instanceOf makes an instance of an entry about the service; far tells that it
// is in another datacenter. The error says why it can't be used.
func instanceOf(service string, far bool, e *api.ServiceEntry) (catalog.Instance, *catalog.InvalidError) {
	var i catalog.Instance
	bad := func(field, problem string) (catalog.Instance, *catalog.InvalidError) {
		return i, &catalog.InvalidError{ID: i.ID, Field: field, Problem: problem}
	}
	if e == nil || e.Service == nil {
		return bad("Service", "is not there; want an entry with a service")
	}
	s := e.Service
	i = catalog.Instance{ID: s.ID, Service: s.Service, Host: s.Address, Port: s.DefaultPort(), Tags: s.Tags, Meta: s.Meta}
	i.Kind = string(s.Kind) // Consul knows a list of them
	if e.Node == nil || e.Node.Node == "" {
		return bad("Node", "is not there; want an entry with a node")
	}
	i.Node = e.Node.Node
	if !strings.EqualFold(s.Service, service) { // Consul looks names up without regard to case
		return bad("Service", fmt.Sprintf("is %.80q; want %q", s.Service, service))
	}
	if far {
		toWAN(&i, e)
	}
	if i.Host == "" {
		i.Host = e.Node.Address
	}
	if inner, ok := strings.CutPrefix(i.Host, "["); ok {
		// Consul stores an address as it was written.
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			i.Host = inner
		}
	}
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
	if err := i.Validate(); err != nil {
		invalid, ok := errors.AsType[*catalog.InvalidError](err)
		if !ok {
			return bad("Service", err.Error())
		}
		return i, invalid
	}
	return i, nil
}

// toWAN gives the instance the address by which other datacenters reach it: its
// own, or where it has none that of its node
// (https://developer.hashicorp.com/consul/docs/reference/agent/configuration-file/general#translate_wan_addrs).
func toWAN(i *catalog.Instance, e *api.ServiceEntry) {
	if wan, ok := e.Service.TaggedAddresses["wan"]; ok && wan.Address != "" {
		i.Host = wan.Address
		if wan.Port != 0 {
			i.Port = wan.Port
		}
		return
	}
	if wan := e.Node.TaggedAddresses["wan"]; i.Host == "" && wan != "" {
		i.Host = wan
	}
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
