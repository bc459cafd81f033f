package balancer_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

func rules(t testing.TB, cfg outlier.Config) *outlier.Rules {
	t.Helper()
	rules, err := outlier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// strict returns rules that eject at each failure, half at most and for 10s, and
// trust again after an answer.
func strict(t testing.TB) *outlier.Rules {
	return rules(t, outlier.Config{Consecutive: 1, Ejection: 10 * time.Second, MaxEjection: 10 * time.Second, Probation: 1})
}

// newStrict is a service of those rules.
func newStrict(t testing.TB, policy balancer.Policy, instances ...catalog.Instance) *service {
	return newService(balancer.Config{Policy: policy, Outliers: strict(t)}, instances...)
}

// fail lets an instance fail.
func (s *service) fail(t *testing.T, want string, now time.Time) {
	t.Helper()
	var held []balancer.Lease
	defer func() {
		for _, lease := range held {
			lease.Done(result(outcome.None, now))
		}
	}()
	var tried []*balancer.Endpoint
	for range len(s.Endpoints()) {
		lease := s.pick(t, now, tried...)
		if id(lease) == want {
			lease.Done(result(outcome.Error, now))
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
			s := newService(balancer.Config{Policy: policy, Outliers: strict(t), Trace: &balancer.Trace{
				Ejected: func(service string, i catalog.Instance, x outlier.Ejection) {
					told = append(told, fmt.Sprint(service, " ", i.ID, " ", x.Reason, " ", x.Until.Sub(x.At)))
				},
			}}, weighted(1, 1, 1)...)
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
				t.Errorf("got %+v; want none ejected", c)
			}
		})
	}
}

func TestFailureOfOneMoreThanMayBeOutIsTold(t *testing.T) {
	var told []string
	s := newService(balancer.Config{Outliers: strict(t), Trace: &balancer.Trace{
		Capped: func(service string, i catalog.Instance) { told = append(told, service+" "+i.ID) },
	}}, weighted(1, 1, 1)...)
	s.fail(t, "0", start)
	if len(told) != 0 {
		t.Errorf("told %v of one of three, which was ejected; want nothing", told)
	}
	s.fail(t, "1", start)
	if len(told) != 1 || told[0] != "order 1" {
		t.Errorf("told %v; want order 1, which stays in use", told)
	}
}

func TestInstanceOnTrialGetsOneRequestAtATime(t *testing.T) {
	for name, policy := range map[string]balancer.Policy{"PeakEWMA": balancer.PeakEWMA{}, "P2C": balancer.P2C{}} {
		t.Run(name, func(t *testing.T) {
			s := newStrict(t, policy, weighted(1, 1, 1)...)
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
				t.Errorf("got %v; want one request on the one on trial", got)
			}
			for _, lease := range open {
				lease.Done(result(outcome.OK, now))
			}
			if got := load(); got["0"] < 17 || got["0"] > 23 {
				t.Errorf("got %v; want 20 on the one that is trusted again", got)
			}
		})
	}
}

func TestInstanceOnTrialIsUsedWhenNobodyElseIsLeft(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1)...)
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
	told := 0
	s := newService(balancer.Config{Outliers: strict(t), Trace: &balancer.Trace{
		Ejected: func(string, catalog.Instance, outlier.Ejection) { told++ },
	}}, weighted(1, 1, 1)...)
	for n := range 3 {
		s.fail(t, fmt.Sprint(n), start)
	}
	if c := s.Counts(start); c.Ejected != 1 || told != 1 {
		t.Errorf("got %+v, %d told; want 1 ejected", c, told)
	}
	later := start.Add(time.Second)
	if got := s.picked(t, 100, later); got["0"] != 0 || len(got) != 2 {
		t.Errorf("got %v; want the two that are left", got)
	}
}

