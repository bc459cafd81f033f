package balancer

import (
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Preference says which instances a request would rather have: those of a version, say.
// It gets another one only when none of them is in use, or each has failed it. Health
// and load are those of all requests. Use Prefer, and keep it: the instances are sorted
// by it once for each set, not for each request.
type Preference struct {
	matches func(catalog.Instance) bool
}

// Prefer returns a Preference for the instances that match. matches must always say the
// same of the same entry.
func Prefer(matches func(catalog.Instance) bool) *Preference { return &Preference{matches} }

// part is what a preference leaves of a set.
type part struct {
	of   *Preference
	set  *set
	next *part
}

// part returns those of the endpoints in use that are preferred.
func (s *set) part(p *Preference) *set {
	first := s.parts.Load()
	if found := first.find(p); found != nil {
		return found
	}
	made := &part{of: p, set: &set{snapshot: s.snapshot, clock: s.clock, base: s.base}, next: first}
	for _, e := range s.all[:s.use] {
		if p.matches(e.Instance()) {
			made.set.all = append(made.set.all, e)
		}
	}
	made.set.use = len(made.set.all)
	made.set.weigh()
	for !s.parts.CompareAndSwap(first, made) {
		if first = s.parts.Load(); first.find(p) != nil {
			return first.find(p)
		}
		made.next = first
	}
	return made.set
}

func (v *part) find(p *Preference) *set {
	for ; v != nil; v = v.next {
		if v.of == p {
			return v.set
		}
	}
	return nil
}

// preferred picks one of those that the request would rather have; nil if none of them
// is in use or left, so that any other goes before them.
func (b *Balancer) preferred(s *set, q Request) *Endpoint {
	if q.Prefer == nil {
		return nil
	}
	t := Tier{set: s.part(q.Prefer)}
	if t.set.use == 0 {
		return nil
	}
	for ; t.rank < rankOut; t.rank++ {
		if e := b.policy.Pick(t, q); e != nil {
			return e
		}
	}
	return nil
}
