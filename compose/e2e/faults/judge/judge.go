// Package judge makes a row of the faults' table from what was measured, and says what of it is out of bound.
//
// What failed is counted as failed, whoever was at fault. Where a bound allows for failures of one kind, they are
// still in the count; only the judgement lets them pass.
package judge

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

// Any is a bound on a number of failures that every number keeps.
const Any = -1

// Bounds of one row. The zero value allows no failure and bounds nothing else.
type Bounds struct {
	// Gets and Posts are how many of them may fail at most. Any: all of them.
	Gets, Posts int
	// Share of all requests that may fail, below 1. Not 0: it takes the place of Gets and Posts.
	Share float64
	// Excused says of a failure that it is the right answer to the fault. nil: none is.
	Excused func(*traffic.Sample) bool
	// Notice and Recover bound the time to notice and to recover. 0: no bound.
	Notice, Recover time.Duration
	// P99From bounds p99 from so long after the fault's start to its end: at most the greater of twice that before
	// and 50 ms more. 0: no bound.
	P99From time.Duration
	// Values bounds what the row measures besides, by its name.
	Values map[string]Range
	// Alert must begin to fire between the fault's start and the load's end. "": none need.
	Alert string
	// Words say the bounds that a table's reader can't see from the numbers.
	Words string
}

// Range of a value, both ends included. A zero Max is a bound too; to leave an end open use math.Inf.
type Range struct{ Min, Max float64 }

// Unknown is a time that was not seen.
const Unknown = time.Duration(-1)

// Measured is what one run of a row brought.
type Measured struct {
	Name, Title string
	Run         int // counted from 1

	Began, Start, End, Recovered, Ended time.Time // of the load, the fault, its end, when all was well again, the load's end
	Samples                             []traffic.Sample
	Rate                                int // requests a second that were asked for, extra ones not counted

	Notice, Recover time.Duration // Unknown: never seen. 0 with no way to see it: see NoticeBy
	NoticeBy        string        // how the notice was seen; "": the row has none
	RecoverBy       string        // how the recovery was seen
	Values          map[string]float64
	Alerts          []string // that began to fire between the fault's start and the load's end, by name
	Notes           []string
	Lost, Twice     int // POSTs that were acknowledged and are not stored; stored more than once
	Phantom         int // stored, and never asked for
}

// Row of the table.
type Row struct {
	Measured
	Bounds Bounds

	Requests, Failed      int
	GetsFailed            int
	PostsFailed           int
	Excusable             int // of those that failed
	Wrong, Degraded       int
	Before, During, After Window
	Out                   []string // each bound that was not kept
	NotMade               string   // why the fault can't be made on this machine: then there is no number
	Void                  string   // why the run is no row
}

// Held reports whether every bound was kept. A row without a run held nothing.
func (r *Row) Held() bool { return len(r.Out) == 0 && r.NotMade == "" && r.Void == "" }

// Judge a run.
func Judge(m Measured, b Bounds) Row {
	r := Row{Measured: m, Bounds: b}
	r.Before = Over(m.Samples, m.Began, m.Start)
	r.During = Over(m.Samples, m.Start, m.Recovered)
	r.After = Over(m.Samples, m.Recovered, m.Ended.Add(time.Hour))
	gets, posts := 0, 0 // that are not excused
	for i := range m.Samples {
		r.count(&m.Samples[i], &gets, &posts)
	}
	if why := tooShort(m); why != "" {
		r.Void = why
		return r
	}
	r.failures(gets, posts)
	r.times()
	r.values()
	if b.Alert != "" && !slices.Contains(m.Alerts, b.Alert) {
		r.out("the alert %s did not fire", b.Alert)
	}
	return r
}

func (r *Row) count(s *traffic.Sample, gets, posts *int) {
	r.Requests++
	if s.Degraded {
		r.Degraded++
	}
	if s.Wrong {
		r.Wrong++
	}
	if !s.Failed() {
		return
	}
	r.Failed++
	excused := !s.Wrong && r.Bounds.Excused != nil && r.Bounds.Excused(s)
	if excused {
		r.Excusable++
	}
	if s.Method == http.MethodPost {
		r.PostsFailed++
		if !excused {
			*posts++
		}
		return
	}
	r.GetsFailed++
	if !excused {
		*gets++
	}
}

// tooShort says why a run was shorter, or lighter, than asked.
func tooShort(m Measured) string {
	steady := 0
	for i := range m.Samples {
		if m.Samples[i].Stream != "extra" {
			steady++
		}
	}
	asked := m.Ended.Sub(m.Began).Seconds() * float64(m.Rate)
	switch {
	case m.Start.IsZero() || m.End.IsZero() || m.Recovered.IsZero() || m.Ended.IsZero():
		return "the run did not come to its end"
	case float64(steady) < 0.95*asked:
		return fmt.Sprintf("%d requests were sent in %.1f s; want %.0f", steady, m.Ended.Sub(m.Began).Seconds(), asked)
	}
	return ""
}

