package watch

import (
	"errors"
	"testing"
	"time"
)

// The answer without the filter must be the leader's, and no older than the one with
// it: else what is gone would seem to be kept out.
func TestAnswerWithoutTheFilterIsBelievedOnlyFromTheLeaderAndWhenItIsNoOlder(t *testing.T) {
	for name, c := range map[string]struct {
		whole reply
		want  string
		why   error
	}{
		"it has vanished":        {reply{index: "8", leader: true, body: body(entry("b"))}, "a:passing? b:passing", nil},
		"it is kept out":         {reply{index: "8", leader: true, body: body(entry("a"), entry("b"))}, "b:passing", nil},
		"older":                  {reply{index: "7", leader: true, body: body(entry("a"), entry("b"))}, "a:passing b:passing", errBehind},
		"of a server on its own": {reply{index: "8", body: body(entry("a"), entry("b"))}, "a:passing b:passing", errNoLeader},
		"refused":                {reply{status: 500}, "a:passing b:passing", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var failed error
			trace := &Trace{Failed: func(_ string, err error) { failed = err }}
			follow(t, Config{AuditEvery: time.Hour, Filter: "x", Trace: trace}, func(q call) reply {
				switch {
				case q.kind == confirm: // without stale and without a filter
					return c.whole
				case q.index == 0:
					return reply{index: "7", leader: true, body: body(entry("a"), entry("b"))}
				case q.index == 7:
					return reply{index: "8", leader: true, body: body(entry("b")), after: 2 * time.Second}
				}
				return reply{hang: true}
			}, func(t *testing.T, w *Watcher, s *script) {
				wantLatest(t, w, "a:passing b:passing")
				settle(2050 * time.Millisecond)
				wantLatest(t, w, c.want)
				if c.why != nil && !errors.Is(failed, c.why) {
					t.Errorf("got trouble %v; want %v", failed, c.why)
				}
				if n := len(s.asked(confirm)); n != 1 {
					t.Errorf("got %d questions without the filter; want 1", n)
				}
			})
		})
	}
}
