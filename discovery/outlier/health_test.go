package outlier_test

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// start is when the tests' time begins.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// life is an endpoint's health, whose ejections are all granted.
type life struct {
	outlier.Health
	t   *testing.T
	now time.Time
}

func newLife(t *testing.T, cfg outlier.Config) *life {
	t.Helper()
	rules, err := outlier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, rules, start)
}

func begin(t *testing.T, rules *outlier.Rules, now time.Time) *life {
	l := &life{t: t, now: now}
	l.Begin(rules, now)
	return l
}

// note takes the end of a safe request that began and ended a millisecond after
// the last one, and returns for how long that ejects: 0 means not at all.
func (l *life) note(code outcome.Code) time.Duration { return l.noteOf(outcome.Safe, code) }

func (l *life) noteOf(g outcome.Group, code outcome.Code) time.Duration {
	l.now = l.now.Add(time.Millisecond)
	return l.end(outcome.Result{Code: code, Group: g, Began: l.now, At: l.now})
}

// end takes a result as it is.
func (l *life) end(r outcome.Result) time.Duration {
	d := l.Note(r)
	if d > 0 {
		l.Eject(r, d)
	}
	return d
}

// untilEjected notes failures until one ejects, and returns how many it took.
func (l *life) untilEjected(code outcome.Code) (n int, d time.Duration) {
	l.t.Helper()
	for n = 1; n <= 20; n++ {
		if d = l.note(code); d > 0 {
			return n, d
		}
	}
	l.t.Fatalf("20 times %s did not eject", code)
	return 0, 0
}

// back lets the ejection's time pass.
func (l *life) back() { l.now = l.Ejection().Until }

func (l *life) wantState(when string, want outlier.State) {
	l.t.Helper()
	if got := l.State(l.now); got != want {
		l.t.Errorf("%s: got %v; want %v", when, got, want)
	}
}

func TestEnoughFailuresInARowEject(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  outlier.Config
		code outcome.Code
		n    int
	}{
		{"500", outlier.Config{}, outcome.Error, 5},
		{"body that breaks off", outlier.Config{}, outcome.BodyBroken, 5},
		{"502", outlier.Config{}, outcome.Gateway, 3},
		{"504", outlier.Config{}, outcome.GatewayTimeout, 3},
		{"no answer", outlier.Config{}, outcome.Broken, 3},
		{"silence", outlier.Config{}, outcome.Silent, 3},
		{"no connection", outlier.Config{}, outcome.Unreachable, 1},
		{"another service", outlier.Config{}, outcome.Misdirected, 1},
		{"500, set to 2", outlier.Config{Consecutive: 2}, outcome.Error, 2},
		{"502, set to 1", outlier.Config{ConsecutiveGateway: 1}, outcome.Gateway, 1},
		{"502, like any other", outlier.Config{ConsecutiveGateway: -1}, outcome.Gateway, 5},
		{"no connection, set to 2", outlier.Config{ConsecutiveUnreachable: 2}, outcome.Unreachable, 2},
		{"no connection, like no answer", outlier.Config{ConsecutiveUnreachable: -1}, outcome.Unreachable, 3},
	} {
		l := newLife(t, c.cfg)
		n, d := l.untilEjected(c.code)
		if x := l.Ejection(); n != c.n || d != 2*time.Second || x.Reason != c.code || x.At != l.now || x.Until != l.now.Add(d) {
			t.Errorf("%s: got %+v after %d; want 2s for %s after %d", c.name, x, n, c.code, c.n)
		}
		l.wantState(c.name, outlier.Ejected)
	}
}

func TestAnAnswerEndsARowOfFailures(t *testing.T) {
	for _, code := range []outcome.Code{outcome.Error, outcome.Broken} {
		l := newLife(t, outlier.Config{})
		for range 10 {
			for range 2 {
				if d := l.note(code); d > 0 {
					t.Fatalf("ejected after 2 times %s in a row", code)
				}
			}
			l.note(outcome.OK)
		}
	}
	l := newLife(t, outlier.Config{ConsecutiveUnreachable: 2})
	for range 10 {
		if d := l.note(outcome.Unreachable); d > 0 {
			t.Fatal("ejected after one dial that failed; want 2")
		}
		l.note(outcome.OK)
	}
}

