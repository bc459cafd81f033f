package judge

import (
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

// Executions of the requests whose IDs begin with a prefix: how many times the one that was executed most often was,
// and how many times one was in the mean. 0 and 0 if there is none.
func Executions(counts map[string]int, prefix string) (most int, mean float64) {
	all, requests := 0, 0
	for id, n := range counts {
		if !strings.HasPrefix(id, prefix) {
			continue
		}
		requests++
		all += n
		most = max(most, n)
	}
	return most, float64(all) / float64(max(requests, 1))
}

// Uncounted are the requests about orders, sent in a span, that an instance answered well though none is counted to
// have executed them. Unless there are none the counts can't be trusted.
func Uncounted(samples []traffic.Sample, counts map[string]int, from, to time.Time) int {
	n := 0
	for i := range samples {
		s := &samples[i]
		if s.At.Before(from) || !s.At.Before(to) || s.Failed() || s.Path == traffic.UsersPath {
			continue
		}
		if counts[s.ID] == 0 {
			n++
		}
	}
	return n
}
