package watch

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestGapGrowsWithAnswersInQuickSuccessionAndEndsWithQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pace
		for _, c := range []struct {
			after      time.Duration // since the last answer
			news       bool
			least, max time.Duration
		}{
			{0, true, 0, 0},                  // the first
			{time.Minute, true, 0, 0},        // alone
			{time.Millisecond, true, 10, 13}, // in milliseconds, jitter included
			{time.Millisecond, true, 20, 25},
			{time.Millisecond, false, 40, 50},
			{time.Millisecond, true, 80, 100},
			{time.Millisecond, true, 80, 100}, // no more while there is news
			{time.Millisecond, false, 160, 200},
			{time.Millisecond, false, 320, 400},
			{time.Millisecond, false, 500, 625},
			{900 * time.Millisecond, false, 500, 625},
			{time.Millisecond, true, 80, 100}, // news again
			{time.Second, true, 0, 0},         // quiet
		} {
			time.Sleep(c.after)
			got := p.take(time.Now(), c.news)
			if got < c.least*time.Millisecond || got > c.max*time.Millisecond {
				t.Errorf("%s after the last, news %v: waits %s; want %d to %d ms", c.after, c.news, got, c.least, c.max)
			}
		}
	})
}
