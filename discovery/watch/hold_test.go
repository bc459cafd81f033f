package watch

import (
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestProxyThatCutsWaitsShortIsNoOutage(t *testing.T) {
	for name, cut := range map[string]reply{
		"504":                    {status: 504, body: "<html>Gateway Time-out</html>"},
		"408":                    {status: 408},
		"304":                    {status: 304, body: " "},
		"empty 200":              {body: " "},
		"empty list, no headers": {},
		"connection closed":      {broken: io.EOF},
		"closed in the answer":   {index: "7", body: `[{"Node`},
	} {
		t.Run(name, func(t *testing.T) {
			var lines strings.Builder
			failed, changed := 0, 0
			trace := &Trace{Failed: func(string, error) { failed++ }, Changed: func(*catalog.Snapshot) { changed++ }}
			limit := 10 * time.Second
			follow(t, Config{Log: slog.New(slog.NewTextHandler(&lines, nil)), Trace: trace}, func(c call) reply {
				a := steady(c)
				switch {
				case c.kind == block && c.wait > limit:
					a = cut
					a.after = limit
				case c.kind == block:
					a.hang, a.streamed, a.after = false, true, c.wait
				}
				return a
			}, func(t *testing.T, w *Watcher, s *script) {
				if err := w.Pin("order"); err != nil {
					t.Fatal(err)
				}
				wantLatest(t, w, "a:passing")
				settle(time.Hour)
				if failed != 0 || changed != 1 || lines.Len() > 0 {
					t.Errorf("told of %d failures and %d changes; want none and the first set:\n%s", failed, changed, &lines)
				}
				if n := len(s.asked(fetch, confirm, block, audit, scan)); n > 15*60 {
					t.Errorf("%d questions in an hour; want at most 15 a minute", n)
				}
				if n := len(s.asked(fetch, confirm)); n > 20 {
					t.Errorf("%d whole answers in an hour; want a few to learn the limit anew each 10 minutes", n)
				}
				s.do(func() { limit = time.Minute })
				settle(11 * time.Minute)
				before := len(s.asked(block))
				settle(10 * time.Minute)
				if n := len(s.asked(block)) - before; n > 21 {
					t.Errorf("%d blocking queries in 10 minutes without the limit; want waits of 30s again", n)
				}
			})
		})
	}
}

func TestConnectionThatIsClosedBecauseConsulHasGoneIsAnOutage(t *testing.T) {
	up := true
	follow(t, Config{}, func(c call) reply {
		switch {
		case !up:
			return reply{broken: errors.New("connection refused")}
		case c.kind == block:
			up = false
			return reply{broken: io.EOF, after: 10 * time.Second}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(10*time.Second + 2*cutJitter)
		if err := trouble(t, w); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got trouble %v; want a refused connection", err)
		}
	})
}

func TestProxyThatCutsEveryWaitAtOnceIsBackedOffFrom(t *testing.T) {
	for _, after := range []time.Duration{0, 100 * time.Millisecond, time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			follow(t, Config{}, func(c call) reply {
				if c.kind == block {
					return reply{status: 504, after: after}
				}
				return steady(c)
			}, func(t *testing.T, w *Watcher, s *script) {
				wantLatest(t, w, "a:passing")
				settle(10 * time.Minute)
				if n := len(s.asked(fetch, confirm, block)); n > 10*60*4 {
					t.Errorf("%d questions in 10 minutes; want at most four a second", n)
				}
				wantLatest(t, w, "a:passing")
			})
		})
	}
}
