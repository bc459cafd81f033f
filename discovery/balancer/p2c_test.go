package balancer_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// wantShares checks that each of the instances 0, 1, … got the share of its
// weight within 2 % of all picks.
func wantShares(t *testing.T, got map[string]int, weights ...int) {
	t.Helper()
	picks, total := 0, 0
	for i, w := range weights {
		picks += got[fmt.Sprint(i)]
		total += w
	}
	for i, w := range weights {
		share, want := float64(got[fmt.Sprint(i)])/float64(picks), float64(w)/float64(total)
		if math.Abs(share-want) > 0.02 {
			t.Errorf("instance %d of weight %d: got a share of %.3f; want %.3f ± 0.02 (%v)", i, w, share, want, got)
		}
	}
}

func weighted(weights ...int) []catalog.Instance {
	instances := make([]catalog.Instance, len(weights))
	for i, w := range weights {
		instances[i] = instance(fmt.Sprint(i), weight(w))
	}
	return instances
}

func TestLightLoadIsSharedEvenly(t *testing.T) {
	const rounds = 200
	near := 0
	for range rounds {
		s := newService(balancer.Config{}, weighted(1, 1, 1)...)
		got := s.picked(t, 60, start)
		for n := range 3 {
			calls := got[fmt.Sprint(n)]
			if calls < 12 || calls > 28 {
				t.Fatalf("got %v of 60 calls; want about 20 each, never below 12", got)
			}
			if calls >= 19 && calls <= 21 {
				near++
			}
		}
	}
	// Of two drawn at random one is left out, so 20 exactly can't be had.
	if share := float64(near) / (3 * rounds); share < 0.95 {
		t.Errorf("%.0f%% of the instances got 19 to 21 of 60 calls; want 95%%", 100*share)
	} else {
		t.Logf("%.0f%% of the instances got 19 to 21 of 60 calls", 100*share)
	}
}

func TestSharesFollowWeights(t *testing.T) {
	for _, weights := range [][]int{{1}, {5, 5}, {1, 1, 1, 1, 1}, {1, 1, 8}, {10, 1, 1}, {1, 9}, {65535, 1, 65535}, {3, 2, 1, 3, 2, 1, 40}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			wantShares(t, newService(balancer.Config{}, weighted(weights...)...).picked(t, 20_000, start), weights...)
		})
	}
}

// Under a load, a request is given to whom has the fewest, and the weights
// hold still.
func TestSharesFollowWeightsUnderLoad(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1}, {1, 1, 8}, {10, 1, 1}} {
		for _, concurrency := range []int{2, 5, 24} {
			t.Run(fmt.Sprint(weights, concurrency), func(t *testing.T) {
				s := newService(balancer.Config{}, weighted(weights...)...)
				got := map[string]int{}
				var open []balancer.Lease
				for range 20_000 {
					if len(open) == concurrency {
						k := rand.IntN(len(open))
						open[k].Done(result(outcome.None, start))
						open[k] = open[len(open)-1]
						open = open[:len(open)-1]
					}
					lease := s.pick(t, start)
					got[id(lease)]++
					open = append(open, lease)
				}
				wantShares(t, got, weights...)
			})
		}
	}
}

func TestBusyInstanceGetsLess(t *testing.T) {
	s := newService(balancer.Config{}, weighted(1, 1, 1)...)
	busy := s.pick(t, start)
	got := s.picked(t, 3_000, start)
	if got[id(busy)] != 0 {
		t.Errorf("got %v; want none for %s, which has a request more", got, id(busy))
	}
	// Free again, it is not owed the calls that it missed.
	busy.Done(result(outcome.None, start))
	got = s.picked(t, 300, start)
	if n := got[id(busy)]; n < 90 || n > 115 {
		t.Errorf("got %v; want about a third for %s, which is free again", got, id(busy))
	}
}

