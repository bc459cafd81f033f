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
	f.Add(200, "7", true, false, false, false, body(entry("a")), "8", true, body(entry("a"), entry("b")), uint8(1), "0", `{"AccessorID":"x"}`)
	f.Add(200, "7", true, false, false, false, body(entry("a")), "1", false, "[]", uint8(3), "9223372036854775807", "null")
	f.Add(200, "", false, true, true, true, "[null, {}, {\"Service\":{}}, {\"Checks\":[null]}]", "0", true, "null", uint8(1), "-1", `[]`)
	f.Add(500, "-1", true, false, false, false, "<html>", "18446744073709551615", true, "[{\"Node\":{\"Node\":\"n\"},\"Service\":{\"Service\":\"order\",\"ID\":\"a\",\"Address\":\"h\",\"Port\":1}}]", uint8(2), "x", `{"ExpirationTTL":"1x"}`)
	f.Add(200, "7", true, false, false, false, `[{"Node":{"Node":"n"},"Service":{"Service":"order","Ports":[{"Port":9,"Default":true}]},"Checks":[{"Definition":{"Interval":"1x"}}]}]`, "9", true, "[]", uint8(0), "", `{"AccessorID":7}`)
	for _, body := range []string{
		"<html>", `{"a":1}`, "[null]", `[{"Service":null,"Node":null,"Checks":null}]`, `[{"Node":{"Node":7}}]`, `[{"Service":{"Port":1e999}}]`,
		`[{"Node":{"Node":"n"},"Service":{"Service":"order","ID":"a","Address":"h","Port":99999999999999999999}}]`,
		`[{"Node":{"Node":"n"},"Service":{"Service":"order","ID":"a","Address":"h","Port":1,"Weights":{"Passing":-9223372036854775808}}}]`,
		`[{"Node":{"Node":"n","Locality":null},"Service":{"Service":"order","ID":"a","Address":"h","Ports":[{"Port":0},{"Port":5,"Default":true}],"Meta":null,"Tags":[null]},"Checks":[{"Definition":null}]}]`,
	} {
		f.Add(200, "7", true, false, false, false, body, "8", true, body, uint8(3), "0", "")
		f.Add(200, "7", true, false, false, true, "[]", "8", true, body, uint8(1), "0", body)
	}
	f.Fuzz(func(t *testing.T, status int, index1 string, leader1, streamed, filtered, deny bool, body1, index2 string, leader2 bool, body2 string, k uint8, contact, self string) {
		if status < 100 || status > 999 {
			status = 200
		}
		answers := []reply{
			{status: status, index: index1, leader: leader1, streamed: streamed, filtered: filtered, deny: deny, body: body1, contact: contact},
			{index: index2, leader: leader2, body: body2},
		}
		n := 0
		s := &script{answer: func(c call) reply {
			if c.self {
				return reply{body: self}
			}
			return answers[n]
		}}
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
				l.audited(w.ask(t.Context(), "order", question{kind: scan}))
			}
			a := w.ask(t.Context(), "order", question{kind: next.kind, index: l.history.index})
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
