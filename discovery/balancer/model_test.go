package balancer_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// model says the rules again, in the plainest way: a list of instances, and
// the absences for which one was dropped.
type model struct {
	instances []catalog.Instance
	dropped   map[string]time.Time
}

func (m *model) here(i catalog.Instance) bool {
	return !i.Missing() || !m.dropped[i.ID].Equal(i.MissingUntil)
}

func (m *model) ids(want func(catalog.State) bool) map[string]bool {
	found := map[string]bool{}
	for _, i := range m.instances {
		if want(i.State) && m.here(i) {
			found[i.ID] = true
		}
	}
	return found
}

func critical(s catalog.State) bool { return s == catalog.StateCritical }

// usable returns whom a pick may choose, and whether that is panic.
func (m *model) usable() (map[string]bool, bool) {
	if ready := m.ids(catalog.State.Ready); len(ready) > 0 {
		return ready, false
	}
	return m.ids(critical), true
}

func (m *model) unreachable(id string) {
	for _, i := range m.instances {
		if i.ID != id || !i.Missing() || !m.here(i) {
			continue
		}
		left := m.ids(func(s catalog.State) bool { return s.Ready() || critical(s) })
		delete(left, id)
		if len(left) > 0 {
			m.dropped[id] = i.MissingUntil
		}
	}
}

func TestPickKeepsTheRulesOverAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := start
		feed, m := catalog.NewFeed("order"), &model{dropped: map[string]time.Time{}}
		panicked := false
		b := balancer.New("order", nil, &balancer.Trace{Picked: func(_ string, panicking bool) { panicked = panicking }})
		type open struct {
			lease balancer.Lease
			id    string
		}
		var leases []open
		t.Repeat(map[string]func(*rapid.T){
			"snapshot": func(t *rapid.T) {
				var next []catalog.Instance
				for n := range 5 {
					if rapid.Bool().Draw(t, "listed") {
						i := instance(fmt.Sprint(n), weight(rapid.IntRange(1, 20).Draw(t, "weight")),
							state(rapid.SampledFrom(catalog.States[:]).Draw(t, "state")))
						if rapid.Bool().Draw(t, "missing") {
							i.MissingUntil = now.Add(time.Duration(rapid.IntRange(-1, 5).Draw(t, "seconds")) * time.Second)
						}
						next = append(next, i)
					}
				}
				for id := range m.dropped { // who leaves the list altogether is forgotten
					listed := false
					for _, i := range next {
						listed = listed || i.ID == id
					}
					if !listed {
						delete(m.dropped, id)
					}
				}
				m.instances = next
				feed.Publish(append([]catalog.Instance(nil), next...), now)
				b.Use(feed.Current(), now)
			},
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			},
			"pick": func(t *rapid.T) {
				var tried []*balancer.Endpoint
				for _, o := range leases {
					if len(tried) < 3 && rapid.Bool().Draw(t, "tried") {
						tried = append(tried, o.lease.Endpoint())
					}
				}
				usable, panicking := m.usable()
				lease, err := b.Pick(balancer.Request{Now: now, Tried: tried})
				if len(usable) == 0 {
					if !errors.Is(err, catalog.ErrNoInstance) {
						t.Fatalf("got %v with nobody to pick; want ErrNoInstance", err)
					}
					return
				}
				if err != nil {
					t.Fatalf("got %v; want one of %v", err, usable)
				}
				picked := id(lease)
				// Those who are critical serve a request that all others have failed.
				spares := map[string]bool{}
				if !panicking {
					spares = m.ids(critical)
				}
				untried := maps.Clone(usable)
				for _, e := range tried {
					delete(spares, e.Instance().ID)
					delete(untried, e.Instance().ID)
				}
				if len(untried) == 0 && len(spares) > 0 {
					if !spares[picked] || !panicked || lease.Another() || lease.Spare() != (len(spares) > 1) {
						t.Fatalf("picked %s, panic %v, another %v, spare %v; want one of %v, which is panic", picked, panicked, lease.Another(), lease.Spare(), spares)
					}
					leases = append(leases, open{lease, picked})
					return
				}
				if lease.Spare() != (len(spares) > 0) {
					t.Fatalf("got a spare left: %v; want %v", lease.Spare(), spares)
				}
				if !usable[picked] {
					t.Fatalf("picked %s; want one of %v", picked, usable)
				}
				if panicked != panicking || b.Counts(now).Panic != panicking {
					t.Fatalf("got panic %v, %v; want %v", panicked, b.Counts(now).Panic, panicking)
				}
				left := len(usable)
				wasTried := false
				seen := map[string]bool{}
				for _, e := range tried {
					wasTried = wasTried || id(lease) == e.Instance().ID
					if i := e.Instance(); usable[i.ID] && !seen[i.ID] {
						seen[i.ID] = true
						left--
					}
				}
				if wasTried && left > 0 {
					t.Fatalf("picked %s again while %d others were left", picked, left)
				}
				if !wasTried {
					left--
				}
				if lease.Another() != (left > 0) {
					t.Fatalf("got another left: %v; want %v", lease.Another(), left > 0)
				}
				leases = append(leases, open{lease, picked})
			},
			"done": func(t *rapid.T) {
				if len(leases) == 0 {
					t.Skip("no lease")
				}
				k := rapid.IntRange(0, len(leases)-1).Draw(t, "lease")
				o := leases[k]
				leases = append(leases[:k], leases[k+1:]...)
				unreachable := rapid.Bool().Draw(t, "unreachable")
				if unreachable && current(b, o.lease.Endpoint()) {
					m.unreachable(o.id)
				}
				o.lease.Done(balancer.Outcome{At: now, Failed: unreachable, Unreachable: unreachable})
			},
			"": func(t *rapid.T) {
				c := b.Counts(now)
				if c.Known != c.Ready+c.Critical+c.Draining+c.Maintenance || c.Missing > c.Known {
					t.Fatalf("got %+v; want a sum that is right", c)
				}
				if want := len(m.ids(catalog.State.Ready)); c.Ready != want {
					t.Fatalf("got %d ready; want %d", c.Ready, want)
				}
				load := 0
				for _, e := range b.Endpoints() {
					load += e.InFlight()
				}
				want := 0
				for _, o := range leases {
					if current(b, o.lease.Endpoint()) {
						want++
					}
				}
				if load != want {
					t.Fatalf("got %d in flight; want %d", load, want)
				}
			},
		})
	})
}

// current reports whether the endpoint is of the snapshot in use, and not one
// of the same name that left and came back as another.
func current(b *balancer.Balancer, e *balancer.Endpoint) bool {
	return slices.Contains(b.Endpoints(), e)
}
