package outlier_test

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// start is when the tests' time begins.
var start = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// life is an endpoint's record, and what was granted of what it asked for.
type life struct {
	balancer.Record
	t    *testing.T
	now  time.Time
	back time.Time // when the latest ejection ends
}

func newLife(t *testing.T, cfg outlier.Config) *life {
	t.Helper()
	judge, err := outlier.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &life{Record: judge.Record(), t: t, now: start}
}

var (
	well        = balancer.Outcome{Status: 200}
	notFound    = balancer.Outcome{Status: 404}
	downstream  = balancer.Outcome{Status: 503}
	shed        = balancer.Outcome{Status: 503, Load: true}
	calledOff   = balancer.Outcome{}
	broken      = balancer.Outcome{Status: 500, Failed: true}
	badGateway  = balancer.Outcome{Status: 502, Failed: true}
	unanswered  = balancer.Outcome{Failed: true}
	unreachable = balancer.Outcome{Failed: true, Unreachable: true}
	misdirected = balancer.Outcome{Status: 421, Failed: true, Unreachable: true}
)

// note takes an outcome a millisecond after the last one; an ejection is
// granted.
func (l *life) note(o balancer.Outcome) balancer.Verdict {
	l.now = l.now.Add(time.Millisecond)
	o.At = l.now
	v := l.Note(o)
	if v.Eject > 0 {
		l.back = l.now.Add(v.Eject)
		l.Ejected(balancer.Ejection{At: l.now, Until: l.back, Reason: v.Reason})
	}
	return v
}

// untilEjected notes failures until one ejects, and returns how many it took.
func (l *life) untilEjected(o balancer.Outcome) (int, balancer.Verdict) {
	l.t.Helper()
	for n := 1; n <= 20; n++ {
		if v := l.note(o); v.Eject > 0 {
			return n, v
		}
	}
	l.t.Fatalf("20 times %+v did not eject", o)
	return 0, balancer.Verdict{}
}

func TestEnoughFailuresInARowEject(t *testing.T) {
	for _, c := range []struct {
		name   string
		cfg    outlier.Config
		o      balancer.Outcome
		n      int
		reason string
	}{
		{"500", outlier.Config{}, broken, 5, outlier.Error},
		{"502", outlier.Config{}, badGateway, 3, outlier.Gateway},
		{"no answer", outlier.Config{}, unanswered, 3, outlier.Unanswered},
		{"no connection", outlier.Config{}, unreachable, 1, outlier.Unreachable},
		{"another service", outlier.Config{}, misdirected, 1, outlier.Unreachable},
		{"500, set to 2", outlier.Config{Consecutive: 2}, broken, 2, outlier.Error},
		{"502, set to 1", outlier.Config{ConsecutiveGateway: 1}, badGateway, 1, outlier.Gateway},
		{"502, like any other", outlier.Config{ConsecutiveGateway: -1}, badGateway, 5, outlier.Gateway},
		{"no connection, set to 2", outlier.Config{ConsecutiveUnreachable: 2}, unreachable, 2, outlier.Unreachable},
		{"no connection, like no answer", outlier.Config{ConsecutiveUnreachable: -1}, unreachable, 3, outlier.Unreachable},
	} {
		n, v := newLife(t, c.cfg).untilEjected(c.o)
		if n != c.n || v.Reason != c.reason || v.Eject != 2*time.Second {
			t.Errorf("%s: got %+v after %d; want 2s for %q after %d", c.name, v, n, c.reason, c.n)
		}
	}
}

func TestAnAnswerEndsARowOfFailures(t *testing.T) {
	for name, answer := range map[string]balancer.Outcome{"200": well, "404": notFound, "503 for another service": downstream} {
		l := newLife(t, outlier.Config{})
		for range 10 {
			for range 4 {
				if v := l.note(broken); v.Eject > 0 {
					t.Fatalf("%s: ejected after 4 failures in a row", name)
				}
			}
			l.note(answer)
		}
	}
}

func TestShedOrCalledOffRequestsSayNothing(t *testing.T) {
	for name, o := range map[string]balancer.Outcome{"shed": shed, "called off": calledOff} {
		l := newLife(t, outlier.Config{})
		for range 50 {
			if v := l.note(o); v != (balancer.Verdict{}) {
				t.Fatalf("%s: got %+v; want nothing", name, v)
			}
		}
		for range 4 {
			l.note(broken)
			l.note(o)
		}
		if v := l.note(broken); v.Eject == 0 {
			t.Errorf("%s: it ended a row of failures", name)
		}
	}
}

