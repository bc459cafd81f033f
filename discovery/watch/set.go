package watch

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// rule says how instances that vanished are judged.
type rule struct {
	now time.Time
	// grace is how long one that vanished in good health is kept; negative means
	// not at all.
	grace time.Duration
	// final is set if the answer can end the time of a missing instance. A streamed
	// one can't: it does not say that it was filtered.
	final bool
}

// succeed returns the set that follows upon last when Consul answered with
// these instances, and which have only now gone missing. Each instance
// that vanished is judged alone:
//
//   - last seen passing or warning, it stays, marked missing, for the rule's grace;
//   - last seen critical, it goes, unless nothing else would be left to use;
//   - last seen draining or in maintenance, it goes;
//   - it goes when the answer has its ID or its address again, for then it is
//     void: what was there is here now, or was replaced.
func succeed(last, answer []catalog.Instance, r rule) (next, vanished []catalog.Instance) {
	next = slices.Clone(answer)
	var spare []catalog.Instance
	for _, i := range absent(last, answer) {
		if !i.Missing() {
			if r.grace < 0 {
				continue
			}
			i.MissingUntil = r.now.Add(r.grace)
			vanished = append(vanished, i)
		} else if r.final && !r.now.Before(i.MissingUntil) {
			continue
		}
		switch {
		case i.State.Ready():
			next = append(next, i)
		case i.State == catalog.StateCritical:
			spare = append(spare, i)
		}
	}
	if !slices.ContainsFunc(next, usable) {
		next = append(next, spare...)
	}
	kept := keys(next)
	vanished = slices.DeleteFunc(vanished, func(i catalog.Instance) bool { return !kept[i.Key()] })
	sortSet(next)
	return next, vanished
}

// succeedPart is succeed when Consul showed only a part of its own, for want of
// rights. What such answers have shown before is ours to see: if it is not in this
// one, it vanished, and is judged as ever. What none of them has shown may be
// hidden, and stays. So the set is never larger than what was in use when the
// filtering began, what is shown, and what is missing.
func succeedPart(last, part []catalog.Instance, shown map[catalog.Key]bool, r rule) (next, vanished []catalog.Instance) {
	var seen, hidden []catalog.Instance
	for _, i := range absent(last, part) {
		if shown[i.Key()] {
			seen = append(seen, i)
		} else {
			hidden = append(hidden, i)
		}
	}
	next, vanished = succeed(seen, part, r)
	next = append(next, hidden...)
	sortSet(next)
	return next, vanished
}

// absent returns the instances of last that the answer neither has nor makes void.
func absent(last, answer []catalog.Instance) []catalog.Instance {
	type name struct{ id, node string }
	names := make(map[name]bool, len(answer))
	addresses := make(map[string]bool, len(answer))
	for _, i := range answer {
		names[name{i.ID, i.Node}] = true
		addresses[i.Addr()] = true
	}
	var out []catalog.Instance
	for _, i := range last {
		if !names[name{i.ID, i.Node}] && !addresses[i.Addr()] {
			out = append(out, i)
		}
	}
	return out
}

// unexpired returns the set without the missing whose time is over.
func unexpired(set []catalog.Instance, now time.Time) []catalog.Instance {
	return slices.DeleteFunc(slices.Clone(set), func(i catalog.Instance) bool {
		return i.Missing() && !now.Before(i.MissingUntil)
	})
}

func usable(i catalog.Instance) bool {
	return i.State.Ready() || i.State == catalog.StateCritical
}

func keys(set []catalog.Instance) map[catalog.Key]bool {
	out := make(map[catalog.Key]bool, len(set))
	for _, i := range set {
		out[i.Key()] = true
	}
	return out
}

func sortSet(set []catalog.Instance) {
	slices.SortFunc(set, func(a, b catalog.Instance) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Node, b.Node), strings.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
}

func equal(a, b catalog.Instance) bool {
	return a.Key() == b.Key() && a.Service == b.Service && a.Kind == b.Kind && a.State == b.State && a.Reason == b.Reason &&
		a.Weight == b.Weight && a.Region == b.Region && a.Zone == b.Zone && a.MissingUntil.Equal(b.MissingUntil) &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Meta, b.Meta)
}
