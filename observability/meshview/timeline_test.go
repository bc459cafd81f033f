package meshview

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// one is a picture of one service with these instances.
func one(instances ...Instance) *Picture {
	for n := range instances {
		instances[n].Key = instances[n].ID
	}
	return &Picture{Consul: Consul{Reachable: true}, Services: []Service{{Name: "order", Instances: instances}}}
}

func TestTimelineTellsWhatIsAnotherThanBefore(t *testing.T) {
	until := time.Date(2026, 11, 1, 12, 0, 5, 0, time.UTC)
	out := []Out{{By: "gateway-1", Reason: "errors", Until: until}, {By: "gateway-2", Reason: "silence", Until: until}}
	for name, c := range map[string]struct {
		before, after *Picture
		want          []string
	}{
		"nothing":         {one(Instance{ID: "a", State: "passing"}), one(Instance{ID: "a", State: "passing", Age: time.Second}), nil},
		"no picture":      {nil, one(Instance{ID: "a"}), nil},
		"joined":          {one(), one(Instance{ID: "a", State: "passing"}), []string{"joined: a joined order"}},
		"joined critical": {one(), one(Instance{ID: "a", State: "critical", Reason: "no"}), []string{"joined: a joined order, critical: no"}},
		"left":            {one(Instance{ID: "a"}), one(), []string{"left: a left order"}},
		"a service":       {one(Instance{ID: "a"}), &Picture{Consul: Consul{Reachable: true}}, []string{"left: a left order"}},
		"state":           {one(Instance{ID: "a", State: "passing"}), one(Instance{ID: "a", State: "draining"}), []string{"state: a is draining, it was passing"}},
		"maintenance":     {one(Instance{ID: "a", State: "passing"}), one(Instance{ID: "a", State: "maintenance", Reason: "a disk"}), []string{"state: a is in maintenance, it was passing: a disk"}},
		"missing": {
			one(Instance{ID: "a", State: "passing"}), one(Instance{ID: "a", State: "passing", Missing: true}),
			[]string{"missing: a of order vanished from the catalog, and is still used"},
		},
		"found": {one(Instance{ID: "a", Missing: true}), one(Instance{ID: "a"}), []string{"joined: a is in the catalog again"}},
		"out": {
			one(Instance{ID: "a"}), one(Instance{ID: "a", Out: out, OutBy: 7}),
			[]string{"out: a is out of use at gateway-1, gateway-2 and 5 more until 12:00:05 UTC: errors"},
		},
		"out elsewhere too": {one(Instance{ID: "a", Out: out[:1], OutBy: 1}), one(Instance{ID: "a", Out: out, OutBy: 2}), nil},
		"back":              {one(Instance{ID: "a", Out: out, OutBy: 2}), one(Instance{ID: "a"}), []string{"back: a is back in use"}},
		"versions": {
			one(Instance{ID: "a", Version: "v1"}, Instance{ID: "b", Version: "v1"}), one(Instance{ID: "a", Version: "v1"}, Instance{ID: "b", Version: "v2"}),
			[]string{"version: order runs v1, v2 now, it ran v1"},
		},
	} {
		var got []string
		for _, e := range diff(c.before, c.after) {
			if e.Service != "order" {
				t.Errorf("%s: the event %+v is not of order", name, e)
			}
			got = append(got, e.Kind+": "+e.Text)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q; want %q", name, got, c.want)
		}
	}
}

func TestTimelineKeepsTheLastThousandAndItsTextsAreShort(t *testing.T) {
	line := timeline{last: 100}
	for n := range 15 {
		var some []Instance
		for k := range 100 {
			some = append(some, Instance{ID: strings.Repeat("x", n*100+k), State: "critical", Reason: strings.Repeat("é", 10000)})
		}
		line.add(diff(one(), one(some...)))
	}
	all := line.after(0)
	if len(all) != maxEvents || all[0].Seq != 601 || all[maxEvents-1].Seq != 1600 {
		t.Fatalf("%d events, from %d to %d; want 1000, to 1600", len(all), all[0].Seq, all[len(all)-1].Seq)
	}
	for _, e := range all {
		if len(e.Text) > maxText+len("…") {
			t.Fatalf("a text has %d bytes", len(e.Text))
		}
	}
	for after, want := range map[uint64]int{0: 1000, 600: 1000, 601: 999, 1599: 1, 1600: 0, 1 << 60: 0, 1<<64 - 1: 0} {
		if got := line.after(after); len(got) != want {
			t.Errorf("after %d there are %d; want %d", after, len(got), want)
		}
	}
	if n := line.before(100); n != 1500 {
		t.Errorf("the last hundred are after %d; want 1500", n)
	}
	if more := routes(nil, strings.Split(strings.Repeat("r ", 100), " "), time.Now()); len(more) != maxRoutes+1 || more[maxRoutes].Text != "81 more routes changed" {
		t.Errorf("got %d events, the last %+v; want that there are 81 more", len(more), more[len(more)-1])
	}
}