func TestLatencyIsWhatThePolicyExpects(t *testing.T) {
	for name, c := range map[string]struct {
		policy balancer.Policy
		want   time.Duration
	}{"PeakEWMA": {nil, 20 * time.Millisecond}, "P2C": {balancer.P2C{}, 0}} {
		s := newService(balancer.Config{Policy: c.policy}, weighted(1)...)
		e := s.Endpoints()[0]
		if got := s.Latency(e, start); got != 0 {
			t.Errorf("%s: got %v of one that was never asked; want 0", name, got)
		}
		for range 3 {
			r := result(outcome.OK, start)
			r.Latency = 20 * time.Millisecond
			s.pick(t, start).Done(r)
		}
		if got := s.Latency(e, start).Round(time.Microsecond); got != c.want {
			t.Errorf("%s: got %v after three answers; want %v", name, got, c.want)
		}
		if got := s.Latency(e, start.Add(time.Minute)); got != 0 {
			t.Errorf("%s: got %v a minute later; want 0", name, got)
		}
	}
}

func TestNewcomerIsNotFlooded(t *testing.T) {
	const rounds = 100
	got := 0
	for range rounds {
		s := newService(balancer.Config{}, weighted(1, 1, 1)...)
		s.picked(t, 1000, start)
		s.publish(start, weighted(1, 1, 1, 1)...)
		got += s.picked(t, 40, start)["3"]
	}
	if mean := float64(got) / rounds; mean < 9 || mean > 11 {
		t.Errorf("a newcomer got %v of its first 40 calls in the mean; want about 10", mean)
	}
}

func TestInstanceThatComesBackIsNotFlooded(t *testing.T) {
	const rounds = 100
	got := 0
	for range rounds {
		s := newService(balancer.Config{}, weighted(1, 1, 1)...)
		away := weighted(1, 1, 1)
		away[2].State = catalog.StateMaintenance
		s.publish(start, away...)
		s.picked(t, 1000, start)
		s.publish(start, weighted(1, 1, 1)...)
		got += s.picked(t, 30, start)["2"]
	}
	if mean := float64(got) / rounds; mean < 9 || mean > 11 {
		t.Errorf("the one that came back got %v of 30 calls in the mean; want about 10", mean)
	}
}

func TestPickAvoidsTriedOnesWhileAnotherIsLeft(t *testing.T) {
	for _, weights := range [][]int{{1, 1, 1, 1}, {1, 65535, 1, 7}} {
		s := newService(balancer.Config{}, weighted(weights...)...)
		for range 500 {
			var tried []*balancer.Endpoint
			for n := range weights {
				lease := s.pick(t, start, tried...)
				for _, e := range tried {
					if e == lease.Endpoint() {
						t.Fatalf("pick %d of %v is one that was tried", n, weights)
					}
				}
				tried = append(tried, lease.Endpoint())
				s.wantLeft(t, start, n < len(weights)-1, n < len(weights)-1, tried...)
				lease.Done(result(outcome.None, start))
			}
			lease := s.pick(t, start, tried...)
			if lease.Endpoint() == tried[len(tried)-1] {
				t.Fatal("with all tried, the latest was picked again")
			}
			lease.Done(result(outcome.None, start))
		}
	}
}

func TestOnlyInstanceIsPickedAgain(t *testing.T) {
	s := newService(balancer.Config{}, weighted(1)...)
	first := s.pick(t, start)
	if again := s.pick(t, start, first.Endpoint()); again.Endpoint() != first.Endpoint() {
		t.Error("want the only instance")
	}
	s.wantLeft(t, start, false, false, first.Endpoint())
}

// sampler is a policy that draws once, without a second choice.
type sampler struct{ not *balancer.Endpoint }

func (p *sampler) Pick(tier balancer.Tier, q balancer.Request) *balancer.Endpoint {
	return tier.Sample(q, p.not)
}

func (p *sampler) Learn(*balancer.Endpoint, outcome.Result) {}

