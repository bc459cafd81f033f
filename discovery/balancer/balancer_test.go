package balancer_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when the tests' time begins; the balancer is told the time.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func instance(id string, change ...func(*catalog.Instance)) catalog.Instance {
	i := catalog.Instance{ID: id, Service: "order", Host: "10.0.0.3", Port: 8080, Weight: 1, State: catalog.StatePassing}
	for _, c := range change {
		c(&i)
	}
	return i
}

func weight(w int) func(*catalog.Instance) { return func(i *catalog.Instance) { i.Weight = w } }

func state(s catalog.State) func(*catalog.Instance) {
	return func(i *catalog.Instance) { i.State = s }
}

func missing(until time.Time) func(*catalog.Instance) {
	return func(i *catalog.Instance) { i.MissingUntil = until }
}

// service is a feed and a balancer that uses what the feed publishes.
type service struct {
	*balancer.Balancer
	feed *catalog.Feed
}

func newService(cfg balancer.Config, instances ...catalog.Instance) *service {
	return newServiceAt(start, cfg, instances...)
}

func newServiceAt(now time.Time, cfg balancer.Config, instances ...catalog.Instance) *service {
	s := &service{balancer.New("order", cfg), catalog.NewFeed("order")}
	s.publish(now, instances...)
	return s
}

// result is the end of a request that took no time.
func result(code outcome.Code, at time.Time) outcome.Result {
	return outcome.Result{Code: code, Began: at, At: at}
}

func (s *service) publish(now time.Time, instances ...catalog.Instance) *catalog.Snapshot {
	s.feed.Publish(instances, now)
	s.Use(s.feed.Current(), now)
	return s.feed.Current()
}

func (s *service) pick(t testing.TB, now time.Time, tried ...*balancer.Endpoint) balancer.Lease {
	t.Helper()
	lease, err := s.Pick(balancer.Request{Now: now, Tried: tried})
	if err != nil {
		t.Fatal(err)
	}
	return lease
}

// wantLeft checks what is left for a request.
func (s *service) wantLeft(t testing.TB, now time.Time, wantInUse, wantFound bool, tried ...*balancer.Endpoint) {
	t.Helper()
	if inUse, found := s.Left(balancer.Request{Now: now, Tried: tried}); inUse != wantInUse || found != wantFound {
		t.Errorf("%d tried: got one left %v, in use %v; want %v, %v", len(tried), found, inUse, wantFound, wantInUse)
	}
}

func id(l balancer.Lease) string { return l.Endpoint().Instance().ID }

// picked returns the IDs that n picks give, each over before the next.
func (s *service) picked(t testing.TB, n int, now time.Time) map[string]int {
	t.Helper()
	got := map[string]int{}
	for range n {
		lease := s.pick(t, now)
		got[id(lease)]++
		lease.Done(result(outcome.None, now))
	}
	return got
}

