package balancer_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// strict ejects at each failure for 10s, and trusts again after an answer.
type strict struct {
	most    func(n int) int
	granted atomic.Int32
}

func (j *strict) Record() balancer.Record { return (*strictRecord)(j) }
func (j *strict) Most(n int) int          { return j.most(n) }

type strictRecord strict

func (r *strictRecord) Note(o balancer.Outcome) (v balancer.Verdict) {
	if o.Failed {
		v.Eject, v.Reason = 10*time.Second, "error"
	}
	v.Trusted = o.Status == 200
	return v
}

func (r *strictRecord) Ejected(balancer.Ejection) { r.granted.Add(1) }

func half(n int) int { return n / 2 }

func newJudged(policy balancer.Policy, judge balancer.Judge, trace *balancer.Trace, instances ...catalog.Instance) *service {
	s := &service{balancer.NewJudged("order", policy, judge, trace), catalog.NewFeed("order")}
	s.publish(start, instances...)
	return s
}

// fail lets an instance fail.
func (s *service) fail(t *testing.T, want string, now time.Time) {
	t.Helper()
	var held []balancer.Lease
	defer func() {
		for _, lease := range held {
			lease.Done(balancer.Outcome{At: now})
		}
	}()
	var tried []*balancer.Endpoint
	for range len(s.Endpoints()) {
		lease := s.pick(t, now, tried...)
		if id(lease) == want {
			lease.Done(balancer.Outcome{At: now, Failed: true, Status: 500})
			return
		}
		held, tried = append(held, lease), append(tried, lease.Endpoint())
	}
	t.Fatalf("%s was not picked", want)
}

func TestEjectedInstanceIsNotPickedUntilItsTimeIsOver(t *testing.T) {
	for name, policy := range map[string]balancer.Policy{"PeakEWMA": balancer.PeakEWMA{}, "P2C": balancer.P2C{}} {
		t.Run(name, func(t *testing.T) {
			var told []string
			s := newJudged(policy, &strict{most: half}, &balancer.Trace{
				Ejected: func(service string, i catalog.Instance, x balancer.Ejection) {
					told = append(told, fmt.Sprint(service, " ", i.ID, " ", x.Reason, " ", x.Until.Sub(x.At)))
				},
			}, weighted(1, 1, 1)...)
			s.fail(t, "0", start)
			until := start.Add(10 * time.Second)
			if got := s.picked(t, 100, until.Add(-1)); got["0"] != 0 {
				t.Errorf("got %v; want none for the ejected one", got)
			}
			if c := s.Counts(until.Add(-1)); c.Ready != 3 || c.Ejected != 1 || c.Known != 3 {
				t.Errorf("got %+v; want 3 ready, 1 of them ejected", c)
			}
			if len(told) != 1 || told[0] != "order 0 error 10s" {
				t.Errorf("told %v; want one ejection", told)
			}
			if got := s.picked(t, 300, until); got["0"] < 80 || got["0"] > 120 {
				t.Errorf("got %v; want about a third for the one that is back", got)
			}
			if c := s.Counts(until); c.Ejected != 0 {
				t.Errorf("got %+v; want nobody ejected", c)
			}
		})
	}
}

func TestInstanceOnProbationGetsOneRequestAtATime(t *testing.T) {
	for name, policy := range map[string]balancer.Policy{"PeakEWMA": balancer.PeakEWMA{}, "P2C": balancer.P2C{}} {
		t.Run(name, func(t *testing.T) {
			s := newJudged(policy, &strict{most: half}, nil, weighted(1, 1, 1)...)
			s.fail(t, "0", start)
			now := start.Add(10 * time.Second)
			var open []balancer.Lease
			load := func() map[string]int {
				got := map[string]int{}
				for range 60 {
					open = append(open, s.pick(t, now))
					got[id(open[len(open)-1])]++
				}
				return got
			}
			if got := load(); got["0"] != 1 {
				t.Errorf("got %v; want one request on the one on probation", got)
			}
			for _, lease := range open {
				lease.Done(balancer.Outcome{At: now, Status: 200})
			}
			if got := load(); got["0"] < 17 || got["0"] > 23 {
				t.Errorf("got %v; want 20 on the one that is trusted again", got)
			}
		})
	}
}

func TestInstanceOnProbationIsUsedWhenNobodyElseIsLeft(t *testing.T) {
	s := newJudged(nil, &strict{most: half}, nil, weighted(1, 1)...)
	s.fail(t, "0", start)
	now := start.Add(10 * time.Second)
	s.publish(now, weighted(1)...)
	for range 5 {
		if got := id(s.pick(t, now)); got != "0" {
			t.Fatalf("got %s; want the only one there is", got)
		}
	}
}

