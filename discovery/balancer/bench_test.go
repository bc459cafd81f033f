package balancer_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// BenchmarkEject is the cost of one ejection and of the return after it, with a
// hundred out at any time. It reports the cost at 10,000 instances as a multiple
// of that at 1,000, which is to be 3 at most.
func BenchmarkEject(b *testing.B) {
	const out = time.Second
	var least float64 // in nanoseconds, at 1,000
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprintf("instances=%d", n), func(b *testing.B) {
			ejected := 0
			s := newService(balancer.Config{
				Outliers: rules(b, outlier.Config{Ejection: out, MaxEjection: out}),
				Trace:    &balancer.Trace{Ejected: func(string, catalog.Instance, outlier.Ejection) { ejected++ }},
			}, fleet(n)...)
			all, now, k := s.Endpoints(), start, 0
			b.ReportAllocs()
			for b.Loop() {
				now = now.Add(out / 100)
				s.Note(all[k%n], result(outcome.Unreachable, now))
				s.Counts(now)
				k++
			}
			if ejected != k {
				b.Fatalf("%d of %d were ejected", ejected, k)
			}
			each := float64(b.Elapsed()) / float64(k)
			if n == 1000 && (least == 0 || each < least) {
				least = each
			}
			b.ReportMetric(each/least, "×1000")
		})
	}
}
