package tries

import (
	"testing"
	"time"
)

func TestBudgetComesBackAsItsWindowMovesOn(t *testing.T) {
	began := time.Unix(0, 0)
	l := &Ledger{Ratio: 0.1, Floor: 0.5, Began: began}
	spend := func(at time.Duration) (n int) {
		for n < 1000 && l.Spend(began.Add(at)) {
			n++
		}
		return n
	}
	for range 100 {
		l.Request(began)
	}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{
		{0, 15},                // a tenth of 100, and 0.5 a second for 10 s
		{9 * time.Second, 0},   // all of it was spent within the window
		{10 * time.Second, 5},  // the floor alone: nobody has asked since
		{15 * time.Second, 0},  //
		{20 * time.Second, 5},  //
		{200 * time.Second, 5}, // what was not used is not saved up
	} {
		if got := spend(c.at); got != c.want {
			t.Errorf("after %v: %d retries; want %d", c.at, got, c.want)
		}
	}
}
