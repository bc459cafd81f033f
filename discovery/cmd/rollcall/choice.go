package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// selecting are the flags that say which instances a client asks, as discovery.Config's
// Select does.
type selecting struct {
	Tag         []string          `sep:"none" placeholder:"TAG" help:"Only instances with this tag; may be given several times."`
	NotTag      []string          `sep:"none" placeholder:"TAG" help:"Only instances without this tag; may be given several times."`
	Meta        map[string]string `mapsep:"none" placeholder:"KEY=VALUE" help:"Only instances with this value in their Meta; may be given several times."`
	PassingOnly bool              `help:"Only instances all of whose checks pass."`
	TLS         bool              `name:"tls" help:"As an https URL: the instances that speak TLS. Without it: those that don't."`
}

// selection returns what the flags select, of the instances that speak the protocol.
func (f selecting) selection(protocol string) (catalog.Selection, error) {
	s := catalog.Selection{Protocol: protocol, Tags: f.Tag, NotTags: f.NotTag, Meta: f.Meta, PassingOnly: f.PassingOnly}
	if err := s.Validate(); err != nil {
		return s, &exitError{exitUsage, err}
	}
	return s, nil
}

// The tiers of a choice. A better one goes before any load and any latency.
const (
	tierNever  = 0
	tierFirst  = 1 // a request goes to one of these
	tierInNeed = 2 // to one of these once each of the first has failed it
)

// use is whether and when an instance is asked.
type use struct {
	instance
	Tier  int     `json:"tier"`            // 0: never
	Share float64 `json:"share,omitempty"` // of the first tier's weight
	Why   string  `json:"why"`
}

// choice is what a client makes of a service's instances before it has asked any: what
// it learns from its own requests goes before that.
type choice struct {
	Service string    `json:"service"`
	At      time.Time `json:"at"`
	Panic   bool      `json:"panic"` // no instance is ready: critical ones are the first
	Uses    []use     `json:"instances"`
}

// choose sorts the instances as package balancer does: those that are ready, then the
// critical ones; those that are draining or in maintenance never. The best come first.
func choose(set *catalog.Snapshot, selection catalog.Selection, tls bool) choice {
	c := choice{Service: set.Service(), At: time.Now(), Uses: make([]use, 0, set.Len())}
	ready := 0
	why := map[catalog.Key]string{} // of those that are deselected
	for i := range set.All() {
		if why[i.Key()] = deselected(selection, tls, i); why[i.Key()] == "" && i.State.Ready() {
			ready++
		}
	}
	total := 0
	for i := range set.All() {
		u := use{instance: instanceOf(i), Why: why[i.Key()]}
		if u.Why == "" {
			u.Tier, u.Why = judge(i, ready)
		}
		if u.Tier == tierFirst {
			total += i.Weight
			c.Panic = c.Panic || i.State == catalog.StateCritical
		}
		c.Uses = append(c.Uses, u)
	}
	for n := range c.Uses {
		if u := &c.Uses[n]; u.Tier == tierFirst {
			u.Share = float64(u.Weight) / float64(total)
		}
	}
	last := func(tier int) int { return (tier + 2) % 3 } // never comes last
	slices.SortStableFunc(c.Uses, func(a, b use) int { return last(a.Tier) - last(b.Tier) })
	return c
}

// judge says when an instance is asked that is selected, beside so many ready ones.
func judge(i catalog.Instance, ready int) (tier int, why string) {
	switch i.State {
	case catalog.StatePassing:
		tier, why = tierFirst, "its checks pass"
	case catalog.StateWarning:
		tier, why = tierFirst, "a check warns"
	case catalog.StateCritical:
		tier, why = tierInNeed, "if tier 1 fails"
		if ready == 0 {
			tier, why = tierFirst, "none is ready"
		}
	case catalog.StateDraining:
		tier, why = tierNever, "it is leaving"
	case catalog.StateMaintenance:
		tier, why = tierNever, "taken out by hand"
	default:
		tier, why = tierNever, "its state is not known"
	}
	return tier, why
}

// deselected says why a client does not even consider an instance; empty if it does.
func deselected(s catalog.Selection, tls bool, i catalog.Instance) string {
	switch {
	case i.Kind != s.Kind:
		return "is a " + i.Kind
	case s.Protocol != "" && !i.Speaks(s.Protocol):
		return "speaks " + i.Protocol()
	case tls && !i.TLS():
		return "speaks no TLS"
	case !tls && i.TLS():
		return "speaks TLS (--tls)"
	case s.PassingOnly && i.State != catalog.StatePassing:
		return "does not pass"
	}
	for _, tag := range s.Tags {
		if !slices.Contains(i.Tags, tag) {
			return "lacks tag " + tag
		}
	}
	for _, tag := range s.NotTags {
		if slices.Contains(i.Tags, tag) {
			return "has tag " + tag
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Meta)) {
		if got := i.Meta[key]; got != s.Meta[key] {
			return fmt.Sprintf("Meta %s is %q", key, got)
		}
	}
	if !s.Selects(i) {
		return "not selected"
	}
	return ""
}

// count returns how many instances are in a tier.
func (c choice) count(tier int) (n int) {
	for _, u := range c.Uses {
		if u.Tier == tier {
			n++
		}
	}
	return n
}

// summary is the choice in a sentence.
func (c choice) summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d instances are asked", c.Service, c.count(tierFirst), len(c.Uses))
	if n := c.count(tierInNeed); n > 0 {
		fmt.Fprintf(&b, ", %d in need", n)
	}
	if n := c.count(tierNever); n > 0 {
		fmt.Fprintf(&b, ", %d never", n)
	}
	if c.Panic {
		b.WriteString("; none is ready, so critical ones are used (panic)")
	}
	return b.String()
}
