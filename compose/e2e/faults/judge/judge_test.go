package judge

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
)

const ms = time.Millisecond

var t0 = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return t0.Add(d) }

// steady is a run of 30 s at 100 a second, each answered in 2 ms: the fault lasts from 10 to 15 s, and all is well
// again at 16 s.
func steady() Measured {
	m := Measured{
		Name: "row", Run: 1, Rate: 100, Began: at(0), Start: at(10 * time.Second), End: at(15 * time.Second),
		Recovered: at(16 * time.Second), Ended: at(30 * time.Second), Recover: time.Second,
	}
	for n := range 3000 {
		s := traffic.Sample{Stream: "get", Method: "GET", Path: "/orders/1", At: at(time.Duration(n) * 10 * ms), Took: 2 * ms, ServedBy: "order-a", Status: 200}
		if n%10 == 0 {
			s.Stream, s.Method = "post", "POST"
		}
		m.Samples = append(m.Samples, s)
	}
	return m
}

func fail(m *Measured, n int) { m.Samples[n].Err, m.Samples[n].Status = "status 503", 503 }

func wantOut(t *testing.T, r Row, want ...string) {
	t.Helper()
	if len(r.Out) != len(want) || r.Void != "" {
		t.Fatalf("out of bound: %q, void %q; want %q", r.Out, r.Void, want)
	}
	for i, w := range want {
		if !strings.Contains(r.Out[i], w) {
			t.Errorf("out of bound: %q; want %q in it", r.Out[i], w)
		}
	}
	if r.Held() != (len(want) == 0) {
		t.Errorf("held: %v", r.Held())
	}
}

func TestPercentileIsTheNearestRank(t *testing.T) {
	var hundred []time.Duration
	for n := range 100 {
		hundred = append(hundred, time.Duration(n+1))
	}
	for _, c := range []struct {
		list []time.Duration
		p    int
		want time.Duration
	}{
		{nil, 99, 0},
		{hundred[:1], 50, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred[:10], 99, 10},
		{hundred[:3], 50, 2},
		{hundred[:4], 50, 2},
	} {
		if got := Percentile(c.list, c.p); got != c.want {
			t.Errorf("p%d of %d values is %d; want %d", c.p, len(c.list), got, c.want)
		}
	}
}

func TestWindowsCutTheRunWhereTheFaultBeganAndWasOver(t *testing.T) {
	m := steady()
	for i := range m.Samples {
		if s := &m.Samples[i]; !s.At.Before(m.Start) && s.At.Before(m.Recovered) {
			s.Took = 40 * ms
		}
	}
	r := Judge(m, Bounds{})
	for _, c := range []struct {
		name string
		w    Window
		n    int
		p50  time.Duration
	}{{"before", r.Before, 1000, 2 * ms}, {"during", r.During, 600, 40 * ms}, {"after", r.After, 1400, 2 * ms}} {
		if c.w.Requests != c.n || c.w.P50 != c.p50 || c.w.P99 != c.p50 {
			t.Errorf("%s: %+v; want %d requests of %v", c.name, c.w, c.n, c.p50)
		}
	}
	wantOut(t, r)
}

func TestEveryFailureIsCountedAndNoneIsAllowedByDefault(t *testing.T) {
	m := steady()
	fail(&m, 1100) // a POST
	fail(&m, 1101)
	fail(&m, 5) // before the fault
	r := Judge(m, Bounds{})
	if r.Failed != 3 || r.GetsFailed != 2 || r.PostsFailed != 1 || r.Before.Failed != 1 || r.During.Failed != 2 {
		t.Errorf("%d failed, %d GETs, %d POSTs, %d before, %d during", r.Failed, r.GetsFailed, r.PostsFailed, r.Before.Failed, r.During.Failed)
	}
	wantOut(t, r, "2 GETs failed; want at most 0", "1 POSTs failed; want at most 0")
	wantOut(t, Judge(m, Bounds{Gets: 2, Posts: Any}))
}

func TestExcusedFailuresAreCountedButPass(t *testing.T) {
	m := steady()
	fail(&m, 1101)
	fail(&m, 1102)
	m.Samples[1102].Took = 2 * time.Second
	b := Bounds{Excused: func(s *traffic.Sample) bool { return s.Status == 503 && s.Took < time.Second }}
	r := Judge(m, b)
	if r.Failed != 2 || r.Excusable != 1 {
		t.Errorf("%d failed, %d excused; want 2 and 1", r.Failed, r.Excusable)
	}
	wantOut(t, r, "1 GETs failed otherwise than the bound allows")
	m.Samples[1102].Took = ms
	wantOut(t, Judge(m, b))
}

