package balancer_test

import (
	"fmt"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func version(v string) func(*catalog.Instance) {
	return func(i *catalog.Instance) { i.Meta = map[string]string{"version": v} }
}

var second = balancer.Prefer(func(i catalog.Instance) bool { return i.Meta["version"] == "v2" })

// got counts who is picked, n times.
func got(t *testing.T, s *service, n int, q balancer.Request) map[string]int {
	t.Helper()
	count := map[string]int{}
	q.Now = start
	for range n {
		lease, err := s.Pick(q)
		if err != nil {
			t.Fatal(err)
		}
		count[lease.Endpoint().Instance().ID]++
		lease.Done(result(outcome.OK, start))
	}
	return count
}

func at(host string) func(*catalog.Instance) {
	return func(i *catalog.Instance) { i.Host = host }
}

func TestPreferredInstancesShareWhatPrefersThem(t *testing.T) {
	s := newService(balancer.Config{},
		instance("a", version("v1")), instance("b", version("v2")), instance("c", version("v1")), instance("d", version("v2"), weight(3)))
	count := got(t, s, 4000, balancer.Request{Prefer: second})
	if count["a"]+count["c"] > 0 || count["b"] < 900 || count["b"] > 1100 {
		t.Errorf("picked %v; want b and d alone, one to three by their weights", count)
	}
	if count = got(t, s, 4000, balancer.Request{}); len(count) != 4 {
		t.Errorf("without a preference picked %v; want all", count)
	}
}

func TestOthersArePickedWhenNoPreferredOneIsInUseOrLeft(t *testing.T) {
	for name, change := range map[string]func(*catalog.Instance){
		"critical": state(catalog.StateCritical), "draining": state(catalog.StateDraining),
	} {
		s := newService(balancer.Config{}, instance("a", version("v1")), instance("b", version("v2"), change))
		if count := got(t, s, 100, balancer.Request{Prefer: second}); count["a"] != 100 {
			t.Errorf("the second version is %s: picked %v; want a", name, count)
		}
	}
	s := newService(balancer.Config{}, instance("a", version("v1")), instance("b", version("v2")))
	lease, err := s.Pick(balancer.Request{Now: start, Prefer: second})
	if err != nil {
		t.Fatal(err)
	}
	tried := []*balancer.Endpoint{lease.Endpoint()}
	lease.Done(result(outcome.OK, start))
	if count := got(t, s, 100, balancer.Request{Prefer: second, Tried: tried}); count["a"] != 100 {
		t.Errorf("the second version was tried: picked %v; want a", count)
	}
}

func TestPreferenceHoldsForTheNextSet(t *testing.T) {
	s := newService(balancer.Config{}, instance("a", version("v1")))
	got(t, s, 1, balancer.Request{Prefer: second})
	s.publish(start, instance("a", version("v1")), instance("b", version("v2")))
	if count := got(t, s, 100, balancer.Request{Prefer: second}); count["b"] != 100 {
		t.Errorf("picked %v; want the one that has come", count)
	}
}

func BenchmarkPickPreferred(b *testing.B) {
	var instances []catalog.Instance
	for n := range 100 {
		instances = append(instances, instance(fmt.Sprint(n), at(fmt.Sprint("10.0.0.", n)), version([]string{"v1", "v2"}[n%2])))
	}
	s := newService(balancer.Config{}, instances...)
	b.ReportAllocs()
	for b.Loop() {
		lease, err := s.Pick(balancer.Request{Now: start, Prefer: second})
		if err != nil {
			b.Fatal(err)
		}
		lease.Done(result(outcome.OK, start))
	}
}
