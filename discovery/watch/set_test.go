package watch

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

var (
	noon  = time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	bound = noon.Add(30 * time.Second)
)

func at(id string, s catalog.State, change ...func(*catalog.Instance)) catalog.Instance {
	i := catalog.Instance{ID: id, Node: "node", Host: "host-" + id, Port: 80, Weight: 1, State: s}
	for _, c := range change {
		c(&i)
	}
	return i
}

func until(t time.Time) func(*catalog.Instance) {
	return func(i *catalog.Instance) { i.MissingUntil = t }
}

func host(h string) func(*catalog.Instance) { return func(i *catalog.Instance) { i.Host = h } }
func node(n string) func(*catalog.Instance) { return func(i *catalog.Instance) { i.Node = n } }

func TestEachVanishedInstanceIsJudgedAlone(t *testing.T) {
	const (
		passing     = catalog.StatePassing
		warning     = catalog.StateWarning
		critical    = catalog.StateCritical
		draining    = catalog.StateDraining
		maintenance = catalog.StateMaintenance
	)
	type set = []catalog.Instance
	for name, c := range map[string]struct {
		last, answer, next set
		vanished           string
		off                bool
	}{
		"nothing changes":     {set{at("a", passing)}, set{at("a", passing)}, set{at("a", passing)}, "", false},
		"passing stays":       {set{at("a", passing), at("b", passing)}, set{at("b", passing)}, set{at("a", passing, until(bound)), at("b", passing)}, "a", false},
		"warning stays":       {set{at("a", warning), at("b", passing)}, set{at("b", passing)}, set{at("a", warning, until(bound)), at("b", passing)}, "a", false},
		"all stay":            {set{at("a", passing), at("b", warning)}, nil, set{at("a", passing, until(bound)), at("b", warning, until(bound))}, "a b", false},
		"critical goes":       {set{at("a", critical), at("b", passing)}, set{at("b", passing)}, set{at("b", passing)}, "", false},
		"last critical stays": {set{at("a", critical)}, nil, set{at("a", critical, until(bound))}, "a", false},
		"critical beside what can't be used stays": {
			set{at("a", critical), at("b", passing)},
			set{at("b", draining)},
			set{at("a", critical, until(bound)), at("b", draining)},
			"a", false,
		},
		"critical beside a missing one goes": {
			set{at("a", critical), at("b", passing)}, nil, set{at("b", passing, until(bound))}, "b", false,
		},
		"kept critical goes when another comes": {
			set{at("a", critical, until(bound))}, set{at("b", passing)}, set{at("b", passing)}, "", false,
		},
		"kept critical goes when another comes critical": {
			set{at("a", critical, until(bound))}, set{at("b", critical)}, set{at("b", critical)}, "", false,
		},
		"draining goes":            {set{at("a", draining), at("b", draining)}, set{at("b", draining)}, set{at("b", draining)}, "", false},
		"last draining goes":       {set{at("a", draining)}, nil, nil, "", false},
		"maintenance goes":         {set{at("a", maintenance)}, nil, nil, "", false},
		"its time does not grow":   {set{at("a", passing, until(noon.Add(time.Second)))}, nil, set{at("a", passing, until(noon.Add(time.Second)))}, "", false},
		"its time is over":         {set{at("a", passing, until(noon))}, nil, nil, "", false},
		"coming back ends it":      {set{at("a", passing, until(bound))}, set{at("a", passing)}, set{at("a", passing)}, "", false},
		"back at another address":  {set{at("a", passing, until(bound))}, set{at("a", passing, host("new"))}, set{at("a", passing, host("new"))}, "", false},
		"moved":                    {set{at("a", passing)}, set{at("a", passing, host("new"))}, set{at("a", passing, host("new"))}, "", false},
		"address taken by another": {set{at("a", passing)}, set{at("b", passing, host("host-a"))}, set{at("b", passing, host("host-a"))}, "", false},
		"same ID on another node":  {set{at("a", passing)}, set{at("a", passing, node("other"), host("new"))}, set{at("a", passing, until(bound)), at("a", passing, node("other"), host("new"))}, "a", false},
		"turned off":               {set{at("a", passing), at("b", critical)}, nil, nil, "", true},
		"newcomers and order":      {nil, set{at("b", passing), at("a", critical)}, set{at("a", critical), at("b", passing)}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			missingFor := 30 * time.Second
			if c.off {
				missingFor = -1
			}
			last, answer := slices.Clone(c.last), slices.Clone(c.answer)
			next, vanished := succeed(c.last, c.answer, rule{now: noon, grace: missingFor, final: true})
			if diff := cmp.Diff(c.next, next, cmp.Transformer("empty", func(s set) set { return append(set{}, s...) })); diff != "" && len(c.next)+len(next) > 0 {
				t.Errorf("want -, got +:\n%s", diff)
			}
			var ids []string
			for _, i := range vanished {
				ids = append(ids, i.ID)
			}
			if got := strings.Join(ids, " "); got != c.vanished {
				t.Errorf("gone missing: got %q; want %q", got, c.vanished)
			}
			if cmp.Diff(last, c.last)+cmp.Diff(answer, c.answer) != "" {
				t.Error("an argument was changed")
			}
		})
	}
}

func TestWhateverVanishesTheSetKeepsItsLaws(t *testing.T) {
	instance := rapid.Custom(func(t *rapid.T) catalog.Instance {
		i := at(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id"), rapid.SampledFrom(catalog.States[:]).Draw(t, "state"))
		i.Node = rapid.SampledFrom([]string{"n", "m"}).Draw(t, "node")
		i.Host = rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "host")
		return i
	})
	answers := rapid.SliceOfN(rapid.SliceOfNDistinct(instance, 0, 5, catalog.Instance.Key), 1, 12)
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		var set []catalog.Instance
		for _, answer := range answers.Draw(t, "answers") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
			last := set
			set, _ = succeed(last, answer, rule{now: now, grace: 30 * time.Second, final: true})
			have := keys(set)
			if len(have) != len(set) {
				t.Fatalf("an instance is there twice: %v", set)
			}
			for _, i := range answer {
				if !have[i.Key()] {
					t.Fatalf("%v was answered and is not there", i)
				}
			}
			told := keys(answer)
			for _, i := range set {
				switch {
				case told[i.Key()] == i.Missing():
					t.Fatalf("%v: missing is %v, answered is %v", i, i.Missing(), told[i.Key()])
				case i.Missing() && (i.MissingUntil.After(now.Add(30*time.Second)) || !i.MissingUntil.After(now)):
					t.Fatalf("%v stays until %s at %s", i, i.MissingUntil, now)
				case i.Missing() && !usable(i):
					t.Fatalf("%v is kept and can't be used", i)
				}
			}
			if len(absent(last, answer)) > 0 && !slices.ContainsFunc(set, usable) {
				for _, i := range absent(last, answer) {
					if usable(i) && (!i.Missing() || now.Before(i.MissingUntil)) {
						t.Fatalf("nothing is left to use, though %v was", i)
					}
				}
			}
		}
	})
}