func TestShareOfFailuresMustStayUnderItsBound(t *testing.T) {
	m := steady()
	for n := range 15 {
		fail(&m, 1101+10*n)
	}
	wantOut(t, Judge(m, Bounds{Share: 0.005}), "0.50 % of the requests failed; want under 0.50 %")
	m.Samples[1101].Err = ""
	wantOut(t, Judge(m, Bounds{Share: 0.005}))
}

func TestWrongAnswerIsNeverExcused(t *testing.T) {
	m := steady()
	m.Samples[7].Wrong, m.Samples[7].Err = true, "wrong answer"
	wantOut(t, Judge(m, Bounds{Gets: Any, Posts: Any, Excused: func(*traffic.Sample) bool { return true }}), "1 requests were answered wrongly")
}

func TestLostAndDoubledOrdersAreOutOfEveryBound(t *testing.T) {
	m := steady()
	m.Lost, m.Twice, m.Phantom = 1, 2, 3
	wantOut(t, Judge(m, Bounds{Gets: Any, Posts: Any}), "1 acknowledged POSTs are not stored", "2 POSTs are stored more than once", "3 stored orders")
}

func TestRunShorterThanAskedIsNoRow(t *testing.T) {
	m := steady()
	m.Samples = m.Samples[:2800]
	if r := Judge(m, Bounds{}); r.Void == "" || r.Held() {
		t.Errorf("2800 of 3000 requests make a row: void %q", r.Void)
	}
	m = steady()
	m.Samples = m.Samples[:2900]
	for i := range 500 {
		m.Samples = append(m.Samples, traffic.Sample{Stream: "extra", At: at(time.Duration(i) * ms)})
	}
	wantOut(t, Judge(m, Bounds{}))
	m.Recovered = time.Time{}
	if r := Judge(m, Bounds{}); r.Void == "" {
		t.Error("a run that did not recover makes a row")
	}
	// Requests beside the steady load don't make up for those that were not sent.
	m = steady()
	m.Samples = m.Samples[:2000]
	for i := range 2000 {
		m.Samples = append(m.Samples, traffic.Sample{Stream: "extra", At: at(time.Duration(i) * ms)})
	}
	if r := Judge(m, Bounds{}); r.Void == "" {
		t.Error("extra requests make up for steady ones")
	}
}

func TestTimesAreHeldToTheirBounds(t *testing.T) {
	m := steady()
	m.NoticeBy, m.Notice, m.Recover = "a metric", 3*time.Second, 1200*ms
	wantOut(t, Judge(m, Bounds{Notice: 2 * time.Second, Recover: time.Second}), "recovered after 1.2s; want 1s", "noticed after 3s; want 2s")
	wantOut(t, Judge(m, Bounds{}))
	m.Notice, m.Recover = Unknown, Unknown
	wantOut(t, Judge(m, Bounds{}), "not recovered", "never noticed")
	m.NoticeBy, m.Recover = "", 0
	wantOut(t, Judge(m, Bounds{}))
}

func TestP99IsHeldToTheGreaterOfTwiceAnd50MillisecondsMore(t *testing.T) {
	slow := func(before, during time.Duration, from time.Duration) Row {
		m := steady()
		for i := range m.Samples {
			s := &m.Samples[i]
			switch {
			case s.At.Before(m.Start):
				s.Took = before
			case !s.At.Before(m.Start.Add(from)) && s.At.Before(m.End):
				s.Took = during
			case s.At.Before(m.End):
				s.Took = time.Second // the first moments are not bound
			}
		}
		return Judge(m, Bounds{P99From: 2 * time.Second})
	}
	wantOut(t, slow(2*ms, 52*ms, 2*time.Second))
	wantOut(t, slow(2*ms, 53*ms, 2*time.Second), "p99 was 53ms from 2s after the fault on; want 52ms at most")
	wantOut(t, slow(80*ms, 160*ms, 2*time.Second))
	wantOut(t, slow(80*ms, 161*ms, 2*time.Second), "want 160ms at most")
	wantOut(t, slow(2*ms, 10*ms, 3*time.Second), "p99 was 1s")
}

func TestValueThatWasNotMeasuredIsOutOfBound(t *testing.T) {
	m := steady()
	b := Bounds{Values: map[string]Range{"share": {0.2, 0.5}, "panics": {1, math.Inf(1)}, "requests": {0, 0}}}
	m.Values = map[string]float64{"share": 0.1, "requests": 1}
	wantOut(t, Judge(m, b), "panics was not measured", "requests is 1; want 0", "share is 0.1; want 0.2 to 0.5")
	m.Values = map[string]float64{"share": 0.2, "panics": 7, "requests": 0}
	wantOut(t, Judge(m, b))
}

