// Package split says which instances of a service a request at the gateway would rather
// have: a percentage of the requests, those with a header, or those whose cookie falls
// into a share go to version=v2, the others to what is left.
//
// The rules are one document in Consul's KV, see [Parse]. [Follower] keeps the last one
// that can be read. A request whose instances are away, or fail it, gets another one.
package split

import (
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Rule sends some requests for a service to some of its instances.
type Rule struct {
	// To are the instances with this in their Meta, or as a tag: version=v2.
	// Required.
	To string `json:"to"`
	// Header that a request must have for the rule to be its own: Name, or
	// Name=value. Empty means any request.
	Header string `json:"header,omitempty"`
	// Percent of these requests. 0 means all of them, if there is a Header.
	Percent float64 `json:"percent,omitempty"`
	// Sticky is what decides whether a request is of the percentage: cookie:NAME
	// or header:NAME, whose value always falls the same way. Empty, and for a
	// request without it, means chance.
	Sticky string `json:"sticky,omitempty"`

	prefer *balancer.Preference
}

// Splits are the rules by service. They never change, but count. nil are none.
type Splits struct {
	Services map[string][]Rule

	rest    map[string]*balancer.Preference // the instances that are no rule's
	steered map[fallen]*atomic.Uint64       // how many requests; for each rule, and for the rest
}

// fallen says which rule of a service requests fell under: its To, or rest.
type fallen struct{ service, rule string }

// rest stands for no rule of a service that has some.
const rest = "rest"

// Steer returns the instances that a request for the service would rather have: those of
// the first rule that it falls under, else those of no rule; nil for a service without
// rules. It counts the request.
func (s *Splits) Steer(service string, r *http.Request) *balancer.Preference {
	if s == nil {
		return nil
	}
	under, prefer := rest, s.rest[service]
	for _, rule := range s.Services[service] {
		if rule.applies(service, r) {
			under, prefer = rule.To, rule.prefer
			break
		}
	}
	if n := s.steered[fallen{service, under}]; n != nil {
		n.Add(1)
	}
	return prefer
}

func (r Rule) applies(service string, req *http.Request) bool {
	if r.Header != "" {
		name, value, valued := strings.Cut(r.Header, "=")
		values := req.Header.Values(name)
		if len(values) == 0 || valued && !slices.Contains(values, value) {
			return false
		}
	}
	if r.Percent == 0 {
		return true
	}
	return r.draw(service, req)*100 < r.Percent
}

// draw returns where in [0, 1) the request falls. Each rule draws anew: what falls low
// for one is spread over all for the next.
func (r Rule) draw(service string, req *http.Request) float64 {
	value := ""
	switch kind, name, _ := strings.Cut(r.Sticky, ":"); kind {
	case "cookie":
		if c, err := req.Cookie(name); err == nil {
			value = c.Value
		}
	case "header":
		value = req.Header.Get(name)
	}
	if value == "" {
		return rand.Float64()
	}
	h := fnv.New64a()
	for _, part := range [...]string{service, "\x00", r.To, "\x00", value} {
		_, _ = h.Write([]byte(part)) // it never fails
	}
	return float64(mix(h.Sum64())>>11) / (1 << 53)
}

// mix spreads what differs in the last bytes only over all bits (the finaliser of
// MurmurHash3), since FNV does not for short text.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// sort makes the preferences of the rules, and their counts.
func (s *Splits) sort() {
	s.rest, s.steered = map[string]*balancer.Preference{}, map[fallen]*atomic.Uint64{}
	for service, rules := range s.Services {
		s.steered[fallen{service, rest}] = new(atomic.Uint64)
		byTo := map[string]*balancer.Preference{}
		for n, rule := range rules {
			if byTo[rule.To] == nil {
				byTo[rule.To] = balancer.Prefer(func(i catalog.Instance) bool { return is(i, rule.To) })
			}
			rules[n].prefer = byTo[rule.To]
			s.steered[fallen{service, rule.To}] = new(atomic.Uint64)
		}
		s.rest[service] = balancer.Prefer(func(i catalog.Instance) bool {
			return !slices.ContainsFunc(rules, func(r Rule) bool { return is(i, r.To) })
		})
	}
}

// inherit goes on with the counts of those rules that were there before.
func (s *Splits) inherit(before *Splits) {
	if before == nil {
		return
	}
	for under := range s.steered {
		if n := before.steered[under]; n != nil {
			s.steered[under] = n
		}
	}
}

// is reports whether an instance has a thing such as version=v2.
func is(i catalog.Instance, what string) bool {
	key, value, _ := strings.Cut(what, "=")
	if has, ok := i.Meta[key]; ok && has == value {
		return true
	}
	return slices.Contains(i.Tags, what)
}