func TestShedOrCalledOffRequestsSayNothing(t *testing.T) {
	for _, code := range append(outcome.Codes(), outcome.None) {
		switch code.Proves() {
		case outcome.Nothing, outcome.Load, outcome.Doubt:
		default:
			continue
		}
		l := newLife(t, outlier.Config{})
		for range 50 {
			if d := l.note(code); d != 0 {
				t.Fatalf("%s: ejects for %v; want not at all", code, d)
			}
		}
		for range 4 {
			l.note(outcome.Error)
			l.note(code)
		}
		if d := l.note(outcome.Error); d == 0 {
			t.Errorf("%s: it ended a row of failures", code)
		}
		l.back()
		for range 50 {
			l.note(code)
		}
		if l.now = l.now.Add(time.Minute); l.State(l.now) != outlier.OnTrial {
			t.Errorf("%s: got %v; want the trial neither won nor lost", code, l.State(l.now))
		}
	}
}

func TestFailuresOfDifferentKindsAddUp(t *testing.T) {
	l := newLife(t, outlier.Config{ConsecutiveUnreachable: -1})
	for _, code := range []outcome.Code{outcome.Broken, outcome.Silent, outcome.Error, outcome.Unreachable} {
		if d := l.note(code); d > 0 {
			t.Fatal("ejected too soon")
		}
	}
	if d := l.note(outcome.Gateway); d == 0 {
		t.Error("5 failures of all kinds did not eject")
	}
}

func TestFirstFailureOnTrialEjectsForTwiceAsLong(t *testing.T) {
	l := newLife(t, outlier.Config{})
	l.untilEjected(outcome.Error)
	for _, want := range []time.Duration{4, 8, 16, 30, 30, 30} {
		l.back()
		for range 4 {
			l.note(outcome.OK)
		}
		l.wantState("after 4 answers", outlier.OnTrial)
		if got := l.note(outcome.Error); got != want*time.Second {
			t.Errorf("got %v; want %v", got, want*time.Second)
		}
	}
}

func TestEnoughAnswersEndATrial(t *testing.T) {
	l := newLife(t, outlier.Config{Probation: 3})
	l.untilEjected(outcome.Error)
	l.back()
	for n, want := range []outlier.State{outlier.OnTrial, outlier.OnTrial, outlier.Healthy, outlier.Healthy} {
		l.note(outcome.OK)
		if got := l.State(l.now); got != want {
			t.Errorf("answer %d: got %v; want %v", n+1, got, want)
		}
	}
	if n, _ := l.untilEjected(outcome.Error); n != 5 {
		t.Errorf("ejected after %d failures; want 5, as before", n)
	}
}

func TestFailuresFromBeforeATrialAreNotCountedAgain(t *testing.T) {
	l := newLife(t, outlier.Config{})
	for range 4 {
		l.note(outcome.Error)
	}
	l.noteOf(outcome.Unsafe, outcome.Unreachable)
	l.back()
	for range 5 {
		l.noteOf(outcome.Unsafe, outcome.OK)
	}
	l.wantState("after the trial", outlier.Healthy)
	if n, _ := l.untilEjected(outcome.Error); n != 5 {
		t.Errorf("ejected after %d failures; want 5", n)
	}
}

func TestTimeInUseForgives(t *testing.T) {
	l := newLife(t, outlier.Config{})
	trusted := func() {
		l.back()
		for range 5 {
			l.note(outcome.OK)
		}
	}
	l.untilEjected(outcome.Error) // 2s
	l.back()
	l.note(outcome.Error) // 4s
	l.back()
	l.note(outcome.Error) // 8s
	trusted()
	l.now = l.now.Add(20 * time.Second) // two of three doublings
	if _, d := l.untilEjected(outcome.Error); d != 4*time.Second {
		t.Errorf("got %v; want 4s", d)
	}
	trusted()
	l.now = l.now.Add(time.Hour)
	if _, d := l.untilEjected(outcome.Error); d != 2*time.Second {
		t.Errorf("got %v; want 2s, as at first", d)
	}
}

func TestALongFailureIsForgivenInBoundedTime(t *testing.T) {
	l := newLife(t, outlier.Config{})
	l.untilEjected(outcome.Error)
	for range 1000 {
		l.back()
		l.note(outcome.Error)
	}
	l.back()
	for range 5 {
		l.note(outcome.OK)
	}
	l.now = l.now.Add(50 * time.Second)
	if _, d := l.untilEjected(outcome.Error); d != 2*time.Second {
		t.Errorf("got %v; want 2s", d)
	}
}

