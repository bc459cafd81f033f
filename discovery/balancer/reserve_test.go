package balancer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestReserveIsPickedWhenEachOtherHasFailedOrNoneIsReady(t *testing.T) {
	instance := func(id string, state catalog.State, reserve bool) catalog.Instance {
		return catalog.Instance{ID: id, Host: id, Port: 80, Weight: 1, State: state, Reserve: reserve}
	}
	far, critical := instance("far", catalog.StatePassing, true), instance("critical", catalog.StateCritical, false)
	missing := instance("missing", catalog.StatePassing, false)
	missing.MissingUntil = start.Add(time.Minute)
	for _, c := range []struct {
		name  string
		set   []catalog.Instance
		want  string // the order in which one request tries them
		panic bool
	}{
		{"one is ready here", []catalog.Instance{critical, far, instance("near", catalog.StatePassing, false)}, "near far critical", false},
		{"one is missing here", []catalog.Instance{critical, far, missing}, "missing far critical", false},
		{"none is ready here", []catalog.Instance{critical, far}, "far critical", false},
		{"none is ready anywhere", []catalog.Instance{critical, instance("far", catalog.StateDraining, true)}, "critical", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 { // picks are drawn
				s := newService(balancer.Config{}, c.set...)
				q, got := balancer.Request{Now: start}, ""
				for {
					inUse, left := s.Left(q)
					if !left {
						break
					}
					lease, err := s.Pick(q)
					if err != nil {
						t.Fatal(err)
					}
					id := lease.Endpoint().Instance().ID
					if wantUse := id != "critical" || c.panic; inUse != wantUse {
						t.Errorf("%s: Left says in use: %v; want %v", id, inUse, wantUse)
					}
					q.Tried, got = append(q.Tried, lease.Endpoint()), got+" "+id
				}
				if got != " "+c.want {
					t.Fatalf("tried%s; want %s", got, c.want)
				}
				if counts := s.Counts(start); counts.Panic != c.panic || counts.Known != len(c.set) {
					t.Errorf("got %+v; want panic: %v, and all known", counts, c.panic)
				}
			}
		})
	}
}

func TestReserveComesIntoUseAndLeavesItWithItsHealthKept(t *testing.T) {
	far := catalog.Instance{ID: "far", Host: "far", Port: 80, Weight: 1, State: catalog.StatePassing, Reserve: true}
	near := catalog.Instance{ID: "near", Host: "near", Port: 80, Weight: 1, State: catalog.StatePassing}
	s := newService(balancer.Config{}, far, near)
	picked := func() string {
		got := map[string]int{}
		for range 50 {
			lease, err := s.Pick(balancer.Request{Now: start})
			if err != nil {
				t.Fatal(err)
			}
			got[lease.Endpoint().Instance().ID]++
			lease.Done(result(outcome.OK, start))
		}
		return fmt.Sprint(len(got), got["near"] > 0, got["far"] > 0)
	}
	if got := picked(); got != "1 true false" {
		t.Errorf("beside a ready one: %s; want near alone", got)
	}
	before := s.Endpoints()[0]
	far.Reserve = false
	s.publish(start, far, near)
	if got := picked(); got != "2 true true" {
		t.Errorf("called into use: %s; want both", got)
	}
	if s.Endpoints()[0] != before {
		t.Error("it became another endpoint")
	}
}
