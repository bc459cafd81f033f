package balancer_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// Seen: one open stream kept an instance that had recovered out for ever.
func TestATrialEndsWithHeadersThoughTheBodyStaysOpen(t *testing.T) {
	each(t, func(t *testing.T, policy balancer.Policy) {
		s := newService(balancer.Config{Policy: policy, Outliers: rules(t, outlier.Config{Consecutive: 1, Probation: 3})}, weighted(1, 1)...)
		s.fail(t, "0", start)
		e := s.Endpoints()[0]
		now := e.Ejection().Until
		for n := range 3 {
			if got := e.State(now); got != outlier.OnTrial {
				t.Fatalf("got %v after %d headers; want it on trial until 3", got, n)
			}
			// Nothing is load now but the streams that have begun.
			lease := s.pick(t, now, s.Endpoints()[1])
			if id(lease) != "0" {
				t.Fatalf("got %s; want the one on trial: its stream has its headers", id(lease))
			}
			lease.Answered(result(outcome.OK, now))
		}
		if got := e.State(now); got != outlier.Healthy || e.InFlight() != 3 {
			t.Errorf("got %v with %d in flight; want it healthy, and three streams", got, e.InFlight())
		}
	})
}

func TestOpenBodyLeavesOneOnTrialFreeForItsNextRequest(t *testing.T) {
	s := newService(balancer.Config{Policy: firstOfTier{}, Outliers: rules(t, outlier.Config{Consecutive: 1})}, weighted(1, 1)...)
	s.fail(t, "0", start)
	now := s.Endpoints()[0].Ejection().Until
	first := s.pick(t, now)
	second := s.pick(t, now)
	if id(first) != "0" || id(second) != "1" {
		t.Fatalf("picked %s and %s; want the one on trial, and the other while that waits", id(first), id(second))
	}
	s.wantLeft(t, now, true, true, second.Endpoint()) // a second request is better than none
	first.Answered(result(outcome.OK, now))
	if next := s.pick(t, now); id(next) != "0" {
		t.Errorf("picked %s; want the one on trial, whose headers have come", id(next))
	}
}

func TestABodyAtRestIsNoLoadUntilItResumes(t *testing.T) {
	s := newService(balancer.Config{}, weighted(1)...)
	e := s.Endpoints()[0]
	want := func(when string, n int) {
		t.Helper()
		if got := e.InFlight(); got != n {
			t.Errorf("%s: got %d in flight; want %d", when, got, n)
		}
	}
	lease := s.pick(t, start)
	want("picked", 1)
	body := lease.Answered(result(outcome.OK, start))
	want("answered", 1)
	for range 3 {
		body.Rest()
		want("at rest", 0)
		body.Resume()
		want("resumed", 1)
	}
	body.Done(result(outcome.None, start))
	want("done", 0)
}

func TestBodyThatBreaksOffIsHeldAgainstItsInstance(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1)...)
	lease := s.pick(t, start)
	lease.Answered(result(outcome.OK, start)).Done(result(outcome.BodyBroken, start))
	if x := lease.Endpoint().Ejection(); x.Reason != outcome.BodyBroken {
		t.Errorf("got %+v; want it ejected", x)
	}
}

func TestWhatEndsABodyWithoutACodeIsToldToNone(t *testing.T) {
	policy := &counter{told: map[outcome.Code]int{}}
	s := newService(balancer.Config{Policy: policy}, weighted(1)...)
	s.pick(t, start).Answered(result(outcome.OK, start)).Done(outcome.Result{})
	if len(policy.told) != 1 || policy.told[outcome.OK] != 1 {
		t.Errorf("told %v; want the answer, and no more", policy.told)
	}
}

// Seen: two thirds of all requests went to the newcomer.
func TestNewcomerBesideInstancesWithRestingBodiesGetsAnEvenShare(t *testing.T) {
	for _, policy := range []balancer.Policy{balancer.PeakEWMA{}, balancer.P2C{}} {
		s := newService(balancer.Config{Policy: policy}, weighted(1, 1, 1)...)
		for range 300 {
			s.pick(t, start).Answered(answered(start)).Rest()
		}
		s.publish(start, weighted(1, 1, 1, 1)...)
		got := map[string]int{}
		open := make([]balancer.Lease, 0, 4)
		for range 20_000 { // four at once
			if len(open) == cap(open) {
				open[0].Done(answered(start))
				open = append(open[:0], open[1:]...)
			}
			lease := s.pick(t, start)
			got[id(lease)]++
			open = append(open, lease)
		}
		wantShares(t, got, 1, 1, 1, 1)
	}
}

