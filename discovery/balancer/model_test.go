package balancer_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

const (
	critical = catalog.StateCritical
	draining = catalog.StateDraining
)

// model says the rules again, in the plainest way: a list of instances, the
// absences for which one was dropped, and what is under way. How an endpoint
// stands by its results it asks the endpoint; package outlier has a model of that.
type model struct {
	balancer  *balancer.Balancer
	now       time.Time
	instances []catalog.Instance
	dropped   map[string]time.Time
	leases    []*open
	dials     []*dial
}

// open is a request, or the body of its answer.
type open struct {
	lease balancer.Lease
	group outcome.Group
	began time.Time
	body  *balancer.Body // nil: no headers yet
	rests bool
}

type dial struct {
	*balancer.Dial
	endpoint *balancer.Endpoint
	stalled  bool
}

func (m *model) here(i catalog.Instance) bool {
	return !i.Missing() || !m.dropped[i.ID].Equal(i.MissingUntil)
}

func (m *model) count(want func(catalog.State) bool) (n int) {
	for _, i := range m.instances {
		if want(i.State) && m.here(i) {
			n++
		}
	}
	return n
}

func isCritical(s catalog.State) bool { return s == critical }
func sendable(s catalog.State) bool   { return s.Ready() || isCritical(s) }

// panics reports whether the critical ones are in use.
func (m *model) panics() bool { return m.count(catalog.State.Ready) == 0 && m.count(isCritical) > 0 }

// candidates returns the endpoints that may be sent to, and how good each is: 0
// is the best, 4 is out of use.
func (m *model) candidates() map[*balancer.Endpoint]int {
	found := map[*balancer.Endpoint]int{}
	for _, e := range m.balancer.Endpoints() {
		i := e.Instance()
		if !m.here(i) || !i.State.Ready() && i.State != critical {
			continue
		}
		found[e] = m.rank(e, i.State == critical && !m.panics())
	}
	return found
}

func (m *model) rank(e *balancer.Endpoint, spare bool) int {
	waiting, dialing, stalled := 0, 0, false
	for _, o := range m.leases {
		if o.lease.Endpoint() == e && o.body == nil {
			waiting++
		}
	}
	for _, d := range m.dials {
		if d.endpoint == e {
			dialing++
			stalled = stalled || d.stalled
		}
	}
	switch state := e.State(m.now); {
	case spare || state == outlier.Ejected:
		return 4
	case stalled || state == outlier.Suspect:
		return 2
	case waiting > 0 && state == outlier.OnTrial:
		return 3
	case waiting > 0 && waiting <= dialing:
		return 1
	}
	return 0
}

// best returns those of the best rank, none of which is an instance of tried.
func best(of map[*balancer.Endpoint]int, tried []*balancer.Endpoint) (found map[*balancer.Endpoint]bool, rank int) {
	rank = 5
	for e, r := range of {
		if slices.ContainsFunc(tried, func(o *balancer.Endpoint) bool { return o.Instance().ID == e.Instance().ID }) {
			continue
		}
		if r < rank {
			found, rank = map[*balancer.Endpoint]bool{}, r
		}
		if r == rank {
			found[e] = true
		}
	}
	return found, rank
}

func (m *model) unreachable(id string) {
	for _, i := range m.instances {
		if i.ID != id || !i.Missing() || !m.here(i) {
			continue
		}
		others := m.count(sendable)
		if sendable(i.State) {
			others--
		}
		if others > 0 {
			m.dropped[id] = i.MissingUntil
		}
	}
}

// note ends something by what is drawn.
func (m *model) note(t *rapid.T, o *open, codes []outcome.Code, end func(outcome.Result)) {
	r := outcome.Result{Code: rapid.SampledFrom(codes).Draw(t, "outcome"), Began: o.began, At: m.now, Latency: m.now.Sub(o.began)}
	r.Group = o.group
	e := o.lease.Endpoint()
	if r.Code.Proves() == outcome.Absent && current(m.balancer, e) {
		m.unreachable(e.Instance().ID)
	}
	end(r)
}