func TestFailuresOfDifferentKindsAddUp(t *testing.T) {
	l := newLife(t, outlier.Config{ConsecutiveUnreachable: -1})
	for _, o := range []balancer.Outcome{unanswered, unanswered, broken, unreachable} {
		if v := l.note(o); v.Eject > 0 {
			t.Fatal("ejected too soon")
		}
	}
	if v := l.note(badGateway); v.Eject == 0 {
		t.Error("5 failures of all kinds did not eject")
	}
}

func TestFirstFailureOnProbationEjectsForTwiceAsLong(t *testing.T) {
	l := newLife(t, outlier.Config{})
	l.untilEjected(broken)
	for _, want := range []time.Duration{4, 8, 16, 30, 30, 30} {
		l.now = l.back
		for range 4 {
			if v := l.note(well); v.Trusted {
				t.Fatal("trusted after 4 answers; want 5")
			}
		}
		if v := l.note(broken); v.Eject != want*time.Second {
			t.Errorf("got %v; want %v", v.Eject, want*time.Second)
		}
	}
}

func TestEnoughAnswersEndAProbation(t *testing.T) {
	l := newLife(t, outlier.Config{Probation: 3})
	l.untilEjected(broken)
	l.now = l.back
	for n, want := range []bool{false, false, true, false} {
		if v := l.note(well); v.Trusted != want {
			t.Errorf("answer %d: trusted %v; want %v", n+1, v.Trusted, want)
		}
	}
	if n, _ := l.untilEjected(broken); n != 5 {
		t.Errorf("ejected after %d failures; want 5, as before", n)
	}
}

func TestTimeInUseForgives(t *testing.T) {
	l := newLife(t, outlier.Config{})
	l.untilEjected(broken) // 2s
	l.now = l.back
	l.note(broken) // 4s
	l.now = l.back
	l.note(broken) // 8s
	l.now = l.back
	for range 5 {
		l.note(well)
	}
	l.now = l.now.Add(20 * time.Second) // two of three doublings
	if _, v := l.untilEjected(broken); v.Eject != 4*time.Second {
		t.Errorf("got %v; want 4s", v.Eject)
	}
	l.now = l.back
	for range 5 {
		l.note(well)
	}
	l.now = l.now.Add(time.Hour)
	if _, v := l.untilEjected(broken); v.Eject != 2*time.Second {
		t.Errorf("got %v; want 2s, as at first", v.Eject)
	}
}

func TestALongFailureIsForgivenInBoundedTime(t *testing.T) {
	l := newLife(t, outlier.Config{})
	l.untilEjected(broken)
	for range 1000 {
		l.now = l.back
		l.note(broken)
	}
	l.now = l.back
	for range 5 {
		l.note(well)
	}
	l.now = l.now.Add(50 * time.Second)
	if _, v := l.untilEjected(broken); v.Eject != 2*time.Second {
		t.Errorf("got %v; want 2s", v.Eject)
	}
}

func TestRequestsFromBeforeTheEjectionSayNothing(t *testing.T) {
	l := newLife(t, outlier.Config{Probation: 1})
	l.untilEjected(broken)
	for _, o := range []balancer.Outcome{unanswered, well, unanswered, unanswered, unanswered, unanswered, broken} {
		if v := l.note(o); v != (balancer.Verdict{}) {
			t.Errorf("%+v: got %+v; want nothing while it is out", o, v)
		}
	}
}

func TestEjectionThatWasRefusedIsAskedForAgain(t *testing.T) {
	l := newLife(t, outlier.Config{})
	for range 5 {
		l.now = l.now.Add(time.Millisecond)
		l.Note(balancer.Outcome{Failed: true, Status: 500, At: l.now})
	}
	if v := l.note(broken); v.Eject != 2*time.Second {
		t.Errorf("got %+v; want 2s again: the one before was not granted", v)
	}
}

func TestNobodyIsEjectedWhenItIsSwitchedOff(t *testing.T) {
	l := newLife(t, outlier.Config{Consecutive: -1})
	for range 50 {
		if v := l.note(unreachable); v.Eject > 0 {
			t.Fatal("ejected")
		}
	}
}
