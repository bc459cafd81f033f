package balancer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// answer is how an instance of a simulation answers: after how long, and what.
type answer struct {
	after time.Duration
	code  outcome.Code
}

func in(d time.Duration) answer { return answer{after: d, code: outcome.OK} }

// sim sends requests to a service, in a time of its own.
type sim struct {
	*service
	t   *testing.T
	now time.Time
	// answers says how an instance answers what it is given now, with so many
	// requests in flight besides. Required.
	answers func(id string, now time.Time, busy int) answer
	open    []flying // by their end
	calls   []call
	good    int // answers that came
}

type flying struct {
	lease balancer.Lease
	at    time.Time
	answer
}

type call struct {
	at time.Time
	id string
}

func newSim(t *testing.T, n int, answers func(id string, now time.Time, busy int) answer) *sim {
	return &sim{service: newService(balancer.Config{}, weighted(slices.Repeat([]int{1}, n)...)...), t: t, now: start, answers: answers}
}

// end ends what is over by then.
func (s *sim) end(then time.Time) {
	for len(s.open) > 0 && !s.open[0].at.After(then) {
		f := s.open[0]
		s.open = s.open[1:]
		if f.code == outcome.OK {
			s.good++
		}
		f.lease.Done(outcome.Result{Code: f.code, Began: f.at.Add(-f.after), At: f.at, Latency: f.after})
	}
}

func (s *sim) send() {
	s.end(s.now)
	lease := s.pick(s.t, s.now)
	a := s.answers(id(lease), s.now, lease.Endpoint().InFlight()-1)
	f := flying{lease, s.now.Add(a.after), a}
	k, _ := slices.BinarySearchFunc(s.open, f, func(a, b flying) int { return a.at.Compare(b.at) })
	s.open = slices.Insert(s.open, k, f)
	s.calls = append(s.calls, call{s.now, id(lease)})
}

// run sends for so long, at random times, whatever becomes of the requests.
func (s *sim) run(perSecond float64, d time.Duration) {
	for end := s.now.Add(d); ; {
		s.now = s.now.Add(time.Duration(rand.ExpFloat64() / perSecond * float64(time.Second)))
		if s.now.After(end) {
			s.now = end
			return
		}
		s.send()
	}
}

// oneByOne sends n requests, each 3ms after the answer to the one before.
func (s *sim) oneByOne(n int) {
	for range n {
		s.send()
		s.now = s.open[0].at.Add(3 * time.Millisecond)
		s.end(s.now)
	}
}

// share returns an instance's share of the calls since from.
func (s *sim) share(id string, from time.Time) float64 {
	all, its := 0, 0
	for _, c := range s.calls {
		if !c.at.Before(from) {
			all++
			if c.id == id {
				its++
			}
		}
	}
	return float64(its) / float64(max(all, 1))
}

// noisy is what latencies look like: around 2ms, 3.3 times as much or more in 1
// of 40, and a hiccup of 50 to 300ms in 1 of 100.
func noisy() time.Duration {
	if rand.IntN(100) == 0 {
		return 50*time.Millisecond + rand.N(250*time.Millisecond)
	}
	return time.Duration(2 * float64(time.Millisecond) * math.Exp(rand.NormFloat64()*0.6))
}

