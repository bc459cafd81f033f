package meshview

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// maxEvents is how many events are kept.
const maxEvents = 1000

// timeline is what happened lately.
type timeline struct {
	mu   sync.Mutex // guards what follows
	last uint64
	all  []Event // the latest, oldest first
}

// add gives the events their numbers, and forgets the oldest ones.
func (t *timeline) add(events []Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		t.last++
		e.Seq = t.last
		t.all = append(t.all, e)
	}
	if over := len(t.all) - maxEvents; over > 0 {
		t.all = slices.Delete(t.all, 0, over)
	}
}

// after returns the events with a higher number than n.
func (t *timeline) after(n uint64) []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := sort.Search(len(t.all), func(k int) bool { return t.all[k].Seq > n })
	return slices.Clone(t.all[at:])
}

// before returns the number after which the latest n events are.
func (t *timeline) before(n int) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) <= n {
		return 0
	}
	return t.all[len(t.all)-n-1].Seq
}

// maxNames is how many names a text lists.
const maxNames = 5

// differ tells two pictures apart.
type differ struct {
	at     time.Time
	events []Event
}

// diff returns what happened between two pictures. Of services and instances it tells
// only if there is one before.
func diff(before, after *Picture) []Event {
	d := differ{at: after.At}
	if before == nil {
		return nil
	}
	d.consul(before.Consul, after.Consul)
	was := make(map[string]*Service, len(before.Services))
	for n := range before.Services {
		was[before.Services[n].Name] = &before.Services[n]
	}
	for n := range after.Services {
		s := &after.Services[n]
		last := was[s.Name]
		delete(was, s.Name)
		if last == nil {
			last = &Service{Name: s.Name}
		}
		d.service(last, s)
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		d.service(was[name], &Service{Name: name})
	}
	return d.events
}

func (d *differ) tell(kind string, e Event, format string, args ...any) {
	e.At, e.Kind, e.Text = d.at, kind, bounded(fmt.Sprintf(format, args...))
	d.events = append(d.events, e)
}

func (d *differ) consul(before, after Consul) {
	switch {
	case before.Reachable && !after.Reachable:
		d.tell("consul-lost", Event{}, "Consul can't be asked since %s: %s", hour(after.Since), after.Error)
	case !before.Reachable && after.Reachable:
		d.tell("consul-found", Event{}, "Consul answers again")
	}
}

// hour is a time as a text has it.
func hour(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

func (d *differ) service(before, after *Service) {
	was := make(map[string]*Instance, len(before.Instances))
	for n := range before.Instances {
		was[before.Instances[n].Key] = &before.Instances[n]
	}
	for n := range after.Instances {
		i := &after.Instances[n]
		last := was[i.Key]
		delete(was, i.Key)
		d.instance(after.Name, last, i)
	}
	for _, key := range slices.Sorted(maps.Keys(was)) {
		i := was[key]
		d.tell("left", Event{Service: after.Name, Instance: i.ID}, "%s left %s", i.ID, after.Name)
	}
	d.versions(before, after)
	switch about := (Event{Service: after.Name}); {
	case len(before.PanicBy) == 0 && len(after.PanicBy) > 0:
		about.By = after.PanicBy[0]
		d.tell("panic", about, "none of %s is ready: %s sends to critical instances", after.Name, names(after.PanicBy, len(after.PanicBy)))
	case len(before.PanicBy) > 0 && len(after.PanicBy) == 0:
		d.tell("panic-over", about, "%s has instances again that are ready", after.Name)
	}
}

// instance tells what happened to one; before is nil if it was not there.
func (d *differ) instance(service string, before, after *Instance) {
	about := Event{Service: service, Instance: after.ID}
	if before == nil {
		if after.Missing {
			d.tell("missing", about, "%s of %s is not in the catalog, and is still used", after.ID, service)
		} else {
			d.tell("joined", about, "%s joined %s%s", after.ID, service, in(after))
		}
		d.out(about, &Instance{}, after)
		return
	}
	switch {
	case after.Missing && !before.Missing:
		d.tell("missing", about, "%s of %s vanished from the catalog, and is still used", after.ID, service)
	case before.Missing && !after.Missing:
		d.tell("joined", about, "%s is in the catalog again", after.ID)
	}
	if before.State != after.State {
		d.tell("state", about, "%s is %s, it was %s%s", after.ID, words(after.State), words(before.State), because(after.Reason))
	}
	d.out(about, before, after)
}

// out tells of the first ejection of an instance, and of the end of the last one.
func (d *differ) out(about Event, before, after *Instance) {
	switch {
	case before.OutBy == 0 && after.OutBy > 0:
		by := make([]string, 0, len(after.Out))
		for _, o := range after.Out {
			by = append(by, o.By)
		}
		first := after.Out[0]
		about.By = first.By
		d.tell("out", about, "%s is out of use at %s until %s: %s", after.ID, names(by, after.OutBy), hour(first.Until), first.Reason)
	case before.OutBy > 0 && after.OutBy == 0:
		about.By = before.Out[0].By
		d.tell("back", about, "%s is back in use", after.ID)
	}
}

// in says in which state an instance came.
func in(i *Instance) string {
	if i.State == catalog.StatePassing.String() {
		return ""
	}
	return ", " + i.State + because(i.Reason)
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// versions tells of versions that came and went, of a service that was there before.
func (d *differ) versions(before, after *Service) {
	was, is := versions(before), versions(after)
	if len(was) == 0 || len(is) == 0 || slices.Equal(was, is) {
		return
	}
	d.tell("version", Event{Service: after.Name}, "%s runs %s now, it ran %s", after.Name, names(is, len(is)), names(was, len(was)))
}

func versions(s *Service) []string {
	var all []string
	for _, i := range s.Instances {
		if i.Version != "" && !i.Missing {
			all = append(all, i.Version)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxRoutes is how many routes are told of at a time.
const maxRoutes = 20

// routes tells which routes came and went.
func routes(before, after []string, at time.Time) []Event {
	d := differ{at: at}
	for _, r := range without(after, before) {
		d.tell("routes", Event{}, "a route came: %s", r)
	}
	for _, r := range without(before, after) {
		d.tell("routes", Event{}, "a route went: %s", r)
	}
	if more := len(d.events) - maxRoutes; more > 0 {
		d.events = d.events[:maxRoutes]
		d.tell("routes", Event{}, "%d more routes changed", more)
	}
	return d.events
}

// without returns what of one list is not in another.
func without(all, others []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(others, s) })
}

// names lists some of so many names, and how many more there are.
func names(some []string, of int) string {
	some = some[:min(len(some), maxNames)]
	if more := of - len(some); more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(some, ", "), more)
	}
	return strings.Join(some, ", ")
}