func TestAlertThatDidNotFireIsOutOfBound(t *testing.T) {
	m := steady()
	m.Alerts = []string{"RollcallShedding"}
	wantOut(t, Judge(m, Bounds{}))
	wantOut(t, Judge(m, Bounds{Alert: "RollcallShedding"}))
	wantOut(t, Judge(m, Bounds{Alert: "RollcallPanicMode"}), "the alert RollcallPanicMode did not fire")
}

func TestQuietFindsTheLastAnswerBeforeASilence(t *testing.T) {
	m := steady()
	m.Samples = append([]traffic.Sample(nil), m.Samples...)
	for i := range m.Samples {
		s := &m.Samples[i]
		// It answers until 11 s, at 11.5 s, and again from 14 s on.
		if s.At.After(at(11*time.Second)) && s.At.Before(at(14*time.Second)) && !s.At.Equal(at(11500*ms)) {
			s.ServedBy = "order-b"
		}
	}
	got, ok := Quiet(m.Samples, "order-a", m.Start, time.Second)
	if want := at(11502 * ms); !ok || !got.Equal(want) {
		t.Errorf("quiet since %v, %v; want %v", got, ok, want)
	}
	if _, ok := Quiet(m.Samples, "order-a", m.Start, 5*time.Second); ok {
		t.Error("found a silence of 5 s where there is none")
	}
	if got, ok := Quiet(m.Samples, "order-c", m.Start, time.Second); !ok || !got.Equal(m.Start) {
		t.Errorf("one that never answered is quiet since %v, %v; want the start", got, ok)
	}
}

func TestShareIsOfTheAnswersAboutOrders(t *testing.T) {
	m := steady()
	for i := range m.Samples {
		switch {
		case i%2 == 0:
			m.Samples[i].Path = "/users/1"
			m.Samples[i].ServedBy = "user-a"
		case i%8 == 1:
			m.Samples[i].ServedBy = "order-b"
		}
	}
	if got := Share(m.Samples, m.Start, m.End, "order-b"); got < 0.24 || got > 0.26 {
		t.Errorf("order-b has a share of %v; want a quarter", got)
	}
	if got := Share(m.Samples, m.Ended.Add(time.Hour), m.Ended.Add(2*time.Hour), "order-b"); got != 0 {
		t.Errorf("a share of nothing is %v; want 0", got)
	}
}

func TestExecutionsAreOfTheRequestsOfOneKind(t *testing.T) {
	counts := map[string]int{"row-get-1": 1, "row-get-2": 3, "row-get-3": 2, "row-post-1": 7}
	if most, mean := Executions(counts, "row-get-"); most != 3 || mean != 2 {
		t.Errorf("%d at most and %v in the mean; want 3 and 2", most, mean)
	}
	if most, mean := Executions(counts, "other-"); most != 0 || mean != 0 {
		t.Errorf("%d at most and %v in the mean of none; want 0", most, mean)
	}
}

func TestAnsweredRequestThatNobodyExecutedIsUncounted(t *testing.T) {
	m, counts := steady(), map[string]int{}
	for i := range m.Samples {
		s := &m.Samples[i]
		s.ID = fmt.Sprintf("row-%d", i)
		counts[s.ID] = 1
	}
	uncounted := func() int { return Uncounted(m.Samples, counts, m.Start, m.End) }
	if n := uncounted(); n != 0 {
		t.Errorf("%d are uncounted; want none", n)
	}
	for _, i := range []int{5, 1100, 1101, 1102, 1103} { // the first is before the span
		delete(counts, m.Samples[i].ID)
	}
	fail(&m, 1100)
	m.Samples[1101].Path = traffic.UsersPath
	if n := uncounted(); n != 2 {
		t.Errorf("%d are uncounted; want the two about orders that did not fail", n)
	}
}

func TestTextNamesEveryBound(t *testing.T) {
	b := Bounds{Posts: Any, Notice: time.Second, Recover: 2 * time.Second, P99From: 3 * time.Second, Words: "as it should", Values: map[string]Range{"share": {0, 0.05}}, Alert: "RollcallPanicMode"}
	for _, want := range []string{"0 GETs, any POSTs failed", "noticed in 1s", "recovered in 2s", "p99 after 3s", "as it should", "share 0 to 0.05", "RollcallPanicMode fires"} {
		if !strings.Contains(b.Text(), want) {
			t.Errorf("%q does not say %q", b.Text(), want)
		}
	}
}