func TestLikeInstancesShareEvenlyThoughTheirLatenciesAreNoisy(t *testing.T) {
	noise := func(string, time.Time, int) answer { return in(noisy()) }
	t.Run("one by one", func(t *testing.T) {
		const rounds = 300
		fair := 0
		for range rounds {
			s := newSim(t, 3, noise)
			s.oneByOne(60)
			least := 60.0
			for n := range 3 {
				least = min(least, 60*s.share(fmt.Sprint(n), start))
			}
			if least >= 12 {
				fair++
			}
		}
		if part := float64(fair) / rounds; part < 0.9 {
			t.Errorf("in %.0f%% of the rounds each got 12 of 60 calls or more; want 90%%", 100*part)
		} else {
			t.Logf("in %.0f%% of the rounds each got 12 of 60 calls or more", 100*part)
		}
	})
	for _, rate := range []float64{20, 70, 200, 600} {
		t.Run(fmt.Sprintf("%.0f a second", rate), func(t *testing.T) {
			s := newSim(t, 3, noise)
			s.run(rate, time.Duration(30_000/rate*float64(time.Second)))
			for n := range 3 {
				if share := s.share(fmt.Sprint(n), start); share < 0.28 || share > 0.39 {
					t.Errorf("instance %d got %.3f of the calls; want about a third", n, share)
				}
			}
		})
	}
}

// slowFrom makes instance 0 a hundred times as slow for a while.
func slowFrom(from, to time.Duration) func(id string, now time.Time, busy int) answer {
	return func(id string, now time.Time, _ int) answer {
		d := noisy()
		if t := now.Sub(start); id == "0" && t >= from && t < to {
			d *= 100
		}
		return in(d)
	}
}

func TestSlowInstanceLosesItsShareWithinFiveSeconds(t *testing.T) {
	for _, rate := range []float64{70, 200, 1000} {
		s := newSim(t, 3, slowFrom(10*time.Second, time.Hour))
		s.run(rate, 40*time.Second)
		for _, from := range []time.Duration{10 * time.Second, 15 * time.Second} {
			if share := s.share("0", start.Add(from)); share >= 0.05 {
				t.Errorf("%v a second: the slow one got %.3f of the calls from %v on; want less than 0.05", rate, share, from)
			}
		}
		if share := s.share("0", start.Add(20*time.Second)); share == 0 {
			t.Errorf("%v a second: the slow one got no call for 20s; want it asked now and then", rate)
		}
	}
}

func TestInstanceThatIsQuickAgainIsBackInUse(t *testing.T) {
	const rounds = 20
	back := 0
	for range rounds {
		s := newSim(t, 3, slowFrom(0, 30*time.Second))
		s.run(70, 38*time.Second) // 5 times Decay, and the slow answer that may be under way
		from := s.now
		s.run(70, 20*time.Second)
		if s.share("0", from) >= 0.2 {
			back++
		}
	}
	// In 1 of 130 an answer of 30s, a hiccup while it was slow, is under way.
	if back < rounds*4/5 {
		t.Errorf("in %d of %d rounds it got a fifth of the calls or more; want about a third in nearly all", back, rounds)
	}
}

func TestInstanceThatAnswers500AtOnceNeverLooksFast(t *testing.T) {
	s := newSim(t, 3, func(id string, _ time.Time, _ int) answer {
		if id == "0" {
			return answer{after: 100 * time.Microsecond, code: outcome.Error}
		}
		return in(5 * time.Millisecond)
	})
	s.run(200, 5*time.Second)
	if share := s.share("0", start); share > 0.02 {
		t.Errorf("got %.3f of the calls in 5s; want 0.02 or less", share)
	}
	from := s.now
	s.run(200, 30*time.Second)
	if share := s.share("0", from); share > 0.005 || share == 0 {
		t.Errorf("got %.4f of the calls after that; want 0.005 or less, and some", share)
	}
}

// A failure now and then is everybody's.
func TestOneFailureCostsLittle(t *testing.T) {
	s := newSim(t, 3, func(id string, _ time.Time, _ int) answer {
		if id == "0" && rand.IntN(50) == 0 {
			return answer{after: time.Millisecond, code: outcome.Error}
		}
		return in(2 * time.Millisecond)
	})
	s.run(200, 30*time.Second)
	if share := s.share("0", start); share < 0.27 {
		t.Errorf("an instance of whose answers 1 in 50 fails got %.3f of the calls; want nearly a third", share)
	}
}

