package balancer_test

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

const patience = time.Second

// silent is the end of a request that was not answered for so long.
func silent(g outcome.Group, at time.Time, lasted time.Duration) outcome.Result {
	return outcome.Result{Code: outcome.Silent, Group: g, Began: at.Add(-lasted), At: at, Latency: lasted}
}

// quick is an answer.
func quick(g outcome.Group, at time.Time, took time.Duration) outcome.Result {
	return outcome.Result{Code: outcome.OK, Group: g, Began: at.Add(-took), At: at, Latency: took}
}

// wantOut checks which are ejected, by their index.
func (s *service) wantOut(t *testing.T, now time.Time, want ...int) {
	t.Helper()
	out := map[int]bool{}
	for _, n := range want {
		out[n] = true
	}
	for n, e := range s.Endpoints() {
		if got := e.State(now) == outlier.Ejected; got != out[n] {
			t.Errorf("%s: ejected %v; want %v", e.Instance().ID, got, out[n])
		}
	}
}

func TestInstanceThatIsSilentWhereOthersAnswerIsEjected(t *testing.T) {
	for _, g := range []outcome.Group{outcome.Safe, outcome.Unsafe} {
		s := newService(balancer.Config{Outliers: rules(t, outlier.Config{})}, weighted(1, 1, 1)...)
		now := start.Add(time.Minute)
		for n, e := range s.Endpoints() {
			s.Note(e, quick(g, now, []time.Duration{5, 5, 900}[n]*time.Millisecond))
		}
		for range 3 {
			now = now.Add(patience)
			s.Note(s.Endpoints()[0], silent(g, now, patience))
		}
		s.wantOut(t, now, 0)
	}
}

// Seen: four instances that hung on everything, two of them ejected for it.
func TestWhenAllAreSilentNoneIsEjected(t *testing.T) {
	for name, answers := range map[string]bool{"from the first request on": false, "after a good time": true} {
		t.Run(name, func(t *testing.T) {
			s := newService(balancer.Config{Outliers: rules(t, outlier.Config{ConsecutiveGateway: 2})}, weighted(1, 1, 1, 1)...)
			now := start.Add(time.Minute)
			for range 3 {
				for _, e := range s.Endpoints() {
					if answers {
						s.Note(e, quick(outcome.Safe, now, 5*time.Millisecond))
					}
				}
			}
			for round := range 20 {
				for _, e := range s.Endpoints() {
					now = now.Add(patience)
					s.Note(e, silent(outcome.Safe, now, patience))
					if e.State(now) == outlier.Suspect && round > 0 {
						t.Errorf("%s: suspect in round %d; want one that is as silent as the others held against none", e.Instance().ID, round+1)
					}
				}
			}
			s.wantOut(t, now)
			// Once one answers, those that do not are worse again.
			s.Note(s.Endpoints()[3], quick(outcome.Safe, now, 5*time.Millisecond))
			for range 2 {
				now = now.Add(patience)
				s.Note(s.Endpoints()[0], silent(outcome.Safe, now, patience))
			}
			s.wantOut(t, now, 0)
		})
	}
}

func TestSilenceIsHeldAgainstAnInstanceWhileNothingIsKnownOfTheOthers(t *testing.T) {
	s := newService(balancer.Config{Outliers: rules(t, outlier.Config{})}, weighted(1, 1, 1)...)
	now := start.Add(time.Minute)
	// Answers to the other group tell nothing of this one.
	for _, e := range s.Endpoints() {
		s.Note(e, quick(outcome.Safe, now, 5*time.Millisecond))
	}
	for range 3 {
		now = now.Add(patience)
		s.Note(s.Endpoints()[0], silent(outcome.Unsafe, now, patience))
	}
	s.wantOut(t, now, 0)
}

