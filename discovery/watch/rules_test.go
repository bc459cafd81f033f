package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// settled lets the bubble run for d, then until nothing moves.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestFirstQuestionIsStaleWithoutIndexThenItBlocksOnTheIndex(t *testing.T) {
	follow(t, Config{}, func(c call) reply {
		if c.kind == block {
			return reply{hang: true}
		}
		return reply{index: "7", leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(time.Second)
		calls := s.asked(fetch, confirm, block)
		if len(calls) != 2 || calls[0].kind != fetch || calls[0].index != 0 || calls[1].kind != block || calls[1].index != 7 || calls[1].wait != 30*time.Second {
			t.Errorf("got %+v; want a fetch, then a block with index 7 and wait 30s", calls)
		}
	})
}

func TestIndexThatGoesBackwardsBeginsAnewAtTheLeader(t *testing.T) {
	n := 0
	follow(t, Config{}, func(c call) reply {
		switch {
		case c.kind == fetch:
			return reply{index: "100", leader: true, body: body(entry("a"))}
		case c.kind == confirm:
			return reply{index: "6", leader: true, body: body(entry("a"), entry("b"))}
		case c.kind == block && n == 0:
			n++
			return reply{index: "5", streamed: true, body: body(entry("z")), after: time.Second / 2}
		}
		return reply{hang: true}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(time.Second)
		wantLatest(t, w, "a:passing b:passing")
		calls := s.asked(fetch, confirm, block)
		if len(calls) != 4 || calls[2].kind != confirm || calls[3].index != 6 {
			t.Errorf("got %+v; want fetch, block 100, confirm, block 6", calls)
		}
	})
}

func TestIndexThatIsZeroOrMissingNeitherSpinsNorBlocksBelowOne(t *testing.T) {
	for _, index := range []string{"", "0", "-1", "nonsense", "99999999999999999999999"} {
		t.Run(index, func(t *testing.T) {
			follow(t, Config{}, func(call) reply {
				return reply{index: index, leader: true, body: body(entry("a"))}
			}, func(t *testing.T, w *Watcher, s *script) {
				wantLatest(t, w, "a:passing")
				settle(10 * time.Minute)
				wantLatest(t, w, "a:passing")
				if calls := s.asked(block); len(calls) != 0 {
					t.Errorf("got %d blocking queries; want none without an index", len(calls))
				}
				if calls := s.asked(fetch, confirm); len(calls) > 200 {
					t.Errorf("got %d questions in 10 minutes; want about one in 5 seconds", len(calls))
				}
				told := false // an audit that proves the set says for a moment that all is well
				for range 30 {
					told = told || errors.Is(trouble(t, w), errNoIndex)
					settle(time.Second)
				}
				if !told {
					t.Errorf("got trouble %v; want %v", trouble(t, w), errNoIndex)
				}
			})
		})
	}
}

func TestIndexThatComesAgainChangesNothing(t *testing.T) {
	follow(t, Config{}, func(c call) reply {
		a := reply{index: "7", leader: true, body: body(entry("a"))}
		if c.kind == block {
			a.after = c.wait
		}
		return a
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		first, _ := w.Latest(t.Context(), "order")
		settle(9 * time.Minute)
		if second, _ := w.Latest(t.Context(), "order"); first != second {
			t.Error("the same set was published twice")
		}
		if n := len(s.asked(block)); n < 17 || n > 19 {
			t.Errorf("got %d blocking queries in 9 minutes; want 18", n)
		}
	})
}

