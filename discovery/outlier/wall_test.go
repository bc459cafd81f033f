package outlier_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// setBack returns the time as time.Now would give it had the wall clock been set
// back by so many seconds meanwhile: its monotonic reading is as it was. Package
// time has no way to make one, so this knows how it packs them, and checks that.
func setBack(t *testing.T, now time.Time, seconds int64) time.Time {
	t.Helper()
	type packed struct { // time.Time's first word, when it has a monotonic reading
		wall uint64 // 1 bit: it has one; 33 bits: seconds since 1885; 30 bits: nanoseconds
	}
	then := now
	(*packed)(unsafe.Pointer(&then)).wall -= uint64(seconds) << 30
	wall := then.Round(0).Sub(now.Round(0))
	if then.Sub(now) != 0 || wall != -time.Duration(seconds)*time.Second {
		t.Fatalf("package time packs a Time in another way: moved by %v, its wall clock by %v", then.Sub(now), wall)
	}
	return then
}

// Seen: a wall clock that was set back by 50 minutes kept an instance out for 50
// minutes.
func TestWallClockThatIsSetBackChangesNoSpan(t *testing.T) {
	const minutes50 = 50 * 60
	now := time.Now()
	rules, err := outlier.New(outlier.Config{Consecutive: 2})
	if err != nil {
		t.Fatal(err)
	}
	l := begin(t, rules, now)
	wantAt := func(after time.Duration, want outlier.State) {
		t.Helper()
		if got := l.State(setBack(t, l.now.Add(after), minutes50)); got != want {
			t.Errorf("%v later: got %v; want %v", after, got, want)
		}
	}
	l.note(outcome.Error)
	wantAt(49*time.Millisecond, outlier.Suspect)
	wantAt(50*time.Millisecond, outlier.Healthy)
	l.note(outcome.Error)
	wantAt(1999*time.Millisecond, outlier.Ejected)
	wantAt(2*time.Second, outlier.OnTrial)
	x := l.Ejection()
	if x.Over(setBack(t, x.Until.Add(-1), minutes50)) || !x.Over(setBack(t, x.Until, minutes50)) {
		t.Error("the ejection is not over when its 2s are")
	}
	// The trial, a failure on it, and what time forgives, all by the new wall.
	l.now = setBack(t, x.Until, minutes50)
	if d := l.note(outcome.Error); d != 4*time.Second {
		t.Errorf("got %v for a failure on trial; want 4s", d)
	}
	l.back()
	for range 5 {
		l.note(outcome.OK)
	}
	wantAt(0, outlier.Healthy)
	l.now = setBack(t, l.now.Add(11*time.Second), minutes50) // once more
	if _, d := l.untilEjected(outcome.Error); d != 4*time.Second {
		t.Errorf("got %v; want 4s: one of two doublings is forgiven", d)
	}
	// And a request from before an ejection is that whatever the wall says.
	began := setBack(t, l.now, -minutes50)
	l.back()
	if d := l.end(outcome.Result{Code: outcome.Error, Began: began.Add(-time.Second), At: l.now.Add(time.Second)}); d != 0 {
		t.Errorf("got %v for a request from before the ejection; want nothing", d)
	}
}