func TestEjectionThatWasRefusedIsAskedForAgain(t *testing.T) {
	l := newLife(t, outlier.Config{})
	for range 5 {
		l.now = l.now.Add(time.Millisecond)
		l.Note(outcome.Result{Code: outcome.Error, Began: l.now, At: l.now})
	}
	l.wantState("refused", outlier.Suspect)
	if x := l.Ejection(); x != (outlier.Ejection{}) {
		t.Errorf("got %+v; want the zero value: none was granted", x)
	}
	if d := l.note(outcome.Error); d != 2*time.Second {
		t.Errorf("got %v; want 2s again: the one before was not granted", d)
	}
}

func TestEndpointThatIsOutIsNotEjectedAgain(t *testing.T) {
	l := newLife(t, outlier.Config{})
	l.untilEjected(outcome.Error)
	first := l.Ejection()
	r := outcome.Result{Code: outcome.Error, Began: l.now, At: l.now.Add(time.Second)}
	if x, done := l.Eject(r, time.Minute); done || x != (outlier.Ejection{}) || l.Ejection() != first {
		t.Errorf("got %+v, %v, and %+v is the latest; want the first one to stand", x, done, l.Ejection())
	}
	if d := l.Note(r); d != 0 { // a request for which nobody else was left
		t.Errorf("got %v for a failure while it is out; want nothing", d)
	}
}

func TestNoneIsEjectedWhenItIsSwitchedOff(t *testing.T) {
	l := newLife(t, outlier.Config{Consecutive: -1})
	zero := begin(t, new(outlier.Rules), start)
	for range 50 {
		if l.note(outcome.Unreachable) > 0 || zero.note(outcome.Unreachable) > 0 {
			t.Fatal("ejected")
		}
	}
}

// The requests of a burst end when they end: some after the ejection that the
// first of them have caused, some after the trial has begun, some later still.
func TestRequestsFromBeforeTheEjectionSayNothing(t *testing.T) {
	l := newLife(t, outlier.Config{})
	sent := l.now
	old := func(code outcome.Code) {
		t.Helper()
		before := l.Ejection()
		l.now = l.now.Add(time.Millisecond)
		if d := l.end(outcome.Result{Code: code, Began: sent, At: l.now, Latency: l.now.Sub(sent)}); d != 0 || l.Ejection() != before {
			t.Errorf("%s of a request from before: ejects for %v; want nothing", code, d)
		}
	}
	all := []outcome.Code{outcome.Silent, outcome.Broken, outcome.OK, outcome.Unreachable, outcome.Error, outcome.Silent, outcome.Silent}
	l.untilEjected(outcome.Broken)
	for _, code := range all {
		old(code)
		l.wantState("while it is out", outlier.Ejected)
	}
	l.back()
	for range 6 {
		old(outcome.OK)
		l.wantState("answers to old requests", outlier.OnTrial)
	}
	for range 4 {
		l.note(outcome.OK)
		for _, code := range all {
			old(code)
			l.wantState("on trial", outlier.OnTrial)
		}
	}
	l.note(outcome.OK)
	l.wantState("after 5 answers to new requests", outlier.Healthy)
	for range 10 {
		old(outcome.Silent)
		old(outcome.Unreachable)
		l.wantState("after the trial", outlier.Healthy)
	}
}

// Seen: an instance that hung on what changes something, and answered reads,
// kept its share of both for good.
func TestAnswersToSafeRequestsDoNotEndTheRowOfSilentUnsafeOnes(t *testing.T) {
	l := newLife(t, outlier.Config{})
	for n, want := range []time.Duration{0, 0, 2 * time.Second} {
		for range 10 {
			l.note(outcome.OK)
		}
		if d := l.noteOf(outcome.Unsafe, outcome.Silent); d != want {
			t.Errorf("silent unsafe request %d: ejects for %v; want %v", n+1, d, want)
		}
	}
	l = newLife(t, outlier.Config{})
	for range 10 {
		l.noteOf(outcome.Unsafe, outcome.Silent)
		if d := l.noteOf(outcome.Unsafe, outcome.OK); d != 0 {
			t.Fatal("ejected though each other unsafe request was answered")
		}
	}
	for range 2 { // two of each group are no row of three
		if l.noteOf(outcome.Unsafe, outcome.Silent) > 0 || l.note(outcome.Silent) > 0 {
			t.Fatal("ejected for two failures of each group")
		}
	}
}