func (r *Row) out(format string, args ...any) { r.Out = append(r.Out, fmt.Sprintf(format, args...)) }

func (r *Row) failures(gets, posts int) {
	what := "failed"
	if r.Bounds.Excused != nil {
		what = "failed otherwise than the bound allows"
	}
	switch {
	case r.Bounds.Share > 0:
		if share := float64(gets+posts) / float64(max(r.Requests, 1)); share >= r.Bounds.Share {
			r.out("%.2f %% of the requests %s; want under %.2f %%", 100*share, what, 100*r.Bounds.Share)
		}
	default:
		if r.Bounds.Gets != Any && gets > r.Bounds.Gets {
			r.out("%d GETs %s; want at most %d", gets, what, r.Bounds.Gets)
		}
		if r.Bounds.Posts != Any && posts > r.Bounds.Posts {
			r.out("%d POSTs %s; want at most %d", posts, what, r.Bounds.Posts)
		}
	}
	for _, c := range []struct {
		n    int
		what string
	}{
		{r.Wrong, "requests were answered wrongly"},
		{r.Lost, "acknowledged POSTs are not stored"},
		{r.Twice, "POSTs are stored more than once"},
		{r.Phantom, "stored orders were asked for by nobody"},
	} {
		if c.n > 0 {
			r.out("%d %s; want none", c.n, c.what)
		}
	}
}

func (r *Row) times() {
	if r.Recover == Unknown {
		r.out("not recovered in time")
	} else if r.Bounds.Recover > 0 && r.Recover > r.Bounds.Recover {
		r.out("recovered after %v; want %v at most", Round(r.Recover), r.Bounds.Recover)
	}
	switch {
	case r.NoticeBy == "":
	case r.Notice == Unknown:
		r.out("never noticed")
	case r.Bounds.Notice > 0 && r.Notice > r.Bounds.Notice:
		r.out("noticed after %v; want %v at most", Round(r.Notice), r.Bounds.Notice)
	}
	if r.Bounds.P99From > 0 {
		limit := max(2*r.Before.P99, r.Before.P99+50*time.Millisecond)
		if w := Over(r.Samples, r.Start.Add(r.Bounds.P99From), r.End); w.P99 > limit {
			r.out("p99 was %v from %v after the fault on; want %v at most", Round(w.P99), r.Bounds.P99From, Round(limit))
		}
	}
}

func (r *Row) values() {
	for _, name := range slices.Sorted(maps.Keys(r.Bounds.Values)) {
		want := r.Bounds.Values[name]
		got, ok := r.Values[name]
		switch {
		case !ok:
			r.out("%s was not measured", name)
		case got < want.Min || got > want.Max:
			r.out("%s is %.4g; want %s", name, got, want)
		}
	}
}

func (r Range) String() string {
	switch {
	case r.Min == r.Max:
		return fmt.Sprintf("%.4g", r.Min)
	case r.Max > 1e300:
		return fmt.Sprintf("at least %.4g", r.Min)
	case r.Min < -1e300:
		return fmt.Sprintf("at most %.4g", r.Max)
	}
	return fmt.Sprintf("%.4g to %.4g", r.Min, r.Max)
}

// Text of the bounds, for the table's column.
func (b Bounds) Text() string {
	var parts []string
	number := func(n int, what string) string {
		if n == Any {
			return "any " + what
		}
		return fmt.Sprintf("%d %s", n, what)
	}
	switch {
	case b.Share > 0:
		parts = append(parts, fmt.Sprintf("failed < %.4g %%", 100*b.Share))
	case b.Gets == b.Posts:
		parts = append(parts, number(b.Gets, "failed"))
	default:
		parts = append(parts, number(b.Gets, "GETs")+", "+number(b.Posts, "POSTs failed"))
	}
	if b.Excused != nil {
		parts[0] += " but those allowed"
	}
	if b.Words != "" {
		parts = append(parts, b.Words)
	}
	if b.Notice > 0 {
		parts = append(parts, fmt.Sprintf("noticed in %v", b.Notice))
	}
	if b.Recover > 0 {
		parts = append(parts, fmt.Sprintf("recovered in %v", b.Recover))
	}
	if b.P99From > 0 {
		parts = append(parts, fmt.Sprintf("p99 after %v at most the greater of 2 × and + 50 ms", b.P99From))
	}
	for _, name := range slices.Sorted(maps.Keys(b.Values)) {
		parts = append(parts, name+" "+b.Values[name].String())
	}
	if b.Alert != "" {
		parts = append(parts, b.Alert+" fires")
	}
	return strings.Join(parts, "; ")
}

// Round a time to what a reader wants to see.
func Round(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
