package outlier_test

import (
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

// plain says the rules of health again for one endpoint, in the plainest way,
// with the default settings.
type plain struct {
	rows [outcome.Groups]struct{ bad, down, absent int } // failures in a row

	at, until time.Time // of the latest ejection
	trial     bool
	failed    outcome.Group // whose answers end the trial
	any       bool          // each group's do
	well      int           // answers in a row on trial

	shaky            int // failures and shed requests in a row
	doubted, suspect time.Time
}

func (p *plain) doubt(r outcome.Result, first time.Duration, doublings int) {
	if r.At.Before(p.suspect) || r.Began.Before(p.doubted) {
		return
	}
	p.doubted, p.suspect = r.At, r.At.Add(first<<min(p.shaky, doublings))
	p.shaky++
}

// note says whether the result should eject it, if there is room.
func (p *plain) note(r outcome.Result) bool {
	over, old := !r.At.Before(p.until), r.Began.Before(p.at)
	row, proves := &p.rows[r.Group], r.Code.Proves()
	switch {
	case proves == outcome.Nothing:
		return false
	case proves == outcome.Load:
		p.doubt(r, 20*time.Millisecond, 3)
		return false
	case proves == outcome.Doubt:
		p.doubt(r, 50*time.Millisecond, 6)
		return false
	case proves == outcome.Good:
		row.bad, row.down, row.absent = 0, 0, 0
		p.shaky, p.suspect = 0, time.Time{}
		if p.trial && over && !old && (p.any || r.Group == p.failed) {
			if p.well++; p.well >= 5 {
				p.trial = false
			}
		}
		return false
	case old:
		return false
	}
	p.doubt(r, 50*time.Millisecond, 6)
	row.bad++
	row.down++
	row.absent++
	if proves == outcome.Bad {
		row.down = 0
	}
	if proves != outcome.Absent {
		row.absent = 0
	}
	p.well = 0
	return over && (p.trial || row.bad >= 5 || row.down >= 3 || row.absent >= 1)
}

func (p *plain) ejected(r outcome.Result, until time.Time) {
	*p = plain{
		at: r.At, until: until, trial: true, failed: r.Group, any: r.Code.Proves() == outcome.Absent,
		shaky: p.shaky, doubted: p.doubted, suspect: p.suspect,
	}
}

func (p *plain) state(now time.Time) outlier.State {
	switch {
	case now.Before(p.until):
		return outlier.Ejected
	case now.Before(p.suspect):
		return outlier.Suspect
	case p.trial:
		return outlier.OnTrial
	}
	return outlier.Healthy
}

// history is one that was drawn.
type history struct {
	now      time.Time
	balancer *balancer.Balancer
	feed     *catalog.Feed
	names    []string // of the present set
	plain    map[string]*plain
	told     []outlier.Ejection
}

func (h *history) publish(names []string) {
	h.names = slices.Clone(names)
	instances := make([]catalog.Instance, 0, len(names))
	for n, name := range names {
		instances = append(instances, catalog.Instance{ID: name, Service: "order", Host: fmt.Sprintf("10.0.0.%d", n+1), Port: 8080, State: catalog.StatePassing, Weight: 1})
	}
	h.feed.Publish(instances, h.now)
	h.balancer.Use(h.feed.Current(), h.now)
	known := map[string]*plain{}
	for _, e := range h.balancer.Endpoints() {
		i := e.Instance()
		key := i.ID + " " + i.Addr()
		if known[key] = h.plain[key]; known[key] == nil {
			known[key] = new(plain)
		}
	}
	h.plain = known
}

func (h *history) of(e *balancer.Endpoint) *plain {
	i := e.Instance()
	return h.plain[i.ID+" "+i.Addr()]
}

// sentenced returns how many are out by their own account: more than may be out,
// if the set has shrunk since.
func (h *history) sentenced() (n int) {
	for _, e := range h.balancer.Endpoints() {
		if !e.Ejection().Over(h.now) {
			n++
		}
	}
	return n
}

// send picks, and lets the request end as drawn.
func (h *history) send(t *rapid.T, r outcome.Result) {
	lease, err := h.balancer.Pick(balancer.Request{Now: h.now})
	if err != nil {
		t.Fatalf("nobody was picked of %d: %v", len(h.names), err)
	}
	e := lease.Endpoint()
	p, before := h.of(e), h.balancer.Counts(h.now).Ejected
	if x := e.Ejection(); !x.Over(h.now) && h.sentenced() <= len(h.names)/2 {
		t.Fatalf("%s was picked while it was ejected until %v", e.Instance().ID, x.Until)
	}
	h.told = nil
	want := p.note(r) && before < min(len(h.names)/2, len(h.names)-1)
	lease.Done(r)
	if got := len(h.told) == 1; got != want {
		t.Fatalf("%s with %+v after %+v, %d of %d out: ejected %v; want %v", e.Instance().ID, r, p, before, len(h.names), got, want)
	}
	if !want {
		return
	}
	x := h.told[0]
	if d := x.Until.Sub(x.At); d < 2*time.Second || d > 30*time.Second || x.At != h.now || x.Reason != r.Code {
		t.Fatalf("%s: got %+v; want 2 to 30 s from now", e.Instance().ID, x)
	}
	p.ejected(r, x.Until)
}

// check compares what each endpoint says of itself.
func (h *history) check(t *rapid.T) {
	for _, e := range h.balancer.Endpoints() {
		got, want := e.State(h.now), h.of(e).state(h.now)
		if want == outlier.Ejected && got == outlier.OnTrial && h.sentenced() > len(h.names)/2 {
			continue // it is back for the cap
		}
		if got != want {
			t.Fatalf("%s: got %v; want %v of %+v", e.Instance().ID, got, want, h.of(e))
		}
	}
}

// codes are drawn from; Silent is not among them, for whether that is held
// against an endpoint is for the balancer to say, by the others.
var codes = []outcome.Code{
	outcome.OK, outcome.OK, outcome.OK, outcome.Error, outcome.Gateway, outcome.Broken, outcome.BodyBroken,
	outcome.Unreachable, outcome.Misdirected, outcome.Overload, outcome.Busy, outcome.Foreign, outcome.Canceled, outcome.None,
}

// Over random histories of results, changes of the set and time: an endpoint
// stands as the rules say, and is ejected when they say so and at no other time;
// there is always one to pick; never more are out than the cap allows; and each
// is back at last.
func TestEjectionKeepsItsRulesOverAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, err := outlier.New(outlier.Config{})
		if err != nil {
			t.Fatal(err)
		}
		h := &history{now: time.Unix(1000, 0), feed: catalog.NewFeed("order")}
		h.balancer = balancer.New("order", balancer.Config{Outliers: rules, Trace: &balancer.Trace{
			Ejected: func(_ string, _ catalog.Instance, x outlier.Ejection) { h.told = append(h.told, x) },
		}})
		all := []string{"a", "b", "c", "d", "e", "f"}
		h.publish(all[:3])
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				h.publish(all[:rapid.IntRange(1, len(all)).Draw(t, "instances")])
			case 1, 2:
				h.now = h.now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(t, "ms")) * time.Millisecond)
			default:
				r := outcome.Result{Code: rapid.SampledFrom(codes).Draw(t, "outcome"), Began: h.now, At: h.now}
				r.Group = outcome.Group(rapid.IntRange(0, int(outcome.Groups)-1).Draw(t, "group"))
				if rapid.Bool().Draw(t, "slow") {
					r.Began = r.At.Add(-time.Duration(rapid.IntRange(1, 9000).Draw(t, "took")) * time.Millisecond)
				}
				h.send(t, r)
			}
			h.check(t)
			if c := h.balancer.Counts(h.now); c.Ejected > len(h.names)/2 || c.Ejected >= c.Ready {
				t.Fatalf("%d of %d are out", c.Ejected, c.Ready)
			}
		}
		h.now = h.now.Add(30 * time.Second)
		if c := h.balancer.Counts(h.now); c.Ejected != 0 {
			t.Fatalf("%d are out after the longest ejection", c.Ejected)
		}
	})
}
