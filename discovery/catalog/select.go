package catalog

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Selection says which of a service's instances a client asks. The zero value
// selects all but proxies and gateways.
type Selection struct {
	// Kind is that of an instance, see Instance.Kind. Empty means the service's own
	// instances, and no proxy or gateway.
	Kind string
	// Protocol is HTTP or GRPC: only instances that speak it; see
	// Instance.Speaks. Empty means any.
	Protocol string
	// Tags are tags that an instance must have, all of them.
	Tags []string
	// NotTags are tags of which an instance must have none.
	NotTags []string
	// Meta are keys that an instance must have with these values. An empty value
	// is that of a key which is absent as well.
	Meta map[string]string
	// PassingOnly leaves out what warns and what is critical. A service none of
	// whose instances passes then has none: there is no panic mode. False means
	// any state.
	PassingOnly bool
}

// Validate says what is wrong with a selection: nil if it can be used.
func (s Selection) Validate() error {
	bad := func(field, format string, args ...any) error {
		return fmt.Errorf("the selection's %s %s", field, fmt.Sprintf(format, args...))
	}
	if s.Protocol != "" && s.Protocol != HTTP && s.Protocol != GRPC {
		return bad("Protocol", "is %q; want %q, %q or none", s.Protocol, HTTP, GRPC)
	}
	for _, list := range []struct {
		field string
		tags  []string
	}{{"Tags", s.Tags}, {"NotTags", s.NotTags}} {
		if slices.Contains(list.tags, "") {
			return bad(list.field, "has an empty tag; want tags as registered")
		}
	}
	for _, tag := range s.Tags {
		if slices.Contains(s.NotTags, tag) {
			return bad("NotTags", "has %q, which is in Tags too; want it in one of them", tag)
		}
	}
	if _, ok := s.Meta[""]; ok {
		return bad("Meta", "has an empty key; want keys as registered")
	}
	return nil
}

// Selects reports whether the instance is one of the selection.
func (s Selection) Selects(i Instance) bool {
	if i.Kind != s.Kind || s.Protocol != "" && !i.Speaks(s.Protocol) || s.PassingOnly && i.State != StatePassing {
		return false
	}
	for _, tag := range s.Tags {
		if !slices.Contains(i.Tags, tag) {
			return false
		}
	}
	for _, tag := range s.NotTags {
		if slices.Contains(i.Tags, tag) {
			return false
		}
	}
	for key, value := range s.Meta {
		if i.Meta[key] != value {
			return false
		}
	}
	return true
}

// Select returns a Source with what the selection leaves of another's
// instances. It watches nothing itself: each snapshot of the other Source is
// sorted once, when it is first asked for, and what is deselected has left with
// that snapshot, at once and never as missing. So any number of selections cost
// the registry what one client does. What is selected is kept with the snapshot:
// make a selection once, not for each request.
func Select(source Source, s Selection) Source {
	return SelectBy(source, func(string) Selection { return s })
}

// SelectBy is Select with a selection for each service. by must always say the
// same of the same name; it is called once for each snapshot.
func SelectBy(source Source, by func(service string) Selection) Source {
	return &selected{source: source, by: by}
}

type selected struct {
	source Source
	by     func(service string) Selection
}

// Latest costs a look at a short list, besides the other Source's.
func (s *selected) Latest(ctx context.Context, service string) (*Snapshot, error) {
	whole, err := s.source.Latest(ctx, service)
	if err != nil {
		return nil, err
	}
	return s.of(whole), nil
}

func (s *selected) KeepAlive(service string) { s.source.KeepAlive(service) }

// view is what one selection makes of a snapshot; it is the snapshot's origin.
type view struct {
	by    *selected
	whole *Snapshot
	made  *Snapshot
	next  *view // of another selection
}

// of returns what is selected of a snapshot: always the same for the same one.
func (s *selected) of(whole *Snapshot) *Snapshot {
	first := whole.views.Load()
	for v := first; v != nil; v = v.next {
		if v.by == s {
			return v.made
		}
	}
	made := &view{by: s, whole: whole, next: first}
	made.made = made.sort()
	for !whole.views.CompareAndSwap(first, made) {
		first = whole.views.Load()
		for v := first; v != nil; v = v.next {
			if v.by == s {
				return v.made
			}
		}
		made.next = first
	}
	return made.made
}

// sort makes a snapshot of the instances that are selected.
func (v *view) sort() *Snapshot {
	instances, keep := v.whole.instances, v.by.by(v.whole.service)
	out := func(i Instance) bool { return !keep.Selects(i) }
	if slices.ContainsFunc(instances, out) {
		instances = slices.DeleteFunc(slices.Clone(instances), out)
	}
	return &Snapshot{
		service: v.whole.service, instances: instances, at: v.whole.at, superseded: v.whole.superseded,
		origin: v, deselected: v.whole.deselected + len(v.whole.instances) - len(instances),
	}
}

func (v *view) newest(string) *Snapshot {
	whole := v.whole.Newest()
	if whole == nil {
		return nil
	}
	return v.by.of(whole)
}

func (v *view) freshness() (time.Time, error) { return v.whole.Freshness() }
