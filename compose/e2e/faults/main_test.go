package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
	"github.com/rollcall-mesh/rollcall/compose/e2e/queries"
)

func TestEachRowHasBoundsAndANameOfItsOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.name] {
			t.Errorf("two rows are called %s", r.name)
		}
		seen[r.name] = true
		if _, ok := bounds[r.name]; !ok {
			t.Errorf("%s has no bounds", r.name)
		}
		if r.fault == nil || r.title == "" {
			t.Errorf("%s makes no fault, or has no title", r.name)
		}
	}
	for name := range bounds {
		if !seen[name] {
			t.Errorf("there are bounds for %s, and no such row", name)
		}
	}
	for _, name := range soakable {
		if !seen[name] {
			t.Errorf("a soak wants %s, and there is no such row", name)
		}
	}
}

func TestAlertsOfTheBoundsAreThoseOfTheRules(t *testing.T) {
	rules, err := queries.Rules("../../../observability/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, b := range bounds {
		if b.Alert == "" {
			continue
		}
		n++
		if !slices.ContainsFunc(rules, func(r queries.Rule) bool { return r.Alert == b.Alert }) {
			t.Errorf("%s wants the alert %s, which there is none of", name, b.Alert)
		}
	}
	if n < 8 {
		t.Errorf("%d rows want an alert; want 8 and more", n)
	}
}

func TestRowsAreChosenByNameOrBySet(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
		err  string
	}{
		{nil, len(rows), ""},
		{[]string{"-only", "swap, kill-order"}, 2, ""},
		{[]string{"-only", "nonsense"}, 0, `no row "nonsense"`},
		{[]string{"-set", "long"}, 0, "want all or short"},
		{[]string{"-runs", "0"}, 0, "want 1 to 10"},
		{[]string{"-load", "1.5"}, 0, "want 0.1 to 1"},
		{[]string{"-load", "NaN"}, 0, "want 0.1 to 1"},
		{[]string{"-load", "0.5"}, len(rows), ""},
		{[]string{"-soak", "1m"}, 0, "want 15m to 2h"},
		{[]string{"swap"}, 0, "want flags only"},
	} {
		o, err := parse(c.args)
		var got []row
		if err == nil {
			got, err = chosen(o)
		}
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%v: %v; want %q", c.args, err, c.err)
		}
		if len(got) != c.want {
			t.Errorf("%v: %d rows; want %d", c.args, len(got), c.want)
		}
	}
	if o, err := parse([]string{"-set", "short"}); err != nil {
		t.Error(err)
	} else if short, err := chosen(o); err != nil || len(short) == 0 || len(short) == len(rows) {
		t.Errorf("%d rows are short, %v; want some", len(short), err)
	}
}

func TestOnlyTheRightRefusalIsExcused(t *testing.T) {
	problem := traffic.Sample{Method: http.MethodPost, Path: "/orders/9", Status: 503, Problem: true, Retry: "1", Took: 900 * time.Millisecond, Err: "x"}
	with := func(change func(*traffic.Sample)) *traffic.Sample { s := problem; change(&s); return &s }
	for _, c := range []struct {
		name    string
		excused func(*traffic.Sample) bool
		sample  *traffic.Sample
		want    bool
	}{
		{"a POST without a user", quickRefusal, &problem, true},
		{"one that took too long", quickRefusal, with(func(s *traffic.Sample) { s.Took = time.Second }), false},
		{"orders that are in order's own store", quickRefusal, with(func(s *traffic.Sample) { s.Method, s.Path = http.MethodGet, traffic.OrdersPath }), false},
		{"no problem", quickRefusal, with(func(s *traffic.Sample) { s.Problem = false }), false},
		{"a POST to a full disk", fullDisk, with(func(s *traffic.Sample) { s.Status = 507 }), true},
		{"a GET from a full disk", fullDisk, with(func(s *traffic.Sample) { s.Method = http.MethodGet }), false},
		{"a 500 of a full disk", fullDisk, with(func(s *traffic.Sample) { s.Status = 500 }), false},
		{"one that was shed", shed, &problem, true},
		{"one without Retry-After", shed, with(func(s *traffic.Sample) { s.Retry = "" }), false},
	} {
		if got := c.excused(c.sample); got != c.want {
			t.Errorf("%s: excused %v; want %v", c.name, got, c.want)
		}
	}
}

