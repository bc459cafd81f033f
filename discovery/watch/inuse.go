package watch

import (
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// inUse is the set that readers have.
type inUse struct {
	service string
	feed    *catalog.Feed
	cfg     *Config
	set     []catalog.Instance   // as published, sorted
	shown   map[catalog.Key]bool // which of it filtered answers have shown; nil: the last answer was whole
	refused map[string]string    // what is wrong with the entries that can't be used, by node and ID
}

// known reports whether there is a set at all.
func (u *inUse) known() bool { return u.feed.Current() != nil }

// convert returns the entries that can be used, and tells of the others.
func (u *inUse) convert(a answer) []catalog.Instance {
	var refused map[string]string
	set, _ := instancesOf(u.service, a.entries, u.cfg.PreferAddresses, func(i catalog.Instance, invalid *catalog.InvalidError) {
		if refused == nil {
			refused = map[string]string{}
		}
		name, problem := i.Node+"/"+i.ID, invalid.Error()
		if refused[name] != problem && u.refused[name] != problem {
			u.cfg.Trace.refused(u.service, invalid)
		}
		refused[name] = problem
	})
	u.refused = refused
	return set
}

// loses reports whether the answer lacks an instance that was there so far.
func (u *inUse) loses(answer []catalog.Instance) bool {
	return slices.ContainsFunc(absent(u.set, answer), func(i catalog.Instance) bool { return !i.Missing() })
}

// deselect takes those out of the set that Consul has and its filter keeps out.
func (u *inUse) deselect(filtered, all []*api.ServiceEntry, now time.Time) (news bool) {
	kept, there := u.keysOf(filtered), u.keysOf(all)
	return u.publish(slices.DeleteFunc(slices.Clone(u.set), func(i catalog.Instance) bool {
		return there[i.Key()] && !kept[i.Key()]
	}), now)
}

func (u *inUse) keysOf(entries []*api.ServiceEntry) map[catalog.Key]bool {
	keys := make(map[catalog.Key]bool, len(entries))
	for _, e := range entries {
		i, invalid := instanceOf(u.service, e, u.cfg.PreferAddresses)
		if invalid != nil {
			continue
		}
		for i := range byPort(i, e.Service.Ports) {
			keys[i.Key()] = true
		}
	}
	return keys
}

// follow makes what follows upon the set, when Consul answered with these
// instances, the one in use.
func (u *inUse) follow(answer []catalog.Instance, r rule) (news bool) {
	after, vanished := succeed(u.set, answer, r)
	u.shown = nil
	return u.replace(after, vanished, r.now)
}

// followPart is follow when Consul showed only a part of its own.
func (u *inUse) followPart(part []catalog.Instance, r rule) (news bool) {
	after, vanished := succeedPart(u.set, part, u.shown, r)
	if u.shown == nil {
		u.shown = map[catalog.Key]bool{}
	}
	maps.Copy(u.shown, keys(part))
	kept := keys(after)
	maps.DeleteFunc(u.shown, func(key catalog.Key, _ bool) bool { return !kept[key] })
	return u.replace(after, vanished, r.now)
}

func (u *inUse) replace(set, vanished []catalog.Instance, now time.Time) (news bool) {
	news = u.publish(set, now)
	for _, i := range vanished {
		u.cfg.Trace.missing(u.service, i)
	}
	return news
}

// begin makes a set from disk the first one in use.
func (u *inUse) begin(set []catalog.Instance, since time.Time) {
	u.set = set
	u.feed.Publish(slices.Clone(set), since)
	u.cfg.Trace.changed(u.feed.Current())
}

// publish makes the set, which must be sorted, the one in use, if it differs
// from that, and reports whether it does.
func (u *inUse) publish(set []catalog.Instance, now time.Time) (news bool) {
	if u.known() && slices.EqualFunc(u.set, set, equal) {
		return false
	}
	last := u.set
	u.set = set
	u.feed.Publish(slices.Clone(set), now)
	u.cfg.Trace.changed(u.feed.Current())
	u.tellMissing(last, now)
	return true
}

// again makes the readers ask again: the set is the same, what is known of it is
// not.
func (u *inUse) again() { u.feed.Publish(slices.Clone(u.set), u.feed.Current().At()) }

// extended returns the set with the full time anew for missing instances that
// have no more than that left.
func (u *inUse) extended(now time.Time, left time.Duration) []catalog.Instance {
	set := slices.Clone(u.set)
	for n := range set {
		if set[n].Missing() && set[n].MissingUntil.Sub(now) <= left {
			set[n].MissingUntil = now.Add(u.cfg.MissingFor)
		}
	}
	return set
}