// A dead instance is met by one caller, not by all that come within the time of
// a dial.
func TestWhileADialIsMadeAnInstanceGetsOneRequestAtATime(t *testing.T) {
	each(t, func(t *testing.T, policy balancer.Policy) {
		s := newService(balancer.Config{Policy: policy}, weighted(1, 1, 1)...)
		e := s.Endpoints()[0]
		dials := []*balancer.Dial{e.Dial(), e.Dial()}
		load := func() map[string]int {
			got := map[string]int{}
			for range 60 {
				lease := s.pick(t, start)
				got[id(lease)]++
				defer lease.Done(result(outcome.None, start))
			}
			return got
		}
		if got := load(); got["0"] != 1 {
			t.Errorf("got %v while two dials are made; want one", got)
		}
		dials[0].Done()
		if got := load(); got["0"] != 1 {
			t.Errorf("got %v while a dial is made; want one", got)
		}
		dials[1].Done()
		if got := load(); got["0"] < 2 {
			t.Errorf("got %v after it; want a share again", got)
		}
	})
}

// It is there: others of its requests have their connections.
func TestInstanceWithMoreRequestsThanDialsIsInUseAsBefore(t *testing.T) {
	s := newService(balancer.Config{Policy: firstOfTier{}}, weighted(1, 1)...)
	e := s.Endpoints()[0]
	for n, want := range []string{"0", "0", "0", "0", "1", "1"} {
		if n == 2 {
			e.Dial() // for one of the two before
		}
		if n == 4 { // now as many dials as requests
			for range 3 {
				e.Dial()
			}
		}
		if got := id(s.pick(t, start)); got != want {
			t.Errorf("pick %d: got %s; want %s", n+1, got, want)
		}
	}
}

func TestWhileADialIsStalledAnInstanceGetsNothingWhileOthersAreLeft(t *testing.T) {
	each(t, func(t *testing.T, policy balancer.Policy) {
		s := newService(balancer.Config{Policy: policy}, weighted(1, 1, 1)...)
		all := s.Endpoints()
		var dials []*balancer.Dial
		for n, e := range all[:2] {
			d := e.Dial()
			d.Stalled()
			d.Stalled() // twice is once
			dials = append(dials, d)
			if e.State(start) != outlier.Suspect {
				t.Errorf("got %v; want suspect", e.State(start))
			}
			if got := s.picked(t, 60, start); got[fmt.Sprint(n)] != 0 {
				t.Errorf("%d stalled: got %v; want none for them", n+1, got)
			}
		}
		if got := s.pick(t, start, all[2]); id(got) == "2" {
			t.Error("a tried one was picked; want one whose dial is stalled")
		} else {
			got.Done(result(outcome.None, start))
		}
		s.wantLeft(t, start, true, true, all[2])
		dials[0].Done()
		dials[1].Done()
		if all[0].State(start) != outlier.Healthy || all[1].State(start) != outlier.Healthy {
			t.Errorf("got %v and %v after the dials; want healthy", all[0].State(start), all[1].State(start))
		}
	})
}

// What says that a dial is stalled is a timer, which may be late.
func TestDialThatIsSaidToStallAfterItsEndIsNotStalled(t *testing.T) {
	s := newService(balancer.Config{}, weighted(1)...)
	e := s.Endpoints()[0]
	var ends sync.WaitGroup
	for range 200 {
		d := e.Dial()
		ends.Go(d.Stalled)
		ends.Go(d.Done)
	}
	ends.Wait()
	d := e.Dial()
	d.Done()
	d.Stalled()
	if got := e.State(start); got != outlier.Healthy {
		t.Errorf("got %v after all dials have ended; want healthy", got)
	}
}

func TestDialThatFailsAfterItsRequestHasGoneIsHeldAgainstItsInstance(t *testing.T) {
	s := newStrict(t, nil, weighted(1, 1)...)
	e := s.Endpoints()[0]
	d := e.Dial()
	d.Stalled()
	d.Done()
	s.Note(e, outcome.Result{Code: outcome.Unreachable, Began: start, At: start.Add(3 * time.Second)})
	if x := e.Ejection(); x.Reason != outcome.Unreachable {
		t.Errorf("got %+v; want it ejected", x)
	}
}