func TestWhenAllFailAllAreTried(t *testing.T) {
	s := newSim(t, 3, func(string, time.Time, int) answer { return answer{after: time.Millisecond, code: outcome.Error} })
	s.run(200, 20*time.Second)
	for n := range 3 {
		if share := s.share(fmt.Sprint(n), start); share < 0.25 {
			t.Errorf("instance %d got %.3f of the calls; want about a third", n, share)
		}
	}
}

// limited is an instance that works on 4 requests at once, each for 20ms, lets 8
// in, and sheds the rest.
type limited map[string][]time.Time // when each slot is free

func (l limited) answer(id string, now time.Time, busy int) answer {
	slots := l[id]
	if slots == nil {
		slots = make([]time.Time, 4)
		l[id] = slots
	}
	if busy >= 8 {
		return answer{after: 500 * time.Microsecond, code: outcome.Overload}
	}
	k := 0
	for n := range slots {
		if slots[n].Before(slots[k]) {
			k = n
		}
	}
	if slots[k].Before(now) {
		slots[k] = now
	}
	slots[k] = slots[k].Add(20 * time.Millisecond)
	return in(slots[k].Sub(now))
}

func TestShedRequestsCostNoGoodput(t *testing.T) {
	s := newSim(t, 3, limited{}.answer)
	s.run(3*600, 10*time.Second)
	if most := 600 * 10; s.good < most*95/100 {
		t.Errorf("of three times what the instances can do, %d were answered; want 95%% of the %d they can", s.good, most)
	}
}

func TestInstanceThatShedsGetsLess(t *testing.T) {
	s := newSim(t, 3, func(id string, _ time.Time, _ int) answer {
		if id == "0" {
			return answer{after: 500 * time.Microsecond, code: outcome.Overload}
		}
		return in(5 * time.Millisecond)
	})
	s.run(200, 10*time.Second)
	if share := s.share("0", start); share > 0.05 {
		t.Errorf("got %.3f of the calls; want 0.05 or less", share)
	}
}

func TestNewcomerAmongSlowOnesIsNeitherFloodedNorStarved(t *testing.T) {
	s := newSim(t, 3, func(string, time.Time, int) answer { return in(50 * time.Millisecond) })
	s.run(600, 5*time.Second) // 10 in flight at each
	from := s.now
	s.publish(s.now, weighted(1, 1, 1, 1)...)
	s.run(600, 50*time.Millisecond)
	for _, e := range s.Endpoints() {
		if n := e.InFlight(); e.Instance().ID == "3" && n > 14 {
			t.Errorf("the newcomer has %d in flight before its first answer; want no more than the others, about 8", n)
		}
	}
	s.run(600, 2*time.Second)
	if share := s.share("3", from); share < 0.2 || share > 0.3 {
		t.Errorf("the newcomer got %.3f of the calls; want about a quarter", share)
	}
}

func TestWhatWasLearntSurvivesAChangeOfTheSet(t *testing.T) {
	s := newSim(t, 3, slowFrom(0, time.Hour))
	s.run(200, 5*time.Second)
	from := s.now
	for n := range 20 { // the set changes every 100ms
		s.publish(s.now, weighted(slices.Repeat([]int{1}, 3+n%3)...)...)
		s.run(200, 100*time.Millisecond)
	}
	if share := s.share("0", from); share > 0.05 {
		t.Errorf("the slow one got %.3f of the calls while the set changed; want 0.05 or less", share)
	}
}

func TestSharesFollowWeightsThoughLatenciesAreNoisy(t *testing.T) {
	s := newSim(t, 3, func(string, time.Time, int) answer { return in(noisy()) })
	s.publish(start, weighted(1, 2, 5)...)
	s.run(200, 150*time.Second)
	for n, want := range []float64{0.125, 0.25, 0.625} {
		if share := s.share(fmt.Sprint(n), start); math.Abs(share-want) > 0.05 {
			t.Errorf("instance %d got %.3f of the calls; want %.3f ± 0.05", n, share, want)
		}
	}
}