// Consul has just started. Its first answers are of the past: b left before it
// was stopped, and its address may be somebody else's.
func TestWhoVanishesWhileConsulReadsItsLogIsNotMissing(t *testing.T) {
	for name, c := range map[string]struct {
		leader  bool          // at the first answer
		lasts   time.Duration // how long the past is shown
		index   int           // of the answer without b
		missing bool
	}{
		"just after it has a leader":   {true, 20 * time.Millisecond, 9, false},
		"while it has none":            {false, 3 * time.Second, 9, false},
		"later":                        {true, 3 * time.Second, 9, true},
		"but its index goes backwards": {true, 20 * time.Millisecond, 3, true},
		"without a leader, backwards":  {false, 20 * time.Millisecond, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			over := false
			follow(t, Config{}, func(q call) reply {
				present := reply{index: index(c.index), leader: true, streamed: q.kind == block, body: body(entry("a"))}
				switch {
				case q.kind == audit && !over:
					return reply{index: index(7), leader: c.leader}
				case q.kind == block && !over:
					over, present.after = true, c.lasts
					return present
				case !over:
					return reply{index: index(7), leader: c.leader, body: body(entry("a"), entry("b"))}
				case q.kind == block:
					present.hang = true
				}
				return present
			}, func(t *testing.T, w *Watcher, _ *script) {
				wantLatest(t, w, "a:passing b:passing")
				settle(5 * time.Second)
				want := "a:passing"
				if c.missing {
					want = "a:passing b:passing?"
				}
				wantLatest(t, w, want)
			})
		})
	}
}

