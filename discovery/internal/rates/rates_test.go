package rates_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery/internal/rates"
)

var began = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// at is a time so many seconds after the beginning.
func at(seconds float64) time.Time {
	return began.Add(time.Duration(seconds * float64(time.Second)))
}

func TestLastTenWholeSecondsAreCounted(t *testing.T) {
	w := rates.Window{Began: began}
	for second := range 30 {
		for range second {
			w.Note(rates.Call{Took: time.Millisecond}, at(float64(second)+0.5))
		}
	}
	for now, want := range map[float64]int{
		0.9:  0,                                               // the first second is not over
		29.9: 19 + 20 + 21 + 22 + 23 + 24 + 25 + 26 + 27 + 28, // nor is this one
		30:   20 + 21 + 22 + 23 + 24 + 25 + 26 + 27 + 28 + 29,
		38:   28 + 29,
		39:   29,
		40:   0,
		5000: 0,
	} {
		if got := w.Read(at(now)).Requests; got != want {
			t.Errorf("after %v s: got %d requests; want %d", now, got, want)
		}
	}
}

func TestFailuresRetriesAndTheBudgetAreCountedBesideTheRequests(t *testing.T) {
	w := rates.Window{Began: began}
	w.Note(rates.Call{Took: time.Millisecond, Retries: 2}, at(0))
	w.Note(rates.Call{Took: time.Millisecond, Failed: true, Retries: 1, OverBudget: true}, at(0.9))
	w.Note(rates.Call{Took: time.Millisecond, Failed: true}, at(1))
	got := w.Read(at(1))
	got.P50, got.P99 = 0, 0
	if diff := cmp.Diff(rates.Totals{Requests: 2, Failed: 1, Retries: 3, OverBudget: 1}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestPercentileIsTheExactOneRoundedUpByAQuarterAtMost(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 200 {
		w := rates.Window{Began: began}
		all := make([]time.Duration, 1+random.IntN(300))
		for n := range all {
			all[n] = time.Duration(128+random.IntN(1<<(8+round%17))) * time.Microsecond
			w.Note(rates.Call{Took: all[n]}, at(0))
		}
		slices.Sort(all)
		got := w.Read(at(1))
		for percent, got := range map[int]time.Duration{50: got.P50, 99: got.P99} {
			exact := all[(len(all)*percent+99)/100-1]
			if got <= exact || float64(got) > 1.25*float64(exact)+float64(time.Microsecond) {
				t.Fatalf("of %d requests up to %v: got %v as the %dth percentile; want up to a quarter more than %v",
					len(all), all[len(all)-1], got, percent, exact)
			}
		}
	}
}

func TestPercentilesAreBoundedAtBothEnds(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		-time.Second:           128 * time.Microsecond,
		0:                      128 * time.Microsecond,
		127 * time.Microsecond: 128 * time.Microsecond,
		128 * time.Microsecond: 160 * time.Microsecond,
		33 * time.Second:       33554432 * time.Microsecond,
		time.Hour:              33554432 * time.Microsecond,
	} {
		w := rates.Window{Began: began}
		w.Note(rates.Call{Took: took}, at(0))
		if got := w.Read(at(1)); got.P50 != want || got.P99 != want {
			t.Errorf("%v: got %v and %v; want %v", took, got.P50, got.P99, want)
		}
	}
	if got := (&rates.Window{Began: began}).Read(at(1)); got != (rates.Totals{}) {
		t.Errorf("got %+v without a request; want nothing", got)
	}
}

func TestServicesAreCountedApart(t *testing.T) {
	var s rates.Services
	s.Note("user", rates.Call{}, at(0))
	s.Note("order", rates.Call{}, at(0.2))
	s.Note("order", rates.Call{}, at(0.4))
	for service, want := range map[string]int{"user": 1, "order": 2, "stock": 0} {
		if got := s.Read(service, at(5)).Requests; got != want {
			t.Errorf("%s: got %d requests; want %d", service, got, want)
		}
	}
}

// Names may come from requests.
func TestNamesWithoutEndTakeTheRoomOfTheSilentOnesOnly(t *testing.T) {
	var s rates.Services
	for n := range rates.MaxServices {
		s.Note(fmt.Sprint(n), rates.Call{}, at(0))
	}
	s.Note("0", rates.Call{}, at(9))
	s.Note("late", rates.Call{}, at(9))
	if got := s.Read("late", at(10)).Requests; got != 0 {
		t.Fatalf("got %d requests for one name too many; want none", got)
	}
	s.Note("late", rates.Call{}, at(12))
	for service, want := range map[string]int{"late": 1, "0": 1, "1": 0} {
		if got := s.Read(service, at(13.5)).Requests; got != want {
			t.Errorf("%s: got %d requests; want %d", service, got, want)
		}
	}
}

func TestNothingIsLostBetweenGoroutines(t *testing.T) {
	const callers, calls = 8, 500
	var s rates.Services
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() {
			for n := range calls {
				s.Note("user", rates.Call{Failed: n%2 == 0}, at(float64(n)/calls))
			}
		})
	}
	calling.Wait()
	if got := s.Read("user", at(2)); got.Requests != callers*calls || got.Failed != callers*calls/2 {
		t.Errorf("got %+v; want %d requests, half of them failed", got, callers*calls)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	var s rates.Services
	s.Note("user", rates.Call{}, at(0))
	if n := testing.AllocsPerRun(100, func() {
		s.Note("user", rates.Call{Took: time.Millisecond, Failed: true, Retries: 1, OverBudget: true}, at(1))
	}); n != 0 {
		t.Errorf("got %v allocations; want none", n)
	}
}

func BenchmarkNote(b *testing.B) {
	var s rates.Services
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Note("user", rates.Call{Took: 3 * time.Millisecond}, time.Now())
		}
	})
}

func BenchmarkRead(b *testing.B) {
	var s rates.Services
	s.Note("user", rates.Call{Took: 3 * time.Millisecond}, began)
	b.ReportAllocs()
	for b.Loop() {
		s.Read("user", at(1))
	}
}