func TestSilenceThatIsNoLongerThanOthersTakeProvesNothing(t *testing.T) {
	for _, c := range []struct {
		took   time.Duration
		others outcome.Code
		out    []int
	}{
		{1500 * time.Millisecond, outcome.OK, nil},
		{1500 * time.Millisecond, outcome.Error, nil},
		{patience, outcome.OK, nil},
		{patience - 1, outcome.OK, []int{0}},
		{patience - 1, outcome.Error, []int{0}}, // it answers, be it with a 500
	} {
		s := newService(balancer.Config{Outliers: rules(t, outlier.Config{Consecutive: 100})}, weighted(1, 1, 1)...)
		now := start.Add(time.Minute)
		for range 5 {
			now = now.Add(patience)
			for _, e := range s.Endpoints()[1:] {
				r := quick(outcome.Safe, now, c.took)
				r.Code = c.others
				s.Note(e, r)
				// Another group's answers are quick, and say nothing of this one.
				s.Note(e, quick(outcome.Unsafe, now, time.Millisecond))
			}
			s.Note(s.Endpoints()[0], silent(outcome.Safe, now, patience))
		}
		s.wantOut(t, now, c.out...)
	}
}

func TestInstanceThatHangsOnUnsafeRequestsIsEjectedThoughItsSafeOnesAreWell(t *testing.T) {
	each(t, func(t *testing.T, policy balancer.Policy) {
		s := newService(balancer.Config{Policy: policy, Outliers: rules(t, outlier.Config{})}, weighted(1, 1, 1)...)
		now, sick := start, s.Endpoints()[0]
		send := func(g outcome.Group, now time.Time) (executions int) {
			lease := s.pick(t, now)
			if g == outcome.Unsafe && lease.Endpoint() == sick {
				lease.Done(silent(g, now, patience))
				return 1
			}
			lease.Done(quick(g, now, 5*time.Millisecond))
			return 0
		}
		hung := 0
		for range 400 {
			now = now.Add(4 * time.Second) // nothing is suspect any more
			hung += send(outcome.Unsafe, now)
			for range 3 {
				send(outcome.Safe, now)
			}
			if sick.State(now) == outlier.Ejected {
				break
			}
		}
		if hung != 3 || sick.State(now) != outlier.Ejected {
			t.Fatalf("%v after %d silent unsafe requests; want it ejected after 3", sick.State(now), hung)
		}
		// On trial, answers to safe requests win it nothing.
		now = sick.Ejection().Until
		for range 50 {
			send(outcome.Safe, now)
		}
		if got := sick.State(now); got != outlier.OnTrial {
			t.Errorf("got %v after safe requests; want it on trial", got)
		}
	})
}

func TestRequestsOfAnotherGroupThatWaitDoNotExcuseASilence(t *testing.T) {
	s := newService(balancer.Config{Outliers: rules(t, outlier.Config{})}, weighted(1, 1, 1)...)
	for range 9 {
		s.pick(t, start) // safe ones wait at each
	}
	for range 3 {
		s.Note(s.Endpoints()[0], silent(outcome.Unsafe, start.Add(patience), patience))
	}
	s.wantOut(t, start.Add(patience), 0)
}

// When all become slow at once, the first to be noticed is not alone.
func TestSilenceWhileOthersHaveRequestsWaitingProvesNothing(t *testing.T) {
	s := newService(balancer.Config{Outliers: rules(t, outlier.Config{Consecutive: 1})}, weighted(1, 1, 1)...)
	for range 30 { // all are quick
		lease := s.pick(t, start)
		lease.Done(outcome.Result{Code: outcome.OK, Began: start, At: start, Latency: time.Millisecond})
	}
	began := start.Add(time.Second)
	at := began.Add(2 * time.Second)
	for n := range 20 {
		var open []balancer.Lease
		for range 6 {
			open = append(open, s.pick(t, began))
		}
		for _, lease := range open {
			lease.Done(outcome.Result{Code: outcome.Silent, Began: began, At: at, Latency: 2 * time.Second})
		}
		if c := s.Counts(at); c.Ejected != 0 {
			t.Fatalf("round %d: got %+v; want none ejected", n, c)
		}
		began, at = at, at.Add(2*time.Second)
	}
}
