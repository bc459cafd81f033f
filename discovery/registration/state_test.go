package registration

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// drawn lists every change of state in the drawing of Registered, written down a
// second time.
var drawn = []string{
	"draining to deregistered",
	"recovering to deregistered", "recovering to draining", "recovering to registered",
	"registered to deregistered", "registered to draining", "registered to recovering",
	"starting to deregistered", "starting to draining", "starting to registered",
}

func TestStateChangesOnlyAsDrawn(t *testing.T) {
	for _, from := range States {
		for _, to := range States {
			var d diary
			log := newLines()
			r := &Registration{cfg: Config{Trace: d.trace(), Log: slog.New(log)}}
			since := time.Unix(1, 0)
			r.status.Store(&Status{State: from, Why: "before", Since: since})
			r.calls.begin()
			newLife(r).enter(to, "after", nil)
			r.calls.end()

			change := from.String() + " to " + to.String()
			got, told, logged := r.Status(), d.all(), log.count("INFO registration changed")
			if slices.Contains(drawn, change) {
				if got.State != to || got.Why != "after" || got.Since.Equal(since) {
					t.Errorf("%s: status is %+v; want %s, why and a new time", change, got, to)
				}
				if !slices.Equal(told, []string{change}) || logged != 1 {
					t.Errorf("%s: told %q, logged %d times; want once each", change, told, logged)
				}
				continue
			}
			if got.State != from || !got.Since.Equal(since) || len(told) != 0 || logged != 0 {
				t.Errorf("%s: status is %+v, told %q, logged %d times; want it to stay in silence", change, got, told, logged)
			}
		}
	}
}

func TestStateIsReadAsItIsWritten(t *testing.T) {
	for _, want := range States {
		text, err := want.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		got := State(-1)
		if err := got.UnmarshalText(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want it as it was", text, got, err)
		}
	}
	got := StateDraining
	if err := got.UnmarshalText([]byte("resting")); err == nil || !strings.Contains(err.Error(), `"resting"`) || got != StateDraining {
		t.Errorf("got %v, %v of a word that is none; want an error that names it", got, err)
	}
}

// TestEveryChangeOfALifeIsDrawnToldAndLogged runs lives with random harm.
func TestEveryChangeOfALifeIsDrawnToldAndLogged(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 1))
	met := map[string]bool{}
	for n := range 150 {
		synctest.Test(t, func(t *testing.T) {
			agent := consultest.New(t)
			var d diary
			log := newLines()
			cfg := settings(t, agent)
			cfg.Trace, cfg.Log = d.trace(), slog.New(log)
			if rng.IntN(2) == 0 {
				agent.Break("", consultest.Refuse())
			}
			r := start(t, cfg)
			drains := false
			for range rng.IntN(8) {
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
				switch rng.IntN(9) {
				case 0, 1, 2:
					agent.Mend()
					agent.ElectLeader()
				case 3:
					agent.Break("", consultest.Refuse())
				case 4:
					agent.Break("", consultest.Fail(500, "no"))
				case 5:
					agent.Wipe()
				case 6:
					agent.LoseLeader()
				case 7:
					agent.WipeServers()
					r.agent.Look()
				case 8:
					drains = drains || rng.IntN(3) == 0
					if drains {
						_ = r.Drain(t.Context()) // it may be called again
					}
				}
			}
			_ = r.Close() // Consul may be away
			state := StateStarting.String()
			for _, change := range d.all() {
				met[change] = true
				if !slices.Contains(drawn, change) || !strings.HasPrefix(change, state+" to ") {
					t.Fatalf("life %d: %q after %s is not in the drawing: %q", n, change, state, d.all())
				}
				_, state, _ = strings.Cut(change, " to ")
			}
			if state != StateDeregistered.String() || r.Status().State != StateDeregistered {
				t.Errorf("life %d ends as %s, and %v; want deregistered", n, state, r.Status().State)
			}
			if told, logged := len(d.all()), log.count("INFO registration changed"); told != logged {
				t.Errorf("life %d: %d changes told, %d logged; want the same", n, told, logged)
			}
		})
	}
	if diff := cmp.Diff(drawn, slices.Sorted(maps.Keys(met))); diff != "" {
		t.Errorf("changes met (-drawn +met):\n%s", diff)
	}
}

// goesThroughEveryChange is a life for each way through the drawing.
func goesThroughEveryChange(t *testing.T, b backend) {
	met := map[string]bool{}
	for n, c := range []struct {
		cut   bool     // before the start
		steps []string // what is done, and the state awaited
		want  []string
	}{
		{true, []string{"close deregistered"}, []string{"starting to deregistered"}},
		{true, []string{"drain draining", "close deregistered"}, []string{"starting to draining", "draining to deregistered"}},
		{
			true,
			[]string{"join registered", "cut recovering", "join registered", "close deregistered"},
			[]string{"starting to registered", "registered to recovering", "recovering to registered", "registered to deregistered"},
		},
		{
			false,
			[]string{"join registered", "cut recovering", "drain draining", "join draining", "close deregistered"},
			[]string{"starting to registered", "registered to recovering", "recovering to draining", "draining to deregistered"},
		},
		{
			false,
			[]string{"join registered", "drain draining", "close deregistered"},
			[]string{"starting to registered", "registered to draining", "draining to deregistered"},
		},
		{
			false,
			[]string{"join registered", "cut recovering", "close deregistered"},
			[]string{"starting to registered", "registered to recovering", "recovering to deregistered"},
		},
	} {
		var line wire
		var d diary
		cfg := settings(t, b)
		cfg.ID = fmt.Sprintf("%s-%d", cfg.Service, n)
		cfg.Client, cfg.Trace = line.client(t, b), d.trace()
		if c.cut {
			line.cut()
		}
		r := start(t, cfg)
		for _, step := range c.steps {
			do, want, _ := strings.Cut(step, " ")
			switch do {
			case "cut":
				line.cut()
				r.Refresh()
			case "join":
				line.join()
			case "drain":
				if err := r.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
			case "close":
				_ = r.Close() // Consul may be out of reach
			}
			eventually(t, "state "+want, func() bool { return r.Status().State.String() == want })
		}
		if diff := cmp.Diff(c.want, d.all()); diff != "" {
			t.Errorf("life %d (-want +got):\n%s", n, diff)
		}
		for _, change := range d.all() {
			met[change] = true
		}
	}
	if diff := cmp.Diff(drawn, slices.Sorted(maps.Keys(met))); diff != "" {
		t.Errorf("changes met (-drawn +met):\n%s", diff)
	}
}
