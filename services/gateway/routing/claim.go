package routing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/internal/clip"
)

const (
	// Tag marks an instance whose Meta claims routes.
	Tag = "rollcall-route"
	// MetaKey is where they stand. Consul bounds a value to 512 bytes: more are
	// under keys that begin with it and a dash, such as rollcall-routes-2.
	MetaKey = "rollcall-routes"

	// maxClaims bounds the routes of one service.
	maxClaims = 50
)

// Refusal is a claim that does not count, and why.
type Refusal struct {
	Service string `json:"service"`
	Claim   string `json:"claim"` // as it stands in the catalog; empty: it is about the service
	Why     string `json:"why"`
}

func refuse(service, claim, why string, args ...any) Refusal {
	return Refusal{Service: service, Claim: clip.To(80, claim), Why: fmt.Sprintf(why, args...)}
}

// claims are what the instances of a service claim.
type claims struct {
	routes  []Route // by key
	refused []Refusal
	marked  bool // an instance has the tag
	any     bool // there is an instance
}

// claimsOf takes what any marked instance claims, whatever its state: in a roll-out the
// old ones and the new ones claim different things. Of two that say different things of
// the same route that one counts whose ID sorts first.
func claimsOf(s *catalog.Snapshot) claims {
	var c claims
	seen := map[string]Route{}
	told := map[Refusal]bool{}
	no := func(claim, why string, args ...any) {
		r := refuse(s.Service(), claim, why, args...)
		if !told[r] && len(told) < maxClaims {
			told[r] = true
			c.refused = append(c.refused, r)
		}
	}
	for i := range s.All() {
		c.any = true
		if !slices.Contains(i.Tags, Tag) {
			continue
		}
		c.marked = true
		texts := ParseClaims(i)
		if len(texts) == 0 {
			no("", "instance %s has the tag %s and no routes; want some in Meta %s", clip.To(80, i.ID), Tag, MetaKey)
		}
		for _, text := range texts {
			r, err := ParseRoute(text, s.Service())
			before, ok := seen[r.Key()]
			switch {
			case err != nil:
				no(text, "%v", err)
			case ok && before != r:
				no(text, "instance %s wants the path to go on in another way than an instance whose ID sorts before it", clip.To(80, i.ID))
			case ok:
			case len(seen) >= maxClaims:
				no(text, "it is one too many; want at most %d of a service", maxClaims)
			default:
				seen[r.Key()] = r
				c.routes = append(c.routes, r)
			}
		}
	}
	slices.SortFunc(c.routes, func(a, b Route) int { return strings.Compare(a.Key(), b.Key()) })
	return c
}

// ParseClaims returns the routes that an instance's Meta names, as text for ParseRoute:
// in MetaKey and the keys beside it, separated by commas.
func ParseClaims(i catalog.Instance) []string {
	var keys []string
	for key := range i.Meta {
		if key == MetaKey || strings.HasPrefix(key, MetaKey+"-") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	var texts []string
	for _, key := range keys {
		for text := range strings.SplitSeq(i.Meta[key], ",") {
			if text = strings.TrimSpace(text); text != "" {
				texts = append(texts, text)
			}
		}
	}
	return texts
}