func TestSampleDrawsByWeightAmongThoseLeft(t *testing.T) {
	weights := []int{4, 1, 3, 2, 90}
	policy := &sampler{}
	b := balancer.New("order", balancer.Config{Policy: policy})
	feed := catalog.NewFeed("order")
	feed.Publish(weighted(weights...), start)
	b.Use(feed.Current(), start)
	all := b.Endpoints()
	// 90 is out by not, 3 by Tried, twice, with one that is not in the set.
	policy.not = all[4]
	tried := []*balancer.Endpoint{all[2], new(balancer.Endpoint), all[2]}
	got := map[string]int{}
	for range 40_000 {
		lease, err := b.Pick(balancer.Request{Now: start, Tried: tried})
		if err != nil {
			t.Fatal(err)
		}
		got[id(lease)]++
	}
	wantShares(t, got, 4, 1, 0, 2, 0)
}

func fleet(n int) []catalog.Instance {
	instances := make([]catalog.Instance, n)
	for i := range instances {
		instances[i] = instance(fmt.Sprintf("order-%05d", i))
	}
	return instances
}

// patient returns rules that look at every result, and never eject.
func patient(t testing.TB) *outlier.Rules {
	return rules(t, outlier.Config{Consecutive: math.MaxInt, ConsecutiveGateway: -1, ConsecutiveUnreachable: -1})
}

// answered is an answer that took 3ms.
func answered(at time.Time) outcome.Result {
	const latency = 3 * time.Millisecond
	return outcome.Result{Code: outcome.OK, Began: at.Add(-latency), At: at, Latency: latency}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, policy := range []balancer.Policy{balancer.PeakEWMA{}, balancer.P2C{}} {
		for _, n := range []int{1, 3, 100, 5000} {
			for _, uneven := range []bool{false, true} {
				instances := fleet(n)
				if uneven {
					instances[0].Weight = 5
				}
				s := newService(balancer.Config{Policy: policy, Outliers: patient(t)}, instances...)
				tried := []*balancer.Endpoint{s.Endpoints()[0], s.Endpoints()[n/2]}
				now := start
				if got := testing.AllocsPerRun(200, func() {
					now = now.Add(time.Millisecond)
					s.Use(s.feed.Current(), now)
					s.pick(t, now).Done(answered(now))
					lease, _ := s.Pick(balancer.Request{Now: now, Tried: tried})
					lease.Done(result(outcome.Error, now))
				}); got != 0 {
					t.Errorf("%T, %d instances, uneven %v: got %v allocations; want 0", policy, n, uneven, got)
				}
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	begin := time.Now() // with a monotonic reading, as in use
	for _, policy := range []balancer.Policy{balancer.PeakEWMA{}, balancer.P2C{}} {
		for _, n := range []int{3, 100, 5000} {
			for _, uneven := range []bool{false, true} {
				instances := fleet(n)
				if uneven {
					instances[0].Weight = 5
				}
				s := newServiceAt(begin, balancer.Config{Policy: policy, Outliers: patient(b)}, instances...)
				tried := []*balancer.Endpoint{s.Endpoints()[0]}
				now := begin.Add(time.Second)
				for range 10 * n { // so that something is known of each
					s.pick(b, begin).Done(answered(begin))
				}
				done := answered(now)
				run := func(name string, q balancer.Request) {
					b.Run(fmt.Sprintf("%T/%s/instances=%d/uneven=%v", policy, name, n, uneven), func(b *testing.B) {
						b.ReportAllocs()
						for b.Loop() {
							lease, _ := s.Pick(q)
							lease.Done(done)
						}
					})
				}
				run("first", balancer.Request{Now: now})
				run("retry", balancer.Request{Now: now, Tried: tried})
				b.Run(fmt.Sprintf("%T/parallel/instances=%d/uneven=%v", policy, n, uneven), func(b *testing.B) {
					b.ReportAllocs()
					b.RunParallel(func(pb *testing.PB) {
						for pb.Next() {
							lease, _ := s.Pick(balancer.Request{Now: now})
							lease.Done(done)
						}
					})
				})
			}
		}
	}
}

func BenchmarkUse(b *testing.B) {
	for _, n := range []int{3, 5000} {
		b.Run(fmt.Sprintf("news/instances=%d", n), func(b *testing.B) {
			s, instances := newService(balancer.Config{}), fleet(n)
			b.ReportAllocs()
			for b.Loop() {
				s.publish(start, instances...)
			}
		})
	}
}
