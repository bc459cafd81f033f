package watch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateLetsInOneForEachThatLeavesInTheOrderOfComing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		in := make(chan int, 10)
		for n := range 5 {
			go func() {
				if err := g.enter(t.Context()); err != nil {
					t.Error(err)
				}
				in <- n
			}()
			synctest.Wait()
		}
		for want := range 5 {
			if got := <-in; got != want {
				t.Errorf("got in: %d; want %d", got, want)
			}
			if want >= 1 {
				synctest.Wait()
				if len(in) != 0 {
					t.Error("more than two are in")
				}
				g.leave()
			}
		}
	})
}

func TestGateGivesNoPlaceToWhoGaveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		_ = g.enter(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.enter(ctx); err == nil {
			t.Error("got in where no place was")
		}
		g.leave()
		if err := g.enter(ctx); err != nil {
			t.Errorf("got %v; want a free place to win over a context that has ended", err)
		}
	})
}

func TestGateNarrowsToWhatGetsThroughAndWidensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(64)
		for range 30 {
			_ = g.enter(t.Context())
		}
		g.squeeze()
		if n := g.width(); n != 29 {
			t.Errorf("after a refusal with 30 inside: width %d; want 29", n)
		}
		for range 30 {
			g.leave()
		}
		for range 100 {
			g.squeeze()
		}
		if n := g.width(); n != 1 {
			t.Errorf("after many: width %d; want 1", n)
		}
		for range 1000 {
			time.Sleep(easeAfter)
			_ = g.enter(t.Context())
			g.leave()
		}
		if n := g.width(); n != 64 {
			t.Errorf("long after: width %d; want 64", n)
		}
	})
}
