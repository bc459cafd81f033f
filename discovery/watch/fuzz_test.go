package watch

import (
	"log/slog"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// FuzzAnswer lets Consul answer anything, twice in a row and to each kind of
// question: no panic, no set that can't be used, no index below what was
// believed.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "7", true, false, false, false, body(entry("a")), "8", true, body(entry("a"), entry("b")), uint8(1))
	f.Add(200, "7", true, false, false, false, body(entry("a")), "1", false, "[]", uint8(3))
	f.Add(200, "", false, true, true, true, "[null, {}, {\"Service\":{}}, {\"Checks\":[null]}]", "0", true, "null", uint8(1))
	f.Add(500, "-1", true, false, false, false, "<html>", "18446744073709551615", true, "[{\"Node\":{\"Node\":\"n\"},\"Service\":{\"Service\":\"order\",\"ID\":\"a\",\"Address\":\"h\",\"Port\":1}}]", uint8(2))
	f.Add(200, "7", true, false, false, false, `[{"Node":{"Node":"n"},"Service":{"Service":"order","Ports":[{"Port":9,"Default":true}]},"Checks":[{"Definition":{"Interval":"1x"}}]}]`, "9", true, "[]", uint8(0))
	f.Fuzz(func(t *testing.T, status int, index1 string, leader1, streamed, filtered, deny bool, body1, index2 string, leader2 bool, body2 string, k uint8) {
		if status < 100 || status > 999 {
			status = 200
		}
		answers := []reply{
			{status: status, index: index1, leader: leader1, streamed: streamed, filtered: filtered, deny: deny, body: body1},
			{index: index2, leader: leader2, body: body2},
		}
		n := 0
		s := &script{answer: func(call) reply { return answers[n] }}
		cfg, err := Config{Client: s.client(t), Log: slog.New(slog.DiscardHandler), StaleFor: time.Hour}.complete()
		if err != nil {
			t.Fatal(err)
		}
		w := &Watcher{cfg: cfg, began: time.Now(), blocking: newGate(1), quick: newGate(1)}
		w.followers.Store(&map[string]*follower{})
		l := newLoop(w, &follower{service: "order", feed: catalog.NewFeed("order"), began: time.Now()})
		l.audits.plan(time.Now())
		next := step{kind: fetch}
		for n = range answers {
			if k>>n&1 == 1 {
				l.audited(w.ask(t.Context(), "order", scan, 0))
			}
			a := w.ask(t.Context(), "order", next.kind, l.history.index)
			next = l.judge(a)
			if next.after < 0 || next.after > 10*time.Second {
				t.Errorf("waits %s; want 0 to 10s", next.after)
			}
			if next.kind == block && l.history.index == 0 {
				t.Error("blocks on index 0")
			}
			for _, i := range l.inUse.set {
				if err := i.Validate(); err != nil {
					t.Errorf("published %v", err)
				}
			}
			if at := l.standing.proven; at.After(time.Now()) {
				t.Errorf("proven %s from now", time.Until(at))
			}
			l.tick(t.Context(), time.Now())
		}
	})
}
