package watch

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// retrySoon bounds how late a question comes after Retry, jitter included.
const retrySoon = 100 * time.Millisecond

func TestWatchThatSeesConsulAgainWakesEveryOtherThatBacksOff(t *testing.T) {
	const services = 8
	up := true
	var mu sync.Mutex
	recovered := map[string]time.Time{}
	trace := &Trace{Recovered: func(service string) {
		mu.Lock()
		defer mu.Unlock()
		recovered[service] = time.Now()
	}}
	follow(t, Config{Trace: trace}, func(c call) reply {
		switch {
		case !up:
			return reply{status: 500, body: "No cluster leader"}
		case c.kind == block:
			a := steady(c)
			a.hang, a.after = false, time.Second
			return a
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		for n := range services {
			if _, err := w.Latest(t.Context(), fmt.Sprint("s", n)); err != nil {
				t.Fatal(err)
			}
		}
		for round := range 5 {
			s.do(func() { up = false })
			settle(time.Minute) // every watch waits up to 10 s now
			mu.Lock()
			clear(recovered)
			mu.Unlock()
			s.do(func() { up = true })
			for found := 0; found == 0; {
				settle(time.Millisecond)
				mu.Lock()
				found = len(recovered)
				mu.Unlock()
			}
			settle(retrySoon)
			mu.Lock()
			if len(recovered) != services {
				t.Errorf("round %d: %d of %d watches found Consul within %s of the first; want all", round, len(recovered), services, retrySoon)
			}
			mu.Unlock()
			settle(time.Second)
		}
	})
}

func TestRetryAsksAtOnceForWhatFailedAndForNothingElse(t *testing.T) {
	up := false
	follow(t, Config{}, func(c call) reply {
		if c.service == "user" && !up {
			return reply{status: 500, body: "No cluster leader"}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("order", "user"); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		s.do(func() { up = true })
		asked := func(service string) (n int) {
			for _, c := range s.asked(fetch, confirm, block) {
				if c.service == service {
					n++
				}
			}
			return n
		}
		order := asked("order")
		w.Retry()
		settle(retrySoon)
		if len(w.Snapshots()) != 2 {
			t.Errorf("got %d sets %s after Retry; want user's too", len(w.Snapshots()), retrySoon)
		}
		if n := asked("order") - order; n != 0 {
			t.Errorf("asked %d times for a service in no trouble; want none", n)
		}
	})
}

func TestRetryCountsForAQuestionThatIsInFlight(t *testing.T) {
	slow := true
	follow(t, Config{}, func(c call) reply {
		if slow {
			return reply{status: 500, after: time.Second}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("order"); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		for before := len(s.asked(fetch)); len(s.asked(fetch)) == before; {
			settle(time.Millisecond)
		}
		// The question that has just begun will fail: it met a server that was not ready.
		s.do(func() { slow = false })
		w.Retry()
		settle(time.Second + retrySoon)
		if len(w.Snapshots()) != 1 {
			t.Errorf("got no set %s after the answer; want the question asked again", retrySoon)
		}
	})
}

func TestRetryWithoutEndCostsConsulABoundedNumberOfQuestions(t *testing.T) {
	follow(t, Config{}, func(call) reply { return reply{status: 500} }, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("order"); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		before := len(s.asked(fetch))
		for range 10_000 {
			w.Retry()
			settle(time.Millisecond)
		}
		if n := len(s.asked(fetch)) - before; n < 100 || n > 500 {
			t.Errorf("10,000 calls in 10 s cost %d questions; want a few tens a second", n)
		}
	})
}

// TestFirstQuestionThatHangsIsAskedAnewWhenConsulIsKnownToAnswer is a process that
// started while Consul was away: its question hangs at an address of before, and its
// registration is back.
func TestFirstQuestionThatHangsIsAskedAnewWhenConsulIsKnownToAnswer(t *testing.T) {
	hang := true
	follow(t, Config{}, func(c call) reply {
		if hang {
			return reply{hang: true}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("user"); err != nil {
			t.Fatal(err)
		}
		settle(time.Second) // asked, and swallowed
		s.do(func() { hang = false })
		w.Retry()
		began := time.Now()
		if _, err := w.Latest(t.Context(), "user"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the first answer came after %v; want a second at most", took)
		}
	})
}