func TestOfThreeInstancesOneMayBeEjected(t *testing.T) {
	judge := &strict{most: half}
	s := newJudged(nil, judge, nil, weighted(1, 1, 1)...)
	for n := range 3 {
		s.fail(t, fmt.Sprint(n), start)
	}
	if c := s.Counts(start); c.Ejected != 1 || judge.granted.Load() != 1 {
		t.Errorf("got %+v, %d granted; want 1 ejected", c, judge.granted.Load())
	}
	later := start.Add(time.Second)
	if got := s.picked(t, 100, later); got["0"] != 0 || len(got) != 2 {
		t.Errorf("got %v; want the two that are left", got)
	}
}

func TestOneInstanceIsNeverEjectedWhateverTheJudgeSays(t *testing.T) {
	for n := 1; n <= 4; n++ {
		s := newJudged(nil, &strict{most: func(n int) int { return n }}, nil, fleet(n)...)
		for range 100 {
			lease := s.pick(t, start)
			lease.Done(balancer.Outcome{At: start, Failed: true, Status: 500})
		}
		if c := s.Counts(start); c.Ejected != n-1 {
			t.Errorf("%d instances: got %+v; want all but one ejected", n, c)
		}
	}
}

func TestSetThatShrinksLetsTheEjectedBackThatAreOverTheCap(t *testing.T) {
	s := newJudged(nil, &strict{most: half}, nil, weighted(1, 1, 1, 1)...)
	s.fail(t, "0", start)
	s.fail(t, "1", start.Add(time.Second))
	if c := s.Counts(start.Add(time.Second)); c.Ejected != 2 {
		t.Fatalf("got %+v; want 2 ejected", c)
	}
	now := start.Add(2 * time.Second)
	s.publish(now, weighted(1, 1)...) // those that were well have left
	if got := s.picked(t, 10, now); got["0"] != 10 || s.Counts(now).Ejected != 1 {
		t.Errorf("got %v, %+v; want the one whose ejection ends first", got, s.Counts(now))
	}
	s.publish(now, weighted(1)...)
	if got := s.picked(t, 10, now); got["0"] != 10 || s.Counts(now).Ejected != 0 {
		t.Errorf("got %v, %+v; want the only one", got, s.Counts(now))
	}
	s.publish(now, weighted(1, 1, 1, 1)...)
	if got := s.picked(t, 10, now); got["0"] != 0 || s.Counts(now).Ejected != 1 {
		t.Errorf("got %v, %+v; want it out for the rest of its time", got, s.Counts(now))
	}
}

func TestEjectionSurvivesAChangeOfTheSet(t *testing.T) {
	s := newJudged(nil, &strict{most: half}, nil, weighted(1, 1, 1)...)
	s.fail(t, "0", start)
	for n := range 5 {
		now := start.Add(time.Duration(n) * time.Second)
		s.publish(now, weighted([]int{1, 1, 1, 1, 1, 1}[:3+n%3]...)...)
		if got := s.picked(t, 60, now); got["0"] != 0 {
			t.Errorf("change %d: got %v; want none for the ejected one", n, got)
		}
	}
}

func TestCriticalInstancesAreOutsideOfTheCap(t *testing.T) {
	critical := instance("critical", state(catalog.StateCritical))
	s := newJudged(nil, &strict{most: half}, nil, instance("0"), instance("1"), critical)
	s.fail(t, "0", start)
	if c := s.Counts(start); c.Ejected != 1 || c.Critical != 1 || c.Ready != 2 {
		t.Errorf("got %+v; want 1 of 2 ejected, beside the critical one", c)
	}
	// Who is ejected may become critical as well, and makes room for nobody.
	s.publish(start, instance("0", state(catalog.StateCritical)), instance("1"), critical)
	s.fail(t, "1", start)
	if c := s.Counts(start); c.Ejected != 0 || c.Ready != 1 {
		t.Errorf("got %+v; want the last ready one in use", c)
	}
}

func TestCriticalInstancesAreEjectedInPanicModeToo(t *testing.T) {
	var all []catalog.Instance
	for n := range 3 {
		all = append(all, instance(fmt.Sprint(n), state(catalog.StateCritical)))
	}
	s := newJudged(nil, &strict{most: half}, nil, all...)
	s.fail(t, "0", start)
	if got := s.picked(t, 60, start); got["0"] != 0 || !s.Counts(start).Panic || s.Counts(start).Ejected != 1 {
		t.Errorf("got %v, %+v; want panic without the one that fails", got, s.Counts(start))
	}
}