func TestTrustAfterATrialNeedsAnswersOfTheGroupThatFailed(t *testing.T) {
	const safe, unsafe = outcome.Safe, outcome.Unsafe
	for _, c := range []struct {
		failed  outcome.Group
		code    outcome.Code
		answers outcome.Group
		want    outlier.State
	}{
		{unsafe, outcome.Silent, safe, outlier.OnTrial},
		{unsafe, outcome.Silent, unsafe, outlier.Healthy},
		{unsafe, outcome.Error, safe, outlier.OnTrial},
		{safe, outcome.Error, unsafe, outlier.OnTrial},
		{safe, outcome.Error, safe, outlier.Healthy},
		// Where nothing was, an answer to whatever says that something is.
		{unsafe, outcome.Unreachable, safe, outlier.Healthy},
		{safe, outcome.Misdirected, unsafe, outlier.Healthy},
	} {
		l := newLife(t, outlier.Config{})
		for l.noteOf(c.failed, c.code) == 0 {
		}
		l.back()
		for n := range 5 {
			if l.State(l.now) != outlier.OnTrial {
				t.Fatalf("%+v: %v after %d answers; want the trial to last for 5", c, l.State(l.now), n)
			}
			l.noteOf(c.answers, outcome.OK)
		}
		if got := l.State(l.now); got != c.want {
			t.Errorf("%+v: got %v after 5 answers", c, got)
		}
	}
}

// Else a good group would hide that the other one still fails.
func TestAFailureOfEitherGroupLosesATrial(t *testing.T) {
	for _, g := range []outcome.Group{outcome.Safe, outcome.Unsafe} {
		l := newLife(t, outlier.Config{})
		for l.noteOf(outcome.Unsafe, outcome.Silent) == 0 {
		}
		l.back()
		if d := l.noteOf(g, outcome.Error); d != 4*time.Second {
			t.Errorf("group %d: ejects for %v; want 4s", g, d)
		}
	}
}

const (
	failureSuspicion = 50 * time.Millisecond
	loadSuspicion    = 20 * time.Millisecond
)

func (l *life) wantSuspectFor(name string, want time.Duration) {
	l.t.Helper()
	if at := l.now.Add(want - 1); l.State(at) != outlier.Suspect {
		l.t.Errorf("%s: %v just before %v are over; want suspect", name, l.State(at), want)
	}
	if at := l.now.Add(want); l.State(at) != outlier.Healthy {
		l.t.Errorf("%s: %v after %v; want healthy", name, l.State(at), want)
	}
}

func TestSuspicionDoublesOncePerSuspicion(t *testing.T) {
	for name, c := range map[string]struct {
		code  outcome.Code
		spans []time.Duration
	}{
		"failures":  {outcome.Error, []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 3200, 3200}},
		"doubt":     {outcome.Foreign, []time.Duration{50, 100, 200, 400, 800, 1600, 3200, 3200, 3200}},
		"shed ones": {outcome.Overload, []time.Duration{20, 40, 80, 160, 160, 160}},
		"429":       {outcome.Busy, []time.Duration{20, 40, 80, 160, 160, 160}},
	} {
		l := newLife(t, outlier.Config{Consecutive: -1})
		began := l.now
		for n, want := range c.spans {
			want *= time.Millisecond
			at := l.now
			for range 5 { // those that were sent before it began
				l.Note(outcome.Result{Code: c.code, Began: began, At: at})
				l.Note(outcome.Result{Code: c.code, Began: began, At: at.Add(want - 1)})
			}
			l.wantSuspectFor(name, want)
			if began, l.now = at, at.Add(want); n == 0 {
				// Of a request that was sent before the first one failed.
				l.Note(outcome.Result{Code: c.code, Began: start.Add(-1), At: l.now})
				l.wantState(name+", of a request from before it", outlier.Healthy)
			}
		}
	}
}

func TestAnAnswerEndsASuspicion(t *testing.T) {
	l := newLife(t, outlier.Config{})
	for range 3 {
		l.note(outcome.Error)
		l.now = l.now.Add(time.Second)
	}
	l.note(outcome.Error)
	l.wantState("after a failure", outlier.Suspect)
	l.note(outcome.OK)
	l.wantState("after an answer", outlier.Healthy)
	l.note(outcome.Error)
	l.wantSuspectFor("the first failure after an answer", failureSuspicion)
	l.note(outcome.OK)
	l.note(outcome.Overload)
	l.wantSuspectFor("a shed request", loadSuspicion)
}