func TestPickNeverChoosesDrainingOrMaintenance(t *testing.T) {
	s := newService(balancer.Config{},
		instance("passing"), instance("warning", state(catalog.StateWarning)),
		instance("critical", state(catalog.StateCritical)), instance("draining", state(catalog.StateDraining)),
		instance("maintenance", state(catalog.StateMaintenance)), instance("unknown", state(catalog.StateUnknown)))
	if got := s.picked(t, 200, start); got["passing"]+got["warning"] != 200 || got["warning"] == 0 || got["passing"] == 0 {
		t.Errorf("got %v; want passing and warning only", got)
	}
	want := balancer.Counts{Known: 5, Ready: 2, Critical: 1, Draining: 1, Maintenance: 1}
	if diff := cmp.Diff(want, s.Counts(start)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// Consul has been restarted, say: three serve well and are critical until their
// checks have run, and the one that passes has just died.
func TestRequestThatEachReadyOneHasFailedIsGivenToACriticalOne(t *testing.T) {
	panics := 0
	s := newService(balancer.Config{Trace: &balancer.Trace{Picked: func(_ string, panicking bool) {
		if panicking {
			panics++
		}
	}}},
		instance("a"), instance("b", state(catalog.StateCritical)), instance("c", state(catalog.StateCritical)),
		instance("d", state(catalog.StateDraining)), instance("e", state(catalog.StateMaintenance)))
	got := map[string]int{}
	for range 100 {
		first := s.pick(t, start)
		if id(first) != "a" || panics != 0 {
			t.Fatalf("picked %s first, %d panics; want a", id(first), panics)
		}
		s.wantLeft(t, start, false, true, first.Endpoint())
		second := s.pick(t, start, first.Endpoint())
		third := s.pick(t, start, first.Endpoint(), second.Endpoint())
		got[id(second)]++
		if id(second)+id(third) != "bc" && id(second)+id(third) != "cb" || panics != 2 {
			t.Fatalf("picked %s and %s then, %d panics; want the critical ones, in panic", id(second), id(third), panics)
		}
		s.wantLeft(t, start, false, false, first.Endpoint(), second.Endpoint(), third.Endpoint())
		panics = 0
	}
	if got["b"] < 20 || got["c"] < 20 {
		t.Errorf("got %v; want either of them first", got)
	}
}

func TestPickPanicsOntoCriticalOnesRatherThanFail(t *testing.T) {
	panics := 0
	s := newService(balancer.Config{Trace: &balancer.Trace{Picked: func(service string, panicking bool) {
		if service == "order" && panicking {
			panics++
		}
	}}},
		instance("a", state(catalog.StateCritical)), instance("b", state(catalog.StateCritical)),
		instance("c", state(catalog.StateDraining)), instance("d", state(catalog.StateMaintenance)))
	if got := s.picked(t, 100, start); got["a"] != 50 || got["b"] != 50 {
		t.Errorf("got %v; want a and b evenly", got)
	}
	if !s.Counts(start).Panic || panics != 100 {
		t.Errorf("got %+v and %d panics told; want panic, told 100 times", s.Counts(start), panics)
	}
	s.publish(start, instance("a"), instance("b", state(catalog.StateCritical)))
	if got := s.picked(t, 100, start); got["a"] != 100 || s.Counts(start).Panic || panics != 100 {
		t.Errorf("got %v, %d panics; want the one that is ready again, without panic", got, panics)
	}
}

func TestPickSaysWhyNobodyIsLeft(t *testing.T) {
	b := balancer.New("order", balancer.Config{})
	_, err := b.Pick(balancer.Request{Now: start})
	if !errors.Is(err, catalog.ErrNoInstance) || !strings.Contains(err.Error(), "pick order: no instance ready (0 known)") {
		t.Errorf("got %v; want ErrNoInstance with the counts", err)
	}
	s := newService(balancer.Config{},
		instance("a", state(catalog.StateDraining)), instance("b", state(catalog.StateDraining)),
		instance("c", state(catalog.StateDraining)), instance("d", state(catalog.StateMaintenance)), instance("e", state(catalog.StateMaintenance)))
	_, err = s.Pick(balancer.Request{Now: start})
	if want := "pick order: no instance ready (5 known, 3 draining, 2 in maintenance): no instance"; err == nil || err.Error() != want {
		t.Errorf("got %v; want %s", err, want)
	}
}

func TestMissingInstanceIsUsedUntilASnapshotLacksIt(t *testing.T) {
	until := start.Add(30 * time.Second)
	s := newService(balancer.Config{}, instance("here"), instance("missing", missing(until)))
	// That its time is over is for the watch to say, which asks Consul first.
	if got := s.picked(t, 100, until.Add(time.Minute)); got["missing"] != 50 {
		t.Errorf("got %v after the time is over; want both evenly", got)
	}
	if c := s.Counts(until.Add(time.Minute)); c.Ready != 2 || c.Missing != 1 {
		t.Errorf("got %+v; want 2 ready, 1 of them missing", c)
	}
	s.publish(until.Add(time.Minute), instance("here"))
	if got := s.picked(t, 100, until.Add(time.Minute)); got["missing"] != 0 {
		t.Errorf("got %v without it in the snapshot; want it never", got)
	}
	if c := s.Counts(until.Add(time.Minute)); c.Known != 1 || c.Missing != 0 {
		t.Errorf("got %+v; want 1 known", c)
	}
}

func TestUnreachableMissingInstanceIsDroppedUnlessItIsTheLast(t *testing.T) {
	until, later := start.Add(30*time.Second), start.Add(20*time.Second) // no failure counts any more
	s := newService(balancer.Config{}, instance("a", missing(until)), instance("b", missing(until)), instance("c", missing(until)))
	unreachable := func(want string) {
		t.Helper()
		for {
			lease := s.pick(t, start)
			if id(lease) == want {
				lease.Done(result(outcome.Unreachable, start))
				return
			}
			lease.Done(result(outcome.Broken, start)) // failed, but reached
		}
	}
	unreachable("a")
	if got := s.picked(t, 100, later); got["a"] != 0 || len(got) != 2 {
		t.Errorf("got %v; want a dropped", got)
	}
	unreachable("b")
	unreachable("c")
	if got := s.picked(t, 100, later); got["c"] != 100 {
		t.Errorf("got %v; want c, the last one left", got)
	}
	// Still absent, by the same absence: the drop holds.
	s.publish(start, instance("a", missing(until)), instance("c", missing(until)))
	if got := s.picked(t, 100, later); got["c"] != 100 {
		t.Errorf("got %v; want a to stay dropped", got)
	}
	// It came back, and vanished again: that is another absence.
	s.publish(start, instance("a"), instance("c", missing(until)))
	if got := s.picked(t, 100, later); got["a"] < 48 || got["a"] > 52 {
		t.Errorf("got %v; want a back in use", got)
	}
	s.publish(start, instance("a", missing(until.Add(time.Second))), instance("c", missing(until)))
	if got := s.picked(t, 100, later); got["a"] < 48 || got["a"] > 52 {
		t.Errorf("got %v; want a in use as missing", got)
	}
}

func TestMissingInstanceIsDroppedWhenACriticalOneIsLeft(t *testing.T) {
	s := newService(balancer.Config{}, instance("a", missing(start.Add(time.Minute))), instance("b", state(catalog.StateCritical)))
	lease := s.pick(t, start)
	if id(lease) != "a" {
		t.Fatalf("got %s; want the missing one before the critical one", id(lease))
	}
	lease.Done(result(outcome.Unreachable, start))
	if got := s.picked(t, 10, start); got["b"] != 10 || !s.Counts(start).Panic {
		t.Errorf("got %v; want panic mode", got)
	}
}

func TestUnreachableInstanceThatIsNotMissingStays(t *testing.T) {
	s := newService(balancer.Config{}, instance("a"), instance("b"))
	lease := s.pick(t, start)
	lease.Done(result(outcome.Unreachable, start))
	if got := s.picked(t, 100, start.Add(time.Second)); len(got) != 2 {
		t.Errorf("got %v; want both", got)
	}
}

func TestEndpointSurvivesARefresh(t *testing.T) {
	s := newService(balancer.Config{}, instance("a"), instance("b"))
	before := s.pick(t, start)
	e := before.Endpoint()
	s.publish(start, instance("a", weight(3)), instance("b", weight(3)), instance("c"))
	if e.InFlight() != 1 || e.Instance().Weight != 3 {
		t.Errorf("got %d in flight, weight %d; want the load kept and the instance renewed", e.InFlight(), e.Instance().Weight)
	}
	found := false
	for _, known := range s.Endpoints() {
		found = found || known == e
	}
	if !found || len(s.Endpoints()) != 3 {
		t.Error("the endpoint was made anew")
	}
	before.Done(result(outcome.None, start))
	if e.InFlight() != 0 {
		t.Errorf("got %d in flight after Done; want 0", e.InFlight())
	}
}

func TestInstanceThatMovedIsAnotherEndpoint(t *testing.T) {
	s := newService(balancer.Config{}, instance("a"))
	before := s.pick(t, start)
	s.publish(start, instance("a", func(i *catalog.Instance) { i.Port++ }))
	after := s.pick(t, start)
	if before.Endpoint() == after.Endpoint() || after.Endpoint().InFlight() != 1 {
		t.Error("got the same endpoint at another address")
	}
	before.Done(result(outcome.None, start))
}

func TestPickAvoidsATriedInstanceThatLeftAndCameBack(t *testing.T) {
	s := newService(balancer.Config{}, instance("a"))
	tried := s.pick(t, start)
	s.publish(start, instance("b"))
	s.publish(start, instance("a"), instance("b"))
	for range 20 {
		lease := s.pick(t, start, tried.Endpoint())
		if id(lease) != "b" {
			t.Fatalf("got %s; want b, the only one that was not tried", id(lease))
		}
		s.wantLeft(t, start, false, false, tried.Endpoint(), lease.Endpoint())
		lease.Done(result(outcome.None, start))
	}
	tried.Done(result(outcome.None, start))
}

func TestUseIgnoresASnapshotThatComesLate(t *testing.T) {
	s := newService(balancer.Config{}, instance("old"))
	old := s.feed.Current()
	s.publish(start.Add(1), instance("new"))
	s.Use(old, start.Add(1))
	if got := s.picked(t, 10, start.Add(1)); got["new"] != 10 {
		t.Errorf("got %v; want the newer snapshot to stay", got)
	}
	// A service that is followed anew has a feed of its own.
	again := catalog.NewFeed("order")
	again.Publish([]catalog.Instance{instance("again")}, start.Add(2))
	s.feed.Close(nil)
	s.Use(again.Current(), start.Add(2))
	if got := s.picked(t, 10, start.Add(2)); got["again"] != 10 {
		t.Errorf("got %v; want the new feed's snapshot", got)
	}
}

func TestEntryThatIsListedTwiceCountsOnce(t *testing.T) {
	s := newService(balancer.Config{}, instance("a"), instance("a"), instance("b"))
	if c := s.Counts(start); c.Known != 2 {
		t.Errorf("got %+v; want 2 known", c)
	}
}

type stubborn struct{}

func (stubborn) Pick(balancer.Tier, balancer.Request) *balancer.Endpoint { return nil }
func (stubborn) Learn(*balancer.Endpoint, outcome.Result)                {}

func TestPickAnswersForAPolicyThatFindsNobody(t *testing.T) {
	b := balancer.New("order", balancer.Config{Policy: stubborn{}})
	feed := catalog.NewFeed("order")
	feed.Publish([]catalog.Instance{instance("a"), instance("b")}, start)
	b.Use(feed.Current(), start)
	if _, err := b.Pick(balancer.Request{Now: start}); err != nil {
		t.Error(err)
	}
}

func TestPickUseAndDoneShareABalancer(t *testing.T) {
	s := newService(balancer.Config{Outliers: strict(t)})
	until := start.Add(time.Hour)
	var workers sync.WaitGroup
	s.publish(start, instance("a"), instance("b"), instance("m", missing(until)))
	for n := range 4 {
		workers.Go(func() {
			for k := range 500 {
				now := start.Add(time.Duration(k) * time.Millisecond)
				s.Use(s.feed.Current(), now)
				first := s.pick(t, now)
				second := s.pick(t, now, first.Endpoint())
				// Two stay in every snapshot, so another is left.
				if first.Endpoint() == second.Endpoint() {
					t.Error("a tried endpoint was picked while another was left")
				}
				s.Left(balancer.Request{Now: now, Tried: []*balancer.Endpoint{first.Endpoint()}})
				dial := second.Endpoint().Dial()
				failure := outcome.Broken
				if k%3 == n {
					failure = outcome.Unreachable
				}
				first.Done(result(failure, now))
				dial.Stalled()
				body := second.Answered(result(outcome.OK, now))
				body.Rest()
				s.Counts(now)
				dial.Done()
				body.Resume()
				body.Done(result(outcome.None, now))
			}
		})
	}
	workers.Go(func() {
		for k := range 500 {
			s.feed.Publish([]catalog.Instance{
				instance("a"), instance("b", weight(1+k%7)), instance(fmt.Sprintf("c%d", k%5)),
				instance("m", missing(until.Add(time.Duration(k/10)))),
			}, start.Add(time.Duration(k)))
		}
	})
	workers.Wait()
	s.Use(s.feed.Current(), start)
	for _, e := range s.Endpoints() {
		if e.InFlight() != 0 {
			t.Errorf("%s: got %d in flight at the end; want 0", e.Instance().ID, e.InFlight())
		}
	}
}