func TestOneInstanceIsNeverEjectedWhateverTheRulesSay(t *testing.T) {
	for n := 1; n <= 4; n++ {
		all := rules(t, outlier.Config{Consecutive: 1, MaxEjected: 100})
		s := newService(balancer.Config{Outliers: all}, fleet(n)...)
		for range 100 {
			lease := s.pick(t, start)
			lease.Done(result(outcome.Error, start))
		}
		if c := s.Counts(start); c.Ejected != n-1 {
			t.Errorf("%d instances: got %+v; want all but one ejected", n, c)
		}
	}
}

func TestSetThatShrinksLetsTheEjectedBackThatAreOverTheCap(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1, 1, 1)...)
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
	s := newStrict(t, nil, weighted(1, 1, 1)...)
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
	s := newStrict(t, nil, instance("0"), instance("1"), critical)
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
	s := newStrict(t, nil, all...)
	s.fail(t, "0", start)
	if got := s.picked(t, 60, start); got["0"] != 0 || !s.Counts(start).Panic || s.Counts(start).Ejected != 1 {
		t.Errorf("got %v, %+v; want panic without the one that fails", got, s.Counts(start))
	}
}

func TestEndpointSaysWhenAndWhyItWasEjected(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1)...)
	e := s.Endpoints()[0]
	if x := e.Ejection(); x != (outlier.Ejection{}) || e.State(start) != outlier.Healthy || !x.Over(start) {
		t.Errorf("got %+v, %v; want the zero value before any ejection", x, e.State(start))
	}
	s.fail(t, "0", start)
	want := outlier.Ejection{At: start, Until: start.Add(10 * time.Second), Reason: outcome.Error}
	if x := e.Ejection(); x != want || e.State(start) != outlier.Ejected || e.State(want.Until) != outlier.OnTrial {
		t.Errorf("got %+v, %v; want %+v", x, e.State(start), want)
	}
}

func TestOneOfTwoThatFailAtOnceIsEjected(t *testing.T) {
	var told atomic.Int32
	s := newService(balancer.Config{Outliers: strict(t), Trace: &balancer.Trace{
		Ejected: func(string, catalog.Instance, outlier.Ejection) { told.Add(1) },
	}}, weighted(1, 1, 1)...)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for range 200 {
				s.pick(t, start).Done(result(outcome.Error, start))
			}
		})
	}
	workers.Wait()
	if c := s.Counts(start); c.Ejected != 1 || told.Load() != 1 {
		t.Errorf("got %+v, %d told; want 1", c, told.Load())
	}
}

// The one answers, and the other fails it: who is first differs.
func TestAnswerUnderWayDoesNotEndTheTrialOfOneJustEjected(t *testing.T) {
	for range 200 {
		s := newStrict(t, nil, weighted(1, 1)...)
		good := s.pick(t, start)
		e := good.Endpoint()
		var workers sync.WaitGroup
		workers.Go(func() { good.Done(outcome.Result{Code: outcome.OK, Began: start, At: start.Add(time.Second)}) })
		workers.Go(func() { s.fail(t, e.Instance().ID, start.Add(time.Second)) })
		workers.Wait()
		if x := e.Ejection(); x == (outlier.Ejection{}) || e.State(x.Until) != outlier.OnTrial {
			t.Fatalf("ejected %+v, then %v; want it on trial", x, e.State(x.Until))
		}
	}
}

func TestLeftSaysWhetherAnotherIsInUseAndWhetherOneIsEjected(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1, 1)...)
	first := s.pick(t, start).Endpoint()
	s.wantLeft(t, start, true, true, first)
	s.fail(t, "0", start)
	s.wantLeft(t, start, true, true)
	first = s.pick(t, start).Endpoint()
	s.wantLeft(t, start, true, true, first)
	second := s.pick(t, start, first).Endpoint()
	s.wantLeft(t, start, false, true, first, second)
	third := s.pick(t, start, first, second).Endpoint()
	s.wantLeft(t, start, false, false, first, second, third)
}

// It may be well again: to try it is better than to ask the same ones twice.
func TestEjectedInstanceIsTriedByARequestThatAllOthersHaveFailed(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1, 1)...)
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