func TestEndpointSaysWhenAndWhyItWasEjected(t *testing.T) {
	s := newJudged(nil, &strict{most: half}, nil, weighted(1, 1)...)
	e := s.Endpoints()[0]
	if x := e.Ejection(); x != (balancer.Ejection{}) || e.OnProbation() || !x.Over(start) {
		t.Errorf("got %+v; want the zero value before any ejection", x)
	}
	s.fail(t, "0", start)
	want := balancer.Ejection{At: start, Until: start.Add(10 * time.Second), Reason: "error"}
	if x := e.Ejection(); x != want || !e.OnProbation() {
		t.Errorf("got %+v; want %+v", x, want)
	}
}

func TestOneOfTwoThatFailAtOnceIsEjected(t *testing.T) {
	judge := &strict{most: half}
	s := newJudged(nil, judge, nil, weighted(1, 1, 1)...)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 200 {
				s.pick(t, start).Done(balancer.Outcome{At: start, Failed: true, Status: 500})
			}
		})
	}
	workers.Wait()
	if c := s.Counts(start); c.Ejected != 1 || judge.granted.Load() != 1 {
		t.Errorf("got %+v, %d granted; want 1", c, judge.granted.Load())
	}
}

// late is a judge who trusts at each answer, and lets something happen before it
// says so.
type late struct {
	strict
	before func()
}

func (j *late) Record() balancer.Record { return (*lateRecord)(j) }

type lateRecord late

func (r *lateRecord) Note(o balancer.Outcome) balancer.Verdict {
	if before := r.before; o.Status == 200 && before != nil {
		r.before = nil
		before()
	}
	return (*strictRecord)(&r.strict).Note(o)
}

func (r *lateRecord) Ejected(balancer.Ejection) {}

func TestAnswerUnderWayDoesNotEndTheProbationOfOneJustEjected(t *testing.T) {
	judge := &late{strict: strict{most: half}}
	s := newJudged(nil, judge, nil, weighted(1, 1)...)
	good := s.pick(t, start)
	judge.before = func() { s.fail(t, id(good), start) }
	good.Done(balancer.Outcome{At: start, Status: 200})
	if e := good.Endpoint(); e.Ejection() == (balancer.Ejection{}) || !e.OnProbation() {
		t.Errorf("ejected %+v, on probation %v; want both", e.Ejection(), e.OnProbation())
	}
}

func TestLeaseSaysWhetherAnotherIsInUseAndWhetherOneIsEjected(t *testing.T) {
	s := newJudged(nil, &strict{most: half}, nil, weighted(1, 1, 1)...)
	if l := s.pick(t, start); !l.Another() || l.Spare() {
		t.Errorf("all well: got another %v, spare %v; want true and false", l.Another(), l.Spare())
	}
	s.fail(t, "0", start)
	first := s.pick(t, start)
	second := s.pick(t, start, first.Endpoint())
	third := s.pick(t, start, first.Endpoint(), second.Endpoint())
	for n, c := range []struct {
		lease          balancer.Lease
		another, spare bool
	}{{first, true, true}, {second, false, true}, {third, false, false}} {
		if c.lease.Another() != c.another || c.lease.Spare() != c.spare {
			t.Errorf("pick %d: got another %v, spare %v; want %v and %v", n+1, c.lease.Another(), c.lease.Spare(), c.another, c.spare)
		}
	}
}

// It may be well again: to try it is better than to ask the same ones twice.
func TestEjectedInstanceIsTriedByARequestThatAllOthersHaveFailed(t *testing.T) {
	s := newJudged(nil, &strict{most: half}, nil, weighted(1, 1, 1)...)
	s.fail(t, "0", start)
	first := s.pick(t, start)
	second := s.pick(t, start, first.Endpoint())
	if id(first) == "0" || id(second) == "0" || id(first) == id(second) {
		t.Fatalf("picked %s and %s; want the two that are not ejected", id(first), id(second))
	}
	third := s.pick(t, start, first.Endpoint(), second.Endpoint())
	if id(third) != "0" {
		t.Errorf("picked %s again; want the ejected one", id(third))
	}
	if fourth := s.pick(t, start, first.Endpoint(), second.Endpoint(), third.Endpoint()); id(fourth) == "0" {
		t.Error("picked the ejected one twice; want another")
	}
}
