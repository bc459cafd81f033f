package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// answer is what became of one request.
type answer struct {
	report   httpmesh.Report
	status   string // HTTP's or gRPC's; noStatus if there was none
	answered bool   // it has one, whatever it says
	body     []byte
	took     time.Duration // to the body's end
	err      error         // of the request, or of the answer's body
}

const noStatus = "none"

// failed reports whether the caller did not get what it asked for.
func (a answer) failed() bool { return a.err != nil || a.report.Outcome != outcome.OK }

// tally counts answers. Its methods may be called by any number of goroutines.
type tally struct {
	began    time.Time
	progress func(answered int)

	mu     sync.Mutex // guards what follows
	counts summary    // but for what sum makes of the rest
	took   []time.Duration
	served map[catalog.Key]*served
	failed map[failureKey]*failure
}

type failureKey struct{ instance, outcome string }

func newTally(service, request string, progress func(answered int)) *tally {
	return &tally{
		began: time.Now(), progress: progress,
		counts: summary{Service: service, Request: request, Statuses: map[string]int{}},
		served: map[catalog.Key]*served{}, failed: map[failureKey]*failure{},
	}
}

// summary is what became of all requests.
type summary struct {
	Service   string         `json:"service"`
	Request   string         `json:"request"`
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Seconds   float64        `json:"seconds"`
	Retries   int            `json:"retries"`     // tries after the first
	Budget    int            `json:"over_budget"` // requests that were not tried again for want of budget
	Statuses  map[string]int `json:"statuses"`
	Instances []served       `json:"instances"`
	Latency   latency        `json:"latency"`
	Failures  []failure      `json:"failed_tries"`
	Body      string         `json:"body,omitempty"` // of a single request
}

// served is what one instance did.
type served struct {
	ID       string `json:"id"`
	Addr     string `json:"addr"`
	Answered int    `json:"answered"` // requests whose answer came from it
	Tries    int    `json:"tries"`
	Failed   int    `json:"failed_tries"`
}

// failure is a way in which tries of an instance failed.
type failure struct {
	Instance string `json:"instance,omitempty"` // empty: there was none to try
	Outcome  string `json:"outcome"`
	Count    int    `json:"count"`
	Example  string `json:"example,omitempty"`
}

// add counts an answer.
func (t *tally) add(a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &t.counts
	c.Requests++
	if a.failed() {
		c.Failed++
	}
	if a.report.OverBudget {
		c.Budget++
	}
	c.Retries += max(len(a.report.Tries)-1, 0)
	if a.answered {
		t.took = append(t.took, a.took)
	}
	c.Statuses[a.status]++
	c.Body = string(a.body)
	for _, try := range a.report.Tries {
		t.addTry(try)
	}
	switch {
	case len(a.report.Tries) == 0 && a.err != nil:
		t.fail("", cmp.Or(a.report.Outcome.String(), "refused"), a.err.Error())
	case a.answered && a.err != nil:
		by, _ := a.report.Served()
		t.fail(by.ID, outcome.BodyBroken.String(), a.err.Error())
	}
	t.progress(c.Requests)
}

func (t *tally) addTry(try httpmesh.Try) {
	one := t.served[try.Instance.Key()]
	if one == nil {
		one = &served{ID: try.Instance.ID, Addr: try.Instance.Addr()}
		t.served[try.Instance.Key()] = one
	}
	one.Tries++
	if try.Used {
		one.Answered++
	}
	if try.Outcome == outcome.OK || try.Outcome == outcome.Outrun {
		return
	}
	one.Failed++
	example := ""
	switch {
	case try.Err != nil:
		example = try.Err.Error()
	case try.Status > 0:
		example = "status " + strconv.Itoa(try.Status)
	}
	t.fail(try.Instance.ID, try.Outcome.String(), example)
}

// fail counts a failure: of the first of its kind the text is kept.
func (t *tally) fail(instance, how, example string) {
	key := failureKey{instance, how}
	if t.failed[key] == nil {
		t.failed[key] = &failure{Instance: instance, Outcome: how, Example: example}
	}
	t.failed[key].Count++
}

// mostFailures bounds the failures that a summary lists: the most frequent are.
const mostFailures = 20

// sum returns the summary of what was added.
func (t *tally) sum() summary {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counts
	c.Seconds = time.Since(t.began).Seconds()
	c.Instances = make([]served, 0, len(t.served))
	for _, one := range t.served {
		c.Instances = append(c.Instances, *one)
	}
	slices.SortFunc(c.Instances, func(a, b served) int { return cmp.Or(strings.Compare(a.ID, b.ID), strings.Compare(a.Addr, b.Addr)) })
	c.Failures = make([]failure, 0, len(t.failed))
	for _, one := range t.failed {
		c.Failures = append(c.Failures, *one)
	}
	slices.SortFunc(c.Failures, func(a, b failure) int {
		return cmp.Or(b.Count-a.Count, strings.Compare(a.Instance, b.Instance), strings.Compare(a.Outcome, b.Outcome))
	})
	c.Failures = c.Failures[:min(len(c.Failures), mostFailures)]
	c.Latency = latencyOf(slices.Clone(t.took))
	return c
}