var drawn = []outcome.Code{
	outcome.None, outcome.OK, outcome.OK, outcome.OK, outcome.Error, outcome.Broken, outcome.Unreachable, outcome.Unreachable,
	outcome.Overload, outcome.Silent, outcome.Foreign, outcome.Canceled,
}

func (m *model) snapshot(t *rapid.T, feed *catalog.Feed) {
	var next []catalog.Instance
	for n := range 5 {
		if rapid.Bool().Draw(t, "listed") {
			i := instance(fmt.Sprint(n), weight(rapid.IntRange(1, 20).Draw(t, "weight")),
				state(rapid.SampledFrom(catalog.States[:]).Draw(t, "state")))
			if rapid.Bool().Draw(t, "missing") {
				i.MissingUntil = m.now.Add(time.Duration(rapid.IntRange(-1, 5).Draw(t, "seconds")) * time.Second)
			}
			next = append(next, i)
		}
	}
	for id := range m.dropped { // what leaves the list altogether is forgotten
		if !slices.ContainsFunc(next, func(i catalog.Instance) bool { return i.ID == id }) {
			delete(m.dropped, id)
		}
	}
	m.instances = next
	feed.Publish(slices.Clone(next), m.now)
	m.balancer.Use(feed.Current(), m.now)
}

// pick checks a pick, and what Left has said of it.
func (m *model) pick(t *rapid.T, panicked *bool) {
	var tried []*balancer.Endpoint
	for _, o := range m.leases {
		if len(tried) < 4 && rapid.Bool().Draw(t, "tried") {
			tried = append(tried, o.lease.Endpoint())
		}
	}
	g := outcome.Group(rapid.IntRange(0, int(outcome.Groups)-1).Draw(t, "group"))
	q := balancer.Request{Now: m.now, Group: g, Tried: tried}
	of := m.candidates()
	inUse, found := m.balancer.Left(q)
	lease, err := m.balancer.Pick(q)
	if len(of) == 0 {
		if !errors.Is(err, catalog.ErrNoInstance) || found || inUse {
			t.Fatalf("got %v, left %v, with none to pick; want ErrNoInstance", err, found)
		}
		return
	}
	if err != nil {
		t.Fatalf("got %v; want one of %v", err, of)
	}
	want, rank := best(of, tried)
	if found != (rank < 5) || inUse != (rank < 4) {
		t.Fatalf("got one left %v, in use %v; the best is of rank %d", found, inUse, rank)
	}
	if !found { // any but the latest, or the only one
		if want, rank = best(of, tried[len(tried)-1:]); rank == 5 {
			want, rank = best(of, nil)
		}
	}
	e := lease.Endpoint()
	if !want[e] {
		t.Fatalf("picked %s of rank %d; want one of rank %d: %v", id(lease), of[e], rank, want)
	}
	if panics := e.Instance().State == critical; *panicked != panics || m.balancer.Counts(m.now).Panic != m.panics() {
		t.Fatalf("told panic %v, %+v, for %v", *panicked, m.balancer.Counts(m.now), e.Instance())
	}
	m.leases = append(m.leases, &open{lease: lease, group: g, began: m.now})
}

// check compares the counts.
func (m *model) check(t *rapid.T, most func(int) int) {
	c := m.balancer.Counts(m.now)
	if c.Known != c.Ready+c.Critical+c.Draining+c.Maintenance || c.Missing > c.Known {
		t.Fatalf("got %+v; want a sum that is right", c)
	}
	if want := m.count(catalog.State.Ready); c.Ready != want {
		t.Fatalf("got %d ready; want %d", c.Ready, want)
	}
	use := c.Ready
	if c.Panic {
		use = c.Critical
	}
	ejected, load := 0, 0
	for _, e := range m.balancer.Endpoints() {
		if i := e.Instance(); m.here(i) && (i.State.Ready() || i.State == critical && c.Panic) && e.State(m.now) == outlier.Ejected {
			ejected++
		}
		load += e.InFlight()
	}
	if c.Ejected != ejected || ejected > most(use) {
		t.Fatalf("got %d ejected of %d, and %d say so; want the same, %d at most", c.Ejected, use, ejected, most(use))
	}
	want := 0
	for _, o := range m.leases {
		if !o.rests && current(m.balancer, o.lease.Endpoint()) {
			want++
		}
	}
	if load != want {
		t.Fatalf("got %d in flight; want %d", load, want)
	}
}

