package balancer

import (
	"fmt"
	"testing"
	"time"
	"unsafe"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
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

const minutes50 = 50 * 60 // in seconds

func TestEstimateAgesByTheMonotonicClock(t *testing.T) {
	now := time.Now()
	s := estimate{base: now}
	for range 3 {
		s.observe(200*time.Millisecond, now, time.Second)
	}
	known(t, &s, setBack(t, now.Add(time.Second), minutes50), 200*time.Millisecond*36788/100000) // 1/e
	known(t, &s, setBack(t, now.Add(time.Second), -minutes50), 200*time.Millisecond*36788/100000)
	if _, ok := s.latency(millis(s.base, setBack(t, now.Add(5*time.Second+time.Millisecond), minutes50)), time.Second); ok {
		t.Error("something is known after 5 times the decay without an answer")
	}
}

// Seen: an instance that was out for 50 minutes, for the wall clock was set back
// by that.
func TestWallClockThatIsSetKeepsNoneOutAndLetsNoneBack(t *testing.T) {
	for name, seconds := range map[string]int64{"back": minutes50, "forward": -minutes50} {
		t.Run(name, func(t *testing.T) {
			rules, err := outlier.New(outlier.Config{Consecutive: 1})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			b := New("order", Config{Outliers: rules})
			b.populate(now, 4)
			later := func(d time.Duration) time.Time { return setBack(t, now.Add(d), seconds) }
			fail := func(n int, at time.Time) {
				b.Note(b.Endpoints()[n], outcome.Result{Code: outcome.Error, Began: at, At: at})
			}
			want := func(after time.Duration, ejected int) {
				t.Helper()
				if c := b.Counts(later(after)); c.Ejected != ejected {
					t.Errorf("after %v: got %d ejected; want %d", after, c.Ejected, ejected)
				}
			}
			fail(0, now)
			fail(1, later(time.Second)) // it is back a second later, whatever the wall clock says
			want(time.Second, 2)
			want(2*time.Second-1, 2)
			want(2*time.Second, 1)
			if got := b.Endpoints()[0].State(later(2 * time.Second)); got != outlier.OnTrial {
				t.Errorf("after 2s: got %v; want on trial", got)
			}
			want(3*time.Second-1, 1)
			if got := b.Endpoints()[1].State(later(3*time.Second - 1)); got != outlier.Ejected {
				t.Errorf("just before 3s: got %v; want ejected", got)
			}
			// By the time that a clock of today gives.
			if c := b.Counts(now.Add(3 * time.Second)); c.Ejected != 0 {
				t.Errorf("after 3s: got %d ejected; want none", c.Ejected)
			}
		})
	}
}

// populate gives the balancer so many like instances.
func (b *Balancer) populate(now time.Time, n int) {
	feed := catalog.NewFeed("order")
	var instances []catalog.Instance
	for k := range n {
		instances = append(instances, catalog.Instance{ID: fmt.Sprint(k), Host: "h", Port: 1, Weight: 1, State: catalog.StatePassing})
	}
	feed.Publish(instances, now)
	b.Use(feed.Current(), now)
}

// The look without the lock lets several through at once.
func TestCapHoldsForThoseThatPassTheLookWithoutTheLock(t *testing.T) {
	rules, err := outlier.New(outlier.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b, out := New("order", Config{Outliers: rules}), 0
	b.populate(start, 5)
	for _, e := range b.Endpoints() {
		for range 2 { // nor is one ejected twice
			if _, done := b.takeOut(e, outcome.Result{Code: outcome.Error, Began: start, At: start}, time.Second); done {
				out++
			}
		}
	}
	if c := b.Counts(start); out != 2 || c.Ejected != 2 {
		t.Errorf("%d of 5 were taken out, %+v; want 2", out, c)
	}
}