func TestNewIndexWithTheSameSetSupersedesNothing(t *testing.T) {
	n := 0
	follow(t, Config{}, func(c call) reply {
		if c.kind == audit {
			return reply{index: index(n), leader: true}
		}
		n++
		a := reply{index: index(n), leader: true, body: body(entry("a"), entry("b"))}
		if n%2 == 0 {
			a.body = body(entry("b"), entry("a"))
		}
		if c.kind == block {
			a.after = time.Second
		}
		return a
	}, func(t *testing.T, w *Watcher, s *script) {
		first, err := w.Latest(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		settle(5 * time.Minute)
		select {
		case <-first.Superseded():
			t.Error("superseded by the same set")
		default:
		}
		if n := len(s.asked(block)); n < 200 {
			t.Errorf("got %d answers; want about one a second", n)
		}
	})
}

func TestSpinningIndexIsAskedAFewTimesASecondAtMost(t *testing.T) {
	n := 0
	follow(t, Config{}, func(c call) reply {
		if c.kind != audit {
			n++
		}
		return reply{index: index(n), leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(time.Minute)
		if calls := len(s.asked(block)); calls < 100 || calls > 135 {
			t.Errorf("got %d questions in a minute; want 10 at once and 2 a second", calls)
		}
	})
}

func TestChangeThatComesAloneIsUsedAtOnce(t *testing.T) {
	n := 1
	follow(t, Config{}, func(c call) reply {
		if c.kind == audit {
			return reply{index: index(n), leader: true}
		}
		if c.kind == block {
			n++
			a := reply{index: index(n), streamed: true, body: body(entry("a"))}
			if n%2 == 0 {
				a.body = body(entry("a"), entry("b"))
			}
			a.after = 5 * time.Second
			return a
		}
		return reply{index: index(n), leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, _ *script) {
		start := time.Now()
		wantLatest(t, w, "a:passing")
		for range 20 {
			s, _ := w.Latest(t.Context(), "order")
			<-s.Superseded()
			if late := time.Since(start) % (5 * time.Second); late != 0 {
				t.Fatalf("a change was used %s late", late)
			}
		}
	})
}

func TestErrorsKeepTheSetAndBackOffByTheirKind(t *testing.T) {
	for name, c := range map[string]struct {
		broken      reply
		least, most int // tries in 10 minutes
	}{
		"no connection":  {reply{broken: io.EOF}, 900, 1600},
		"truncated JSON": {reply{index: "9", leader: true, body: body(entry("a"))[:100]}, 900, 1600},
		"HTML page":      {reply{index: "9", leader: true, body: "<html><body>Welcome</body></html>"}, 90, 200},
		"JSON of others": {reply{index: "9", leader: true, body: `{"error":"moved"}`}, 90, 200},
		"500":            {reply{status: 500, body: "No cluster leader"}, 90, 200},
		"429":            {reply{status: 429, body: "Your IP is issuing too many concurrent connections"}, 90, 200},
		"403":            {reply{status: 403, body: "ACL not found"}, 90, 200},
		"503":            {reply{status: 503}, 90, 200},
	} {
		t.Run(name, func(t *testing.T) {
			var broken, over bool
			follow(t, Config{}, func(q call) reply {
				switch {
				case broken:
					return c.broken
				case q.kind == block && over:
					return reply{hang: true}
				case q.kind == block:
					broken = true
					return reply{broken: io.EOF, after: time.Second}
				}
				return reply{index: "7", leader: true, body: body(entry("a"))}
			}, func(t *testing.T, w *Watcher, s *script) {
				wantLatest(t, w, "a:passing")
				first, _ := w.Latest(t.Context(), "order")
				proven, _ := first.Freshness()
				settle(9*time.Minute + 30*time.Second)
				if again, _ := w.Latest(t.Context(), "order"); again != first {
					t.Errorf("got %q; want the set untouched", show(again))
				}
				at, err := first.Freshness()
				if err == nil || !at.Equal(proven) {
					t.Errorf("got freshness %s and %v; want the time of the last proof %s and an error", at, err, proven)
				}
				if n := len(s.asked(fetch, confirm)) - 1; n < c.least || n > c.most {
					t.Errorf("asked %d times; want %d to %d", n, c.least, c.most)
				}
				s.do(func() { broken, over = false, true })
				settle(25 * time.Second)
				if err := trouble(t, w); err != nil {
					t.Errorf("after the end of it: got trouble %v; want none", err)
				}
				wantLatest(t, w, "a:passing")
			})
		})
	}
}

func TestEveryErrorBeginsAtIndexZero(t *testing.T) {
	n := 0
	follow(t, Config{}, func(c call) reply {
		if c.kind == block {
			n++
			if n == 1 {
				return reply{status: 500}
			}
			return reply{hang: true}
		}
		return reply{index: "7", leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(time.Second)
		calls := s.asked(fetch, block)
		if len(calls) != 4 || calls[2].kind != fetch {
			t.Errorf("got %+v; want fetch, block, fetch, block", calls)
		}
	})
}

func TestSilentSocketIsGivenUpAfterWaitAndASixteenthAndSlack(t *testing.T) {
	var hung bool
	follow(t, Config{Wait: 16 * time.Second, AuditEvery: time.Hour}, func(c call) reply {
		if c.kind == block && !hung {
			hung = true
			return reply{hang: true}
		}
		if c.kind == block {
			return reply{index: "9", after: c.wait}
		}
		if hung {
			return reply{index: "9", leader: true, body: body(entry("a"), entry("b"))}
		}
		return reply{index: "7", leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, _ *script) {
		wantLatest(t, w, "a:passing")
		settle(22*time.Second - time.Millisecond)
		wantLatest(t, w, "a:passing")
		settle(101 * time.Millisecond)
		wantLatest(t, w, "a:passing b:passing")
	})
}

func TestEmptyAnswerIsConfirmedBeforeItCounts(t *testing.T) {
	for name, c := range map[string]struct {
		second reply
		third  reply // to the confirmation
		want   string
		why    error
	}{
		"index 1, and the leader has them": {
			reply{index: "1", streamed: true},
			reply{index: "9", leader: true, body: body(entry("a"), entry("b"))},
			"a:passing b:passing", nil,
		},
		"index 1 from the leader too": {
			reply{index: "1", streamed: true}, reply{index: "1", leader: true}, "a:passing", errNotYet,
		},
		"same index": {
			reply{index: "7", streamed: true},
			reply{index: "7", leader: true, body: body(entry("a"))},
			"a:passing", nil,
		},
		"no leader": {
			reply{index: "8", streamed: true}, reply{index: "8"}, "a:passing", errNoLeader,
		},
		"filtered": {
			reply{index: "8", streamed: true}, reply{index: "8", leader: true, filtered: true}, "a:passing", errFiltered,
		},
		"without a token under default deny": {
			reply{index: "8", streamed: true, deny: true}, reply{index: "8", leader: true, deny: true}, "a:passing", errBlindfold,
		},
		"refused": {
			reply{index: "8", streamed: true}, reply{status: 403}, "a:passing", nil,
		},
		"true": {
			reply{index: "8", streamed: true}, reply{index: "8", leader: true}, "a:passing?", nil,
		},
		"nothing usable left": {
			reply{index: "8", streamed: true, body: "[{}]"}, reply{index: "8", leader: true, body: "[{}]"}, "a:passing?", nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			follow(t, Config{AuditEvery: time.Hour}, func(q call) reply {
				switch {
				case q.self:
					return reply{status: 403, body: "token does not exist: ACL not found"}
				case q.kind == confirm:
					return c.third
				case q.kind == fetch && n > 0:
					return reply{index: "9", leader: false} // empty, too
				case q.kind == fetch:
					return reply{index: "7", leader: true, body: body(entry("a"))}
				}
				if n++; n == 1 {
					c.second.after = time.Second
					return c.second
				}
				return reply{hang: true}
			}, func(t *testing.T, w *Watcher, s *script) {
				wantLatest(t, w, "a:passing")
				settle(time.Second)
				wantLatest(t, w, c.want)
				if n := len(s.asked(confirm)); n != 1 {
					t.Errorf("got %d questions to the leader at once; want 1", n)
				}
				err := trouble(t, w)
				if c.why != nil && !errors.Is(err, c.why) {
					t.Errorf("got trouble %v; want %v", err, c.why)
				}
				if c.third.status == 403 && !consul.Denied(err) {
					t.Errorf("got trouble %v; want a 403", err)
				}
				if c.why == nil && c.third.status == 0 && err != nil {
					t.Errorf("got trouble %v; want none", err)
				}
			})
		})
	}
}

func TestEmptyAnswerUnderDefaultDenyCountsWithATokenOfOurOwn(t *testing.T) {
	follow(t, Config{}, func(c call) reply {
		if c.self {
			return reply{body: `{"AccessorID":"0f069222-0b67-47b2-cf6d-af95cbcdd7e6"}`}
		}
		return reply{index: "7", leader: true, deny: true, hang: c.kind == block}
	}, func(t *testing.T, w *Watcher, _ *script) { wantLatest(t, w, "") })
}

func TestFirstAnswerThatIsEmptyNeedsALeaderToCount(t *testing.T) {
	leader := false
	follow(t, Config{}, func(c call) reply {
		return reply{index: "12", leader: leader, hang: c.kind == block}
	}, func(t *testing.T, w *Watcher, s *script) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := w.Latest(ctx, "order")
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errNoLeader) || !strings.Contains(err.Error(), "order") {
			t.Fatalf("got %v; want the deadline and the reason", err)
		}
		s.do(func() { leader = true })
		wantLatest(t, w, "")
	})
}

func TestFilteredAnswerAddsWhatItShowsAndTakesNothing(t *testing.T) {
	filtered := false
	follow(t, Config{}, func(c call) reply {
		switch {
		case c.kind == block && !filtered:
			return reply{index: "7", streamed: true, after: time.Second, body: body(entry("a"), entry("b"))}
		case filtered:
			// Neither a streamed answer nor one that lists nothing says that it was filtered.
			a := reply{index: "8", leader: true, body: body(entry("b", check("warning", "hot")), entry("c"))}
			a.streamed, a.filtered = c.kind == block, c.kind != block && c.kind != audit
			if c.kind == block && c.index == 8 {
				a.hang = true
			}
			return a
		}
		return reply{index: "7", leader: true, body: body(entry("a"), entry("b"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing b:passing")
		settle(2 * time.Second) // within the first second nothing is missing
		s.do(func() { filtered = true })
		settle(5 * time.Minute)
		wantLatest(t, w, "a:passing? b:warning c:passing")
		if err := trouble(t, w); !errors.Is(err, errFiltered) {
			t.Errorf("got trouble %v; want %v", err, errFiltered)
		}
	})
}

// Every 10 seconds one of three instances that the token may see is replaced, in
// order or by a kill; a fourth is hidden from it.
func TestFilterThatLastsDoesNotGrowTheSetThoughInstancesAreReplaced(t *testing.T) {
	filtered := false
	var began time.Time
	visible := func(now time.Time) (out []*api.ServiceEntry) {
		n := int(now.Sub(began) / (10 * time.Second))
		for k := max(0, n-2); k <= n; k++ {
			out = append(out, entry(fmt.Sprintf("n%03d", k)))
		}
		return out
	}
	follow(t, Config{}, func(c call) reply {
		if !filtered {
			return reply{index: "7", leader: true, hang: c.kind == block, body: body(entry("hidden"), entry("n000"))}
		}
		return reply{index: "8", leader: true, filtered: true, body: body(visible(c.at)...)}
	}, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("order"); err != nil {
			t.Fatal(err)
		}
		wantLatest(t, w, "hidden:passing n000:passing")
		s.do(func() { filtered, began = true, time.Now() })
		for range 360 {
			settle(10 * time.Second)
			got := strings.Fields(latest(t, w))
			if !slices.Contains(got, "hidden:passing") {
				t.Fatalf("got %q; want what was hidden in use for as long as it is", got)
			}
			// The hidden one, three that are shown, and those that vanished in the
			// last 30 s and two questions of 10 s.
			if most := 1 + 3 + 5; len(got) > most {
				t.Fatalf("%s after the filtering began: got %d in use, %q; want at most %d", time.Since(began), len(got), got, most)
			}
		}
		s.do(func() { filtered = false })
		settle(20 * time.Second)
		if got := latest(t, w); !strings.HasPrefix(got, "hidden:passing n000:passing ") {
			t.Errorf("without the filter: got %q; want what Consul lists, and what vanished with that", got)
		}
		settle(time.Minute)
		wantLatest(t, w, "hidden:passing n000:passing")
	})
}

func TestInstanceThatLeavesInOrderUnderAFilterIsGoneAtOnceAndAHiddenOneStays(t *testing.T) {
	step := 0
	follow(t, Config{}, func(c call) reply {
		switch step {
		case 0:
			return reply{index: "7", leader: true, hang: c.kind == block, body: body(entry("a"), entry("b"))}
		case 1:
			return reply{index: "8", leader: true, filtered: true, body: body(entry("b", check("critical", "draining")), entry("c"))}
		}
		return reply{index: "9", leader: true, filtered: true, body: body(entry("c"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing b:passing")
		s.do(func() { step = 1 })
		settle(time.Minute)
		wantLatest(t, w, "a:passing b:draining c:passing")
		s.do(func() { step = 2 })
		settle(11 * time.Second)
		wantLatest(t, w, "a:passing c:passing")
	})
}

// The news comes when a's time is over already, and the scan has no answer yet.
func TestStreamedAnswerGivesNoMissingInstanceUpForItMayBeFiltered(t *testing.T) {
	var began time.Time
	follow(t, Config{AuditEvery: time.Hour}, func(c call) reply {
		switch {
		case c.kind == fetch && c.index == 0 && c.at.Equal(began):
			return reply{index: "7", leader: true, body: body(entry("a"), entry("b"))}
		case c.kind == block && c.index == 7:
			return reply{index: "8", streamed: true, after: 5 * time.Second, body: body(entry("b"))}
		case c.kind == block && c.index == 8:
			return reply{index: "9", streamed: true, after: 31 * time.Second, body: body(entry("b"), entry("c"))}
		case c.kind == scan:
			return reply{index: "9", leader: true, filtered: true, after: 4 * time.Second}
		case c.kind == audit || c.kind == block:
			return reply{hang: true}
		}
		return reply{index: "9", leader: true, filtered: true, body: body(entry("b"), entry("c"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		s.do(func() { began = time.Now() })
		wantLatest(t, w, "a:passing b:passing")
		settle(37 * time.Second)
		wantLatest(t, w, "a:passing? b:passing c:passing")
		settle(time.Minute)
		wantLatest(t, w, "a:passing? b:passing c:passing")
	})
}

func TestAuditFindsAnIndexThatWentBackwards(t *testing.T) {
	wiped := false
	follow(t, Config{}, func(c call) reply {
		switch {
		case c.kind == block && c.index > 50:
			return reply{hang: true} // blind, without an error
		case wiped && c.kind == block:
			return reply{index: "20", after: c.wait, streamed: true, body: body(entry("b"))}
		case wiped:
			return reply{index: "20", leader: true, body: body(entry("b"))}
		}
		return reply{index: "100", leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(20 * time.Second)
		s.do(func() { wiped = true })
		settle(13 * time.Second)
		wantLatest(t, w, "a:passing? b:passing")
		if n := len(s.asked(confirm)); n != 1 {
			t.Errorf("got %d questions to the leader; want 1", n)
		}
	})
}

func TestAuditFindsThatOurQueryIsDeaf(t *testing.T) {
	deaf := false
	follow(t, Config{}, func(c call) reply {
		switch {
		case c.kind == block:
			return reply{hang: true}
		case deaf:
			return reply{index: "101", leader: true, body: body(entry("a"), entry("b"))}
		}
		return reply{index: "100", leader: true, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		s.do(func() { deaf = true })
		settle(25 * time.Second) // two audits
		wantLatest(t, w, "a:passing b:passing")
	})
}

func TestAuditProvesFreshnessWhatIsStreamedDoesNot(t *testing.T) {
	audits := true
	follow(t, Config{}, func(c call) reply {
		a := reply{index: "7", leader: true, body: body(entry("a"))}
		switch c.kind {
		case block:
			a.after, a.streamed = 3*time.Second, true
		case audit:
			a.contact, a.hang = "2000", !audits
		}
		return a
	}, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("order"); err != nil {
			t.Fatal(err)
		}
		first, _ := w.Latest(t.Context(), "order")
		settle(10 * time.Minute)
		got, err := first.Freshness()
		calls := s.asked(audit)
		if want := calls[len(calls)-1].at.Add(-2 * time.Second); !got.Equal(want) || err != nil {
			t.Errorf("got %s and %v; want the last audit less its LastContact, %s", got, err, want)
		}
		if n := len(calls); n < 50 || n > 72 {
			t.Errorf("got %d audits in 10 minutes; want about 60", n)
		}
		s.do(func() { audits = false })
		settle(5 * time.Minute)
		if later, err := first.Freshness(); !later.Equal(got) || err == nil {
			t.Errorf("got %s and %v; want the last proof to stay, and an error", later, err)
		}
	})
}

func TestTimeOfTheLastContactThatCanNotBeReadProvesNothing(t *testing.T) {
	for _, contact := range []string{"9223372036854775807", "-1"} {
		follow(t, Config{}, func(c call) reply {
			return reply{index: "7", leader: true, contact: contact, hang: c.kind == block, body: body(entry("a"))}
		}, func(t *testing.T, w *Watcher, _ *script) {
			wantLatest(t, w, "a:passing")
			settle(time.Minute)
			s, err := w.Latest(t.Context(), "order")
			if err != nil {
				t.Fatal(err)
			}
			if at, err := s.Freshness(); at.After(time.Now()) || err == nil {
				t.Errorf("LastContact %s: proven %s from now, trouble %v; want no proof of the future, and trouble", contact, time.Until(at), err)
			}
		})
	}
}

func TestAuditWithoutALeaderProvesNothing(t *testing.T) {
	leader := true
	follow(t, Config{}, func(c call) reply {
		return reply{index: "7", leader: leader, hang: c.kind == block, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		s.do(func() { leader = false })
		first, _ := w.Latest(t.Context(), "order")
		before, _ := first.Freshness()
		settle(30 * time.Second)
		if after, err := first.Freshness(); !after.Equal(before) || !errors.Is(err, errNoLeader) {
			t.Errorf("got %s and %v; want %s and %v", after, err, before, errNoLeader)
		}
	})
}

func TestOneAuditAtATime(t *testing.T) {
	follow(t, Config{AuditEvery: time.Second}, func(c call) reply {
		return reply{index: "7", leader: true, hang: c.kind == block || c.kind == audit, body: body(entry("a"))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(time.Minute)
		calls := s.asked(audit)
		if len(calls) < 8 {
			t.Errorf("got %d audits in a minute; want one about every 6 seconds", len(calls))
		}
		for n := 1; n < len(calls); n++ {
			if gap := calls[n].at.Sub(calls[n-1].at); gap < auditLimit {
				t.Errorf("an audit began %s after another; want no two at a time", gap)
			}
		}
	})
}