func TestPickKeepsTheRulesOverAnyHistory(t *testing.T) {
	twice := rules(t, outlier.Config{Consecutive: 2, Probation: 2})
	rapid.Check(t, func(t *rapid.T) {
		feed, panicked := catalog.NewFeed("order"), false
		m := &model{now: start, dropped: map[string]time.Time{}}
		m.balancer = balancer.New("order", balancer.Config{
			Policy: rapid.SampledFrom(policies).Draw(t, "policy"), Outliers: twice,
			Trace: &balancer.Trace{Picked: func(_ string, panicking bool) { panicked = panicking }},
		})
		one := func(t *rapid.T, want func(*open) bool) *open {
			some := slices.DeleteFunc(slices.Clone(m.leases), func(o *open) bool { return !want(o) })
			if len(some) == 0 {
				t.Skip("none")
			}
			return some[rapid.IntRange(0, len(some)-1).Draw(t, "lease")]
		}
		remove := func(o *open) { m.leases = slices.DeleteFunc(m.leases, func(p *open) bool { return p == o }) }
		t.Repeat(map[string]func(*rapid.T){
			"snapshot": func(t *rapid.T) { m.snapshot(t, feed) },
			"time": func(t *rapid.T) {
				m.now = m.now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			},
			"pick":       func(t *rapid.T) { m.pick(t, &panicked) },
			"pick again": func(t *rapid.T) { m.pick(t, &panicked) },
			"done": func(t *rapid.T) {
				o := one(t, func(o *open) bool { return o.body == nil })
				remove(o)
				m.note(t, o, drawn, o.lease.Done)
			},
			"answered": func(t *rapid.T) {
				o := one(t, func(o *open) bool { return o.body == nil })
				m.note(t, o, drawn, func(r outcome.Result) {
					body := o.lease.Answered(r)
					o.body = &body
				})
			},
			"rest": func(t *rapid.T) {
				o := one(t, func(o *open) bool { return o.body != nil && !o.rests })
				o.body.Rest()
				o.rests = true
			},
			"resume": func(t *rapid.T) {
				o := one(t, func(o *open) bool { return o.rests })
				o.body.Resume()
				o.rests = false
			},
			"read": func(t *rapid.T) {
				o := one(t, func(o *open) bool { return o.body != nil && !o.rests })
				remove(o)
				m.note(t, o, []outcome.Code{outcome.None, outcome.BodyBroken}, o.body.Done)
			},
			"dial": func(t *rapid.T) {
				all := m.balancer.Endpoints()
				if len(all) == 0 {
					t.Skip("none")
				}
				e := all[rapid.IntRange(0, len(all)-1).Draw(t, "endpoint")]
				m.dials = append(m.dials, &dial{Dial: e.Dial(), endpoint: e})
			},
			"dial stalls or ends": func(t *rapid.T) {
				if len(m.dials) == 0 {
					t.Skip("none")
				}
				k := rapid.IntRange(0, len(m.dials)-1).Draw(t, "dial")
				if d := m.dials[k]; rapid.Bool().Draw(t, "stalls") {
					d.Stalled()
					d.stalled = true
				} else {
					d.Done()
					m.dials = slices.Delete(m.dials, k, k+1)
				}
			},
			"": func(t *rapid.T) { m.check(t, twice.Most) },
		})
	})
}

// current reports whether the endpoint is of the snapshot in use, and not one
// of the same name that left and came back as another.
func current(b *balancer.Balancer, e *balancer.Endpoint) bool {
	return slices.Contains(b.Endpoints(), e)
}
