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

func TestLeftIsWhatSpendWouldGive(t *testing.T) {
	began := time.Unix(0, 0)
	l := &Ledger{Ratio: 0.1, Floor: 0.3, Began: began}
	for range 47 {
		l.Request(began)
	}
	for want := 7; want >= 0; want-- { // 4.7 and 3
		if got := l.Left(began); got != want {
			t.Errorf("got %d left; want %d", got, want)
		}
		if l.Spend(began) != (want > 0) {
			t.Errorf("with %d left a retry was given or not; want the other", want)
		}
	}
	later := began.Add(9 * time.Second)
	for range 100 {
		l.Request(later)
	}
	l.Spend(later) // of the second that stays in the window
	if got := l.Left(began.Add(12 * time.Second)); got != 12 {
		t.Errorf("got %d left of a tenth of 100, and 3, after 1; want 12", got)
	}
}

func TestLeftIsNeverLessThanNone(t *testing.T) {
	began := time.Unix(0, 0)
	l := &Ledger{Ratio: 1, Began: began}
	for range 5 {
		l.Request(began)
	}
	for l.Spend(began.Add(time.Second)) {
	}
	if got := l.Left(began.Add(10500 * time.Millisecond)); got != 0 { // the requests are forgotten, the retries are not
		t.Errorf("got %d left; want 0", got)
	}
}
