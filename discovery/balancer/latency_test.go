package balancer

import (
	"math"
	"testing"
	"time"
)

// start is when the time of an estimate begins.
var start = time.Unix(1_800_000_000, 0)

func near(got, want time.Duration) bool {
	return math.Abs(float64(got-want)) <= 0.01*float64(want)+float64(time.Microsecond)
}

func known(t *testing.T, s *estimate, at time.Time, want time.Duration) {
	t.Helper()
	micros, ok := s.latency(millis(s.base, at), time.Second)
	if got := time.Duration(micros * float64(time.Microsecond)); !ok || !near(got, want) {
		t.Errorf("got %v, known: %v; want %v", got, ok, want)
	}
}

func TestEstimateJumpsUpAndDecaysWithTime(t *testing.T) {
	s, now := estimate{base: start}, start
	for n := range 3 {
		if _, ok := s.latency(millis(s.base, now), time.Second); ok {
			t.Fatalf("something is known after %d answers; want 3 first", n)
		}
		s.observe(2*time.Millisecond, now, time.Second)
	}
	known(t, &s, now, 2*time.Millisecond)
	s.observe(200*time.Millisecond, now, time.Second)
	s.observe(300*time.Millisecond, now, time.Second)
	known(t, &s, now, 2*time.Millisecond) // twice slow may be luck
	s.observe(250*time.Millisecond, now, time.Second)
	known(t, &s, now, 200*time.Millisecond)
	known(t, &s, now.Add(time.Second), 200*time.Millisecond*36788/100000) // 1/e
	s.observe(2*time.Millisecond, now.Add(time.Second), time.Second)
	known(t, &s, now.Add(time.Second), 74837*time.Microsecond) // 200 × 1/e + 2 × (1 - 1/e)
	if _, ok := s.latency(millis(s.base, now.Add(time.Second+5*time.Second+time.Millisecond)), time.Second); ok {
		t.Error("something is known after 5 times the decay without an answer")
	}
}

func TestEstimateKeepsItsAgeWhenTimeWrapsAround(t *testing.T) {
	// 32 bits of milliseconds wrap here.
	s := estimate{base: start}
	wrap := start.Add(1 << 32 * time.Millisecond)
	for _, c := range []struct {
		at, now time.Time
		want    time.Duration
	}{
		{wrap.Add(-time.Second), wrap.Add(time.Second), 2 * time.Second},
		{wrap, wrap.Add(-time.Second), 0}, // outcomes come in any order
		{wrap, wrap.Add(25 * 24 * time.Hour), math.MaxInt64},
		{wrap, wrap.Add(48 * 24 * time.Hour), math.MaxInt64},
		{wrap, wrap.Add(24 * 24 * time.Hour), 24 * 24 * time.Hour},
		{start, start.Add(-time.Second), 0}, // before the first Use
	} {
		micros, age := unpack(pack(1500, millis(s.base, c.at)), millis(s.base, c.now))
		if micros != 1500 || age != c.want {
			t.Errorf("from %v to %v: got %v µs, age %v; want 1500 µs, age %v", c.at, c.now, micros, age, c.want)
		}
	}
}
