package judge

import (
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

// Window sums up the requests that were sent in a span of time.
type Window struct {
	Requests, Failed int
	// P50 and P99 of the time to the end of the answer. A request that failed counts with the time until it had.
	P50, P99 time.Duration
}

// Over sums up the samples sent from one time until before another.
func Over(samples []traffic.Sample, from, to time.Time) Window {
	var w Window
	var took []time.Duration
	for i := range samples {
		s := &samples[i]
		if s.At.Before(from) || !s.At.Before(to) {
			continue
		}
		w.Requests++
		if s.Failed() {
			w.Failed++
		}
		took = append(took, s.Took)
	}
	slices.Sort(took)
	w.P50, w.P99 = Percentile(took, 50), Percentile(took, 99)
	return w
}

// Percentile of a sorted list by nearest rank: the least value that at least p of a hundred do not exceed. 0 for
// an empty list.
func Percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := (p*len(sorted) + 99) / 100
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Quiet returns the end of the last answer of an instance after which it gave none for a while; false if there is
// no such silence before the samples' end.
func Quiet(samples []traffic.Sample, id string, from time.Time, lasts time.Duration) (time.Time, bool) {
	var at []time.Time
	end := from
	for i := range samples {
		s := &samples[i]
		if s.End().After(end) {
			end = s.End()
		}
		if s.ServedBy == id && !s.End().Before(from) {
			at = append(at, s.End())
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	last := from
	for _, t := range at {
		if t.Sub(last) >= lasts {
			return last, true
		}
		last = t
	}
	return last, end.Sub(last) >= lasts
}

// Share of the answers about orders in a span that came from any of the instances: 0 to 1, and 0 without answers.
func Share(samples []traffic.Sample, from, to time.Time, ids ...string) float64 {
	of, all := 0, 0
	for i := range samples {
		s := &samples[i]
		if s.At.Before(from) || !s.At.Before(to) || s.ServedBy == "" || s.Path == "/users/1" {
			continue
		}
		all++
		if slices.Contains(ids, s.ServedBy) {
			of++
		}
	}
	if all == 0 {
		return 0
	}
	return float64(of) / float64(all)
}