func TestWaitsAreCountedFromTheThirdThatEndedAndLateOnesFromTheNotice(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	post := func(at time.Duration) traffic.Sample {
		return traffic.Sample{Method: http.MethodPost, At: start.Add(at), Took: 5 * time.Second, Err: "no answer"}
	}
	get := post(0)
	get.Method = http.MethodGet
	well := post(0)
	well.Err = ""
	samples := []traffic.Sample{get, well, post(-time.Second), post(3 * time.Second), post(time.Second), post(2 * time.Second), post(12 * time.Second)}
	for _, c := range []struct {
		samples []traffic.Sample
		notice  time.Duration
		want    map[string]float64
	}{
		{samples, 11 * time.Second, map[string]float64{outAfter: 3, lateFailures: 1}}, // the third ended at 8 s
		{samples, 2500 * time.Millisecond, map[string]float64{outAfter: 0, lateFailures: 2}},
		{samples[:4], time.Second, map[string]float64{outAfter: 0, lateFailures: 1}},
		{samples, judge.Unknown, nil},
	} {
		if got := waits(c.samples, start, c.notice); !maps.Equal(got, c.want) {
			t.Errorf("noticed after %v: %v; want %v", c.notice, got, c.want)
		}
	}
}

func TestWhoWaitedWhileAGatewayWasAwayIsNoneOfOurs(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sent := func(at, took time.Duration) traffic.Sample {
		return traffic.Sample{At: start.Add(at), Took: took}
	}
	samples := []traffic.Sample{
		sent(-time.Second, time.Second), // before the fault
		sent(10*time.Second, 400*time.Millisecond),
		sent(10*time.Second, time.Second),
		sent(11*time.Second, time.Second),
		sent(11100*time.Millisecond, time.Second),
		sent(9900*time.Millisecond, 2*time.Second),
	}
	away := []span{{start.Add(10 * time.Second), start.Add(11 * time.Second)}}
	if within, outside := waited(samples, start, away); within != 2 || len(outside) != 2 || outside[0] != &samples[4] || outside[1] != &samples[5] {
		t.Errorf("%d waited while it was away, and else %v; want 2, and the last two", within, outside)
	}
}

// One that held, one that did not, one that is none and one that can't be made.
func TestTableShowsWhatHeldAndWhatNot(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := judge.Measured{
		Name: "swap", Title: "a swap", Run: 1, Began: began, Start: began.Add(time.Second), End: began.Add(2 * time.Second),
		Recovered: began.Add(3 * time.Second), Ended: began.Add(4 * time.Second), Rate: 10,
	}
	for n := range 40 {
		m.Samples = append(m.Samples, traffic.Sample{Stream: "get", At: began.Add(time.Duration(n) * 100 * time.Millisecond), Took: 2 * time.Millisecond, Method: http.MethodGet, Status: 200})
	}
	m.Alerts = []string{"RollcallPanicMode", "RollcallTargetDown"}
	good := judge.Judge(m, judge.Bounds{})
	bad := m
	bad.Samples = append([]traffic.Sample(nil), m.Samples...)
	bad.Samples[15].Err = "status 502"
	all := [][]judge.Row{{good, judge.Judge(bad, judge.Bounds{}), {Measured: m, Void: "it broke"}, {Measured: m, NotMade: "no root"}}}
	page := write(all, machine{began: began})
	for _, want := range []string{"1 of 3 rows held", "| 40 | 0 |", "| RollcallPanicMode, RollcallTargetDown |", "| yes |", "10 times as short", "| 40 | 1 |", "| **no** |", "no row: it broke", "not made on this machine: no root", "1 GETs failed; want at most 0"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if got := broken(all); len(got) != 2 || got[0] != "swap (run 1)" {
		t.Errorf("got %v; want the names of the two rows", got)
	}
	if got := broken([][]judge.Row{{good}}); got != nil {
		t.Errorf("got %v of a row that held", got)
	}
	dir := t.TempDir()
	if err := save(dir, page, all); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "faults", "swap.svg"))
	if err != nil || !strings.Contains(string(svg), "</svg>") || !strings.Contains(string(svg), "a swap") {
		t.Errorf("the plot is %.100q, %v; want one with its title", svg, err)
	}
}

