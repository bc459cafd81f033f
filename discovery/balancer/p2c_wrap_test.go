package balancer

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// A weight of 1 uses up the virtual time of 64 bits in four billion picks.
func TestSharesStayEvenWhenVirtualTimeWrapsAround(t *testing.T) {
	now := time.Now()
	b := New("order", nil, nil)
	b.clock.Store(^uint64(0) - 50*strideOne)
	feed := catalog.NewFeed("order")
	var instances []catalog.Instance
	for n := range 3 {
		instances = append(instances, catalog.Instance{ID: fmt.Sprint(n), Host: "h", Port: 1, Weight: 1, State: catalog.StatePassing})
	}
	feed.Publish(instances, now)
	b.Use(feed.Current(), now)
	got := map[string]int{}
	for range 300 {
		lease, err := b.Pick(Request{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		got[lease.Endpoint().Instance().ID]++
		lease.Done(Outcome{At: now})
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