// latency says how long answers took, to their bodies' end.
type latency struct {
	P50     float64  `json:"p50_seconds"`
	P90     float64  `json:"p90_seconds"`
	P99     float64  `json:"p99_seconds"`
	Max     float64  `json:"max_seconds"`
	Buckets []bucket `json:"buckets"`
}

// bucket counts the answers that took so long at most, and longer than the bucket before.
type bucket struct {
	UpTo  float64 `json:"up_to_seconds"`
	Count int     `json:"count"`
}

// latencyOf sorts what it is given.
func latencyOf(took []time.Duration) latency {
	l := latency{Buckets: []bucket{}}
	if len(took) == 0 {
		return l
	}
	slices.Sort(took)
	quantile := func(q float64) float64 { return took[min(int(q*float64(len(took))), len(took)-1)].Seconds() }
	l.P50, l.P90, l.P99, l.Max = quantile(0.5), quantile(0.9), quantile(0.99), took[len(took)-1].Seconds()
	for bound := range bounds {
		n, _ := slices.BinarySearch(took, bound+1) // those up to the bound
		if n > 0 || len(l.Buckets) > 0 {
			l.Buckets = append(l.Buckets, bucket{bound.Seconds(), n})
		}
		if took = took[n:]; len(took) == 0 {
			break
		}
	}
	return l
}

// bounds yields 100µs, 200µs, 500µs, 1ms and so on, for as long as it is asked.
func bounds(yield func(time.Duration) bool) {
	for unit := 100 * time.Microsecond; ; unit *= 10 {
		for _, times := range []time.Duration{1, 2, 5} {
			if !yield(times * unit) {
				return
			}
		}
	}
}

// print shows the summary.
func (c summary) print(s *session) {
	if c.Body != "" {
		for line := range strings.Lines(c.Body) {
			line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", "    ")
			fmt.Fprintln(s.out, clean(line))
		}
		fmt.Fprintln(s.out)
	}
	fmt.Fprintf(s.out, "%s %s: %s in %s, %d failed, %d retries", c.Service, clean(c.Request), plural(c.Requests, "request"), short(c.Seconds), c.Failed, c.Retries)
	if c.Budget > 0 {
		fmt.Fprintf(s.out, ", %d not tried again for want of retry budget", c.Budget)
	}
	fmt.Fprintln(s.out)
	if len(c.Statuses) > 0 {
		parts := make([]string, 0, len(c.Statuses))
		for _, status := range slices.Sorted(maps.Keys(c.Statuses)) {
			parts = append(parts, fmt.Sprintf("%s (%d)", status, c.Statuses[status]))
		}
		fmt.Fprintln(s.out, "status:", strings.Join(parts, ", "))
	}
	c.Latency.print(s.out)
	if len(c.Instances) > 0 {
		rows := make([][]string, 0, len(c.Instances))
		for _, i := range c.Instances {
			rows = append(rows, []string{i.ID, i.Addr, strconv.Itoa(i.Answered), strconv.Itoa(i.Tries), strconv.Itoa(i.Failed)})
		}
		fmt.Fprintln(s.out)
		table(s, []string{"INSTANCE", "ADDRESS", "ANSWERED", "TRIES", "FAILED TRIES"}, rows)
	}
	if len(c.Failures) > 0 {
		rows := make([][]string, 0, len(c.Failures))
		for _, f := range c.Failures {
			rows = append(rows, []string{or(f.Instance), f.Outcome, strconv.Itoa(f.Count), or(f.Example)})
		}
		fmt.Fprintln(s.out)
		table(s, []string{"INSTANCE", "FAILURE", "TRIES", "FOR EXAMPLE"}, rows)
	}
}

// print shows the latency as bars, of which the longest is barWidth.
func (l latency) print(out io.Writer) {
	if len(l.Buckets) == 0 {
		return
	}
	fmt.Fprintf(out, "latency: p50 %s, p90 %s, p99 %s, max %s\n", short(l.P50), short(l.P90), short(l.P99), short(l.Max))
	if len(l.Buckets) == 1 && l.Buckets[0].Count == 1 {
		return
	}
	const barWidth = 40
	most := slices.MaxFunc(l.Buckets, func(a, b bucket) int { return a.Count - b.Count }).Count
	for _, b := range l.Buckets {
		length := (b.Count*barWidth + most - 1) / most // one that is not empty is seen
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  up to %-7s %7d  %s", short(b.UpTo), b.Count, strings.Repeat("#", length)), " "))
	}
}

// short is a time with three digits.
func short(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit).String()
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// progressOf returns what tells how far a long call is, on a terminal, and what wipes that
// away.
func progressOf(s *session, requests int) (tell func(answered int), wipe func()) {
	if requests == 1 || !isTerminal(s.errs) {
		return func(int) {}, func() {}
	}
	const every = 200 * time.Millisecond
	last, shown := time.Now(), false
	tell = func(answered int) {
		if time.Since(last) > every {
			last, shown = time.Now(), true
			fmt.Fprintf(s.errs, "\r%d of %d", answered, requests)
		}
	}
	return tell, func() {
		if shown {
			fmt.Fprint(s.errs, "\r\x1b[K")
		}
	}
}
