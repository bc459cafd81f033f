package balancer

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// A weight of 1 uses up the virtual time of 64 bits in four billion picks.
func TestSharesStayEvenWhenVirtualTimeWrapsAround(t *testing.T) {
	now := time.Now()
	b := New("order", Config{})
	b.clock.Store(^uint64(0) - 50*strideOne)
	b.populate(now, 3)
	got := map[string]int{}
	for range 300 {
		lease, err := b.Pick(Request{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		got[lease.Endpoint().Instance().ID]++
		lease.Done(outcome.Result{Began: now, At: now})
	}
	for id, n := range got {
		if n < 97 || n > 103 {
			t.Errorf("instance %s got %d of 300; want 100 ± 3", id, n)
		}
	}
	if b.clock.Load() > 1<<40 {
		t.Error("the clock has not wrapped around")
	}
}