func TestPageShowsTheLastWholeRunAndWhatBecameOfTheOthers(t *testing.T) {
	row := func(name string, run int) judge.Row {
		return judge.Row{Measured: judge.Measured{Name: name, Title: fmt.Sprintf("%s in run %d", name, run), Run: run}}
	}
	bad := row("swap", 1)
	bad.Out = []string{"1 GETs failed; want at most 0"}
	all := [][]judge.Row{{bad, row("scale", 1)}, {row("swap", 2), row("scale", 2)}, {row("swap", 3)}}
	page := write(all, machine{})
	for _, want := range []string{"swap in run 2", "This is run 2 of 3; in all of them 4 of 5 held. Out of bound: swap (run 1)."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	for _, other := range []string{"swap in run 1", "swap in run 3"} {
		if strings.Contains(page, other) {
			t.Errorf("the page shows %q too:\n%s", other, page)
		}
	}
}

func TestRowThatAsksForMoreThanTheUsualHasRoomTooUnlessTheLoadIsSetByHand(t *testing.T) {
	more := row{peak: 625}
	for _, c := range []struct {
		p    program
		w    row
		want float64
	}{
		{program{share: 1, serves: 900}, row{}, 1},
		{program{share: 1, serves: 900}, more, .5},
		{program{share: 1, serves: 1600}, more, 1},
		{program{share: .3, serves: 180}, more, .1},
		{program{share: .3, serves: 180}, row{peak: 20}, .3},
		{program{share: 1}, more, 1}, // LOAD=1
	} {
		if got := c.p.shareOf(c.w); got != c.want {
			t.Errorf("of a machine that serves %v a second a row of %d gets %v; want %v", c.p.serves, c.w.peak, got, c.want)
		}
	}
	if peak := rows[slices.IndexFunc(rows, func(w row) bool { return w.name == "overload" })].peak; peak != 625 {
		t.Errorf("overload sends %d a second; want 625", peak)
	}
}

func TestFailuresThatABoundAllowsAreToldBesideItsZero(t *testing.T) {
	r := judge.Row{Measured: judge.Measured{Name: "users-killed", Run: 1}, Bounds: bounds["users-killed"], Failed: 739, Excusable: 739}
	page := write([][]judge.Row{{r}}, machine{})
	for _, want := range []string{"| 739, 739 of them allowed |", "0 failed but those allowed; none that order can answer by itself"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
}

func TestLoadIsWhatTheMachineBearsAndNeverMoreThanTheUsual(t *testing.T) {
	for serves, want := range map[float64]float64{5: .1, 54: .1, 110: .2, 400: .7, 549: .9, 550: 1, 5000: 1} {
		if got := shareFor(serves, usualGets+usualPosts); got != want {
			t.Errorf("of a machine that serves %v a second the share is %v; want %v", serves, got, want)
		}
	}
	for _, c := range []struct {
		rate  int
		share float64
		want  int
	}{{200, 1, 200}, {20, .7, 14}, {4, .1, 1}, {-1, 1, 0}, {-1, .1, 0}} {
		if got := scaled(c.rate, c.share); got != c.want {
			t.Errorf("%v of %d is %d; want %d", c.share, c.rate, got, c.want)
		}
	}
	if got, want := (machine{share: .7, serves: 400}).load(), "The load is 140 GETs and 14 POSTs with keys a second (0.7 of the usual 200 and 20); the fleet was seen to serve 400 GETs a second here."; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}
