package outlier_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// plain says the rules of ejection again for one endpoint, in the plainest way:
// what it has answered since it was last well, with the default settings.
type plain struct {
	failures, gateway, unreachable int // in a row
	until                          time.Time
	probation                      bool
	well                           int // answers in a row on probation
}

// note says whether the outcome should eject it, if there is room.
func (p *plain) note(o balancer.Outcome) bool {
	over := !o.At.Before(p.until)
	switch {
	case o.Load, !o.Failed && o.Status == 0:
		return false
	case !o.Failed:
		p.failures, p.gateway, p.unreachable = 0, 0, 0
		if p.probation && over {
			if p.well++; p.well >= 5 {
				p.probation = false
			}
		}
		return false
	}
	p.failures++
	p.gateway++
	if o.Status == 500 {
		p.gateway = 0
	}
	p.unreachable++
	if !o.Unreachable {
		p.unreachable = 0
	}
	p.well = 0
	return over && (p.probation || p.failures >= 5 || p.gateway >= 3 || p.unreachable >= 1)
}

func (p *plain) ejected(until time.Time) {
	*p = plain{until: until, probation: true}
}

// trial is one history.
type trial struct {
	now      time.Time
	balancer *balancer.Balancer
	feed     *catalog.Feed
	names    []string // of the present set
	plain    map[string]*plain
	told     []balancer.Ejection
}

func (tr *trial) publish(names []string) {
	tr.names = slices.Clone(names)
	instances := make([]catalog.Instance, 0, len(names))
	for n, name := range names {
		instances = append(instances, catalog.Instance{ID: name, Service: "order", Host: fmt.Sprintf("10.0.0.%d", n+1), Port: 8080, State: catalog.StatePassing, Weight: 1})
	}
	tr.feed.Publish(instances, tr.now)
	tr.balancer.Use(tr.feed.Current(), tr.now)
	known := map[string]*plain{}
	for _, e := range tr.balancer.Endpoints() {
		i := e.Instance()
		key := i.ID + " " + i.Addr()
		if known[key] = tr.plain[key]; known[key] == nil {
			known[key] = new(plain)
		}
	}
	tr.plain = known
}

func (tr *trial) of(e *balancer.Endpoint) *plain {
	i := e.Instance()
	return tr.plain[i.ID+" "+i.Addr()]
}

// send picks, and lets the request end as drawn.
func (tr *trial) send(t *rapid.T, o balancer.Outcome) {
	lease, err := tr.balancer.Pick(balancer.Request{Now: tr.now})
	if err != nil {
		t.Fatalf("nobody was picked of %d: %v", len(tr.names), err)
	}
	e := lease.Endpoint()
	p, before := tr.of(e), tr.balancer.Counts(tr.now).Ejected
	sentenced := 0 // more than may be out, if the set has shrunk since
	for _, other := range tr.balancer.Endpoints() {
		if !other.Ejection().Over(tr.now) {
			sentenced++
		}
	}
	if x := e.Ejection(); !x.Over(tr.now) && sentenced <= len(tr.names)/2 {
		t.Fatalf("%s was picked while it was ejected until %v", e.Instance().ID, x.Until)
	}
	o.At = tr.now
	tr.told = nil
	want := p.note(o) && before < min(len(tr.names)/2, len(tr.names)-1)
	lease.Done(o)
	if got := len(tr.told) == 1; got != want {
		t.Fatalf("%s with %+v after %+v, %d of %d out: ejected %v; want %v", e.Instance().ID, o, p, before, len(tr.names), got, want)
	}
	if !want {
		if p.probation != e.OnProbation() {
			t.Fatalf("%s: on probation %v; want %v", e.Instance().ID, e.OnProbation(), p.probation)
		}
		return
	}
	x := tr.told[0]
	if d := x.Until.Sub(x.At); d < 2*time.Second || d > 30*time.Second || x.At != tr.now || !e.OnProbation() {
		t.Fatalf("%s: got %+v, on probation %v; want 2 to 30 s from now, and probation after it", e.Instance().ID, x, e.OnProbation())
	}
	p.ejected(x.Until)
}

var outcomes = []balancer.Outcome{
	{Status: 200, Latency: time.Millisecond},
	{Status: 200, Latency: time.Millisecond},
	{Status: 500, Failed: true, Latency: time.Millisecond},
	{Status: 503, Failed: true, Latency: time.Millisecond},
	{Failed: true},
	{Failed: true, Unreachable: true},
	{Status: 503, Load: true},
	{},
}

// Over random histories of outcomes, changes of the set and time: an endpoint is
// ejected when the rules say so and at no other time; there is always one to
// pick; never more are out than the cap allows; and everybody is back at last.
func TestEjectionKeepsItsRulesOverAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		judge, err := outlier.New(outlier.Config{})
		if err != nil {
			t.Fatal(err)
		}
		tr := &trial{now: time.Unix(1000, 0), feed: catalog.NewFeed("order")}
		tr.balancer = balancer.NewJudged("order", nil, judge, &balancer.Trace{
			Ejected: func(_ string, _ catalog.Instance, x balancer.Ejection) { tr.told = append(tr.told, x) },
		})
		all := []string{"a", "b", "c", "d", "e", "f"}
		tr.publish(all[:3])
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				tr.publish(all[:rapid.IntRange(1, len(all)).Draw(t, "instances")])
			case 1, 2:
				tr.now = tr.now.Add(time.Duration(rapid.IntRange(1, 8000).Draw(t, "ms")) * time.Millisecond)
			default:
				tr.send(t, rapid.SampledFrom(outcomes).Draw(t, "outcome"))
			}
			if c := tr.balancer.Counts(tr.now); c.Ejected > len(tr.names)/2 || c.Ejected >= c.Ready {
				t.Fatalf("%d of %d are out", c.Ejected, c.Ready)
			}
		}
		tr.now = tr.now.Add(30 * time.Second)
		if c := tr.balancer.Counts(tr.now); c.Ejected != 0 {
			t.Fatalf("%d are out after the longest ejection", c.Ejected)
		}
	})
}
