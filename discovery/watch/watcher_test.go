package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// steady answers that there is one instance, and that nothing changes.
func steady(c call) reply {
	return reply{index: "7", leader: true, hang: c.kind == block, body: strings.ReplaceAll(body(entry("a")), `"order"`, fmt.Sprintf("%q", c.service))}
}

func TestManyReadersShareOneQuery(t *testing.T) {
	follow(t, Config{}, func(c call) reply {
		a := steady(c)
		a.after = time.Second
		return a
	}, func(t *testing.T, w *Watcher, s *script) {
		var readers sync.WaitGroup
		for range 100 {
			readers.Go(func() {
				if snapshot, err := w.Latest(t.Context(), "order"); err != nil || snapshot.Len() != 1 {
					t.Errorf("got %v and %v; want one instance", snapshot, err)
				}
			})
		}
		readers.Wait()
		settle(time.Second)
		if n := len(s.asked(fetch, confirm, block)); n != 2 {
			t.Errorf("got %d questions for 100 readers; want a fetch and a block", n)
		}
	})
}

func TestServiceThatIsNotInUseIsForgottenAndBeginsAnew(t *testing.T) {
	var forgot []string
	trace := &Trace{Forgot: func(service string) { forgot = append(forgot, service) }}
	follow(t, Config{Trace: trace}, steady, func(t *testing.T, w *Watcher, s *script) {
		if err := w.Pin("user"); err != nil {
			t.Fatal(err)
		}
		for range 30 { // in use: stays
			w.KeepAlive("order")
			wantLatest(t, w, "a:passing")
			settle(time.Minute)
		}
		w.KeepAlive("order")
		old, _ := w.Latest(t.Context(), "order")
		settle(10*time.Minute - 5*time.Second)
		if got := w.Following(); !slices.Equal(got, []string{"order", "user"}) {
			t.Fatalf("following %q; want order and user", got)
		}
		// A page that reads does not count as use.
		w.Snapshots()
		wantLatest(t, w, "a:passing")
		settle(5*time.Second + time.Millisecond)
		if got := w.Following(); !slices.Equal(got, []string{"user"}) {
			t.Errorf("following %q; want only what is pinned", got)
		}
		if !slices.Equal(forgot, []string{"order"}) {
			t.Errorf("told of %q; want order", forgot)
		}
		select {
		case <-old.Superseded():
		default:
			t.Error("who holds the old snapshot was not told")
		}
		before := len(s.asked(fetch))
		wantLatest(t, w, "a:passing")
		if n := len(s.asked(fetch)) - before; n != 1 {
			t.Errorf("asked %d times anew; want once", n)
		}
	})
}

func TestReaderWhoWaitsWhileTheServiceIsForgottenWaitsOn(t *testing.T) {
	follow(t, Config{IdleFor: time.Minute}, func(c call) reply {
		a := steady(c)
		a.after = 9 * time.Second
		if c.at.Minute() < 2 {
			a = reply{status: 500}
		}
		return a
	}, func(t *testing.T, w *Watcher, _ *script) {
		s, err := w.Latest(t.Context(), "order")
		if err != nil || s.Len() != 1 {
			t.Errorf("got %v and %v; want the answer", s, err)
		}
	})
}

func TestOneServiceTooManyIsAnError(t *testing.T) {
	follow(t, Config{MaxServices: 3, IdleFor: time.Minute}, steady, func(t *testing.T, w *Watcher, _ *script) {
		if err := w.Pin("a", "b", "c"); err != nil {
			t.Fatal(err)
		}
		_, err := w.Latest(t.Context(), "d")
		if !errors.Is(err, catalog.ErrTooManyServices) || !strings.Contains(err.Error(), "follow d:") {
			t.Errorf("Latest: got %v; want %v", err, catalog.ErrTooManyServices)
		}
		if err := w.Pin("a", "d"); !errors.Is(err, catalog.ErrTooManyServices) {
			t.Errorf("Pin: got %v; want %v", err, catalog.ErrTooManyServices)
		}
		if _, err := w.Latest(t.Context(), "a"); err != nil {
			t.Errorf("one that is followed: got %v; want no error", err)
		}
	})
}

// nobody answers that there is no instance, unless the service is real.
func nobody(c call) reply {
	if strings.HasPrefix(c.service, "real") {
		return steady(c)
	}
	return reply{index: "7", leader: true, hang: c.kind == block}
}

func TestNamesThatNobodyOffersAreTheFirstToGoWhenTheLimitOfNamesIsReached(t *testing.T) {
	var mu sync.Mutex
	var forgot []string
	trace := &Trace{Forgot: func(service string) {
		mu.Lock()
		defer mu.Unlock()
		forgot = append(forgot, service)
	}}
	follow(t, Config{MaxServices: 5, Trace: trace}, nobody, func(t *testing.T, w *Watcher, _ *script) {
		if err := w.Pin("pinned"); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"real-1", "void-1", "void-2", "void-3"} {
			if _, err := w.Latest(t.Context(), name); err != nil {
				t.Fatal(err)
			}
			settle(2 * time.Second)
		}
		void, err := w.Latest(t.Context(), "void-1")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"real-2", "real-3", "real-4"} {
			if s, err := w.Latest(t.Context(), name); err != nil || s.Len() != 1 {
				t.Errorf("%s: got %v and %v; want its instance", name, s, err)
			}
		}
		settle(0)
		if got, want := w.Following(), []string{"pinned", "real-1", "real-2", "real-3", "real-4"}; !slices.Equal(got, want) {
			t.Errorf("following %q; want %q", got, want)
		}
		if slices.Sort(forgot); !slices.Equal(forgot, []string{"void-1", "void-2", "void-3"}) {
			t.Errorf("told of %q; want the three without an instance", forgot)
		}
		if void.Newest() != nil {
			t.Error("the reader of a name that made room was not told")
		}
		// What is offered or pinned stays.
		if _, err := w.Latest(t.Context(), "real-5"); !errors.Is(err, catalog.ErrTooManyServices) {
			t.Errorf("got %v; want %v", err, catalog.ErrTooManyServices)
		}
	})
}

func TestFloodOfNamesThatNobodyOffersCostsConsulABoundedNumberOfQuestions(t *testing.T) {
	follow(t, Config{MaxServices: 100}, nobody, func(t *testing.T, w *Watcher, s *script) {
		for n := range 6000 {
			_, _ = w.Latest(t.Context(), fmt.Sprint("void-", n))
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(s.asked(fetch)); n < 600 || n > 100+600+2*roomBurst {
			t.Errorf("%d names cost %d first questions in a minute; want 10 a second", 6000, n)
		}
		if n := len(w.Following()); n != 100 {
			t.Errorf("following %d; want 100", n)
		}
	})
}

func TestForgottenServiceMakesRoomForAnother(t *testing.T) {
	follow(t, Config{MaxServices: 1, IdleFor: time.Minute}, steady, func(t *testing.T, w *Watcher, _ *script) {
		wantLatest(t, w, "a:passing")
		settle(2 * time.Minute)
		if _, err := w.Latest(t.Context(), "user"); err != nil {
			t.Errorf("got %v; want no error", err)
		}
	})
}

func TestNameThatCanNotBeAServiceCostsNothing(t *testing.T) {
	follow(t, Config{}, steady, func(t *testing.T, w *Watcher, s *script) {
		for _, name := range []string{"", ".", "..", "a/b", "../kv/secret", "a b", "a?dc=x", "ä", "-a", "a\x00", strings.Repeat("a", 129)} {
			if _, err := w.Latest(t.Context(), name); err == nil {
				t.Errorf("Latest(%q): got no error", name)
			}
			if err := w.Pin(name); err == nil {
				t.Errorf("Pin(%q): got no error", name)
			}
		}
		for _, name := range []string{"a", "Order-2", "a_b.c", "9", strings.Repeat("a", 128)} {
			if _, err := w.Latest(t.Context(), name); err != nil {
				t.Errorf("Latest(%q): got %v; want no error", name, err)
			}
		}
		if n := len(w.Following()); n != 5 || len(s.asked(fetch)) != 5 {
			t.Errorf("following %d, asked for %d; want 5", n, len(s.asked(fetch)))
		}
	})
}

func TestFirstWatchThatFailsDoesNotSpoilALaterOne(t *testing.T) {
	up := false
	follow(t, Config{}, func(c call) reply {
		if !up {
			return reply{status: 500, body: "No cluster leader"}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Latest(ctx, "order"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "No cluster leader") {
			t.Fatalf("got %v; want the deadline and the reason", err)
		}
		s.do(func() { up = true })
		wantLatest(t, w, "a:passing")
	})
}

func TestSnapshotWinsOverAContextThatHasEnded(t *testing.T) {
	follow(t, Config{}, steady, func(t *testing.T, w *Watcher, _ *script) {
		wantLatest(t, w, "a:passing")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Latest(ctx, "order"); err != nil {
			t.Errorf("got %v; want the snapshot", err)
		}
	})
}

func TestCloseEndsQueriesAndReadersAndMayBeCalledTwice(t *testing.T) {
	var failed atomic.Int64
	follow(t, Config{AuditEvery: time.Second, Trace: &Trace{Failed: func(string, error) { failed.Add(1) }}}, func(c call) reply {
		if c.service == "slow" || c.kind == audit {
			return reply{hang: true}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		held, _ := w.Latest(t.Context(), "order")
		waiting := make(chan error, 1)
		go func() {
			_, err := w.Latest(t.Context(), "slow")
			waiting <- err
		}()
		settle(2 * time.Second)
		for range 2 {
			if err := w.Close(); err != nil {
				t.Errorf("Close: got %v", err)
			}
			s.do(func() {
				if s.flying != 0 {
					t.Errorf("Close returned with %d queries in flight; want none", s.flying)
				}
			})
		}
		if err := <-waiting; !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("who waits: got %v; want %v", err, catalog.ErrClosed)
		}
		for _, service := range []string{"order", "new"} {
			if _, err := w.Latest(t.Context(), service); !errors.Is(err, catalog.ErrClosed) {
				t.Errorf("Latest(%s) afterwards: got %v; want %v", service, err, catalog.ErrClosed)
			}
		}
		if err := w.Pin("order"); !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("Pin afterwards: got %v; want %v", err, catalog.ErrClosed)
		}
		<-held.Superseded()
		if n := len(w.Snapshots()) + len(w.Following()); n != 0 {
			t.Errorf("%d services are still followed", n)
		}
		if n := failed.Load(); n != 0 {
			t.Errorf("told of %d failures; closing is none", n)
		}
		// The bubble fails if a goroutine is left.
	})
}

func TestStaleSetIsWithheldAndItsReadersAreTold(t *testing.T) {
	up := true
	follow(t, Config{StaleFor: 20 * time.Second}, func(c call) reply {
		if !up {
			return reply{status: 500}
		}
		return steady(c)
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(5 * time.Minute)
		held, err := w.Latest(t.Context(), "order")
		if err != nil {
			t.Fatalf("proven by audits, but got %v", err)
		}
		s.do(func() { up = false })
		last, _ := held.Freshness()
		<-held.Superseded()
		if after := time.Since(last); after < 20*time.Second || after > 30*time.Second {
			t.Errorf("told %s after the last proof; want 20s", after)
		}
		if _, err := w.Latest(t.Context(), "order"); !errors.Is(err, ErrStale) || !strings.Contains(err.Error(), "500") {
			t.Errorf("got %v; want %v and the last trouble", err, ErrStale)
		}
		s.do(func() { up = true })
		settle(20 * time.Second)
		wantLatest(t, w, "a:passing")
		// And once more.
		held, _ = w.Latest(t.Context(), "order")
		s.do(func() { up = false })
		<-held.Superseded()
		if _, err := w.Latest(t.Context(), "order"); !errors.Is(err, ErrStale) {
			t.Errorf("the second time: got %v; want %v", err, ErrStale)
		}
	})
}

func TestOutageIsLoggedOnceWhenItBeginsAndOnceWhenItEnds(t *testing.T) {
	var lines strings.Builder
	up := true
	log := slog.New(slog.NewTextHandler(&lines, nil))
	follow(t, Config{Log: log}, func(c call) reply {
		if !up {
			return reply{status: 500}
		}
		a := steady(c)
		if a.hang {
			a.hang, a.after, a.streamed = false, time.Second, true
		}
		return a
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(time.Minute)
		s.do(func() { up = false })
		settle(5 * time.Minute)
		s.do(func() { up = true })
		settle(time.Minute)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(lines.String(), "\n"); got != 2 || strings.Count(lines.String(), "service lost") != 1 || strings.Count(lines.String(), "service found again") != 1 {
			t.Errorf("got %d lines; want one about the loss and one about its end:\n%s", got, lines.String())
		}
	})
}

func TestWrongSettingIsAnErrorThatNamesTheField(t *testing.T) {
	client := (&script{}).client(t)
	for want, cfg := range map[string]Config{
		"watch: Client is nil":                                     {},
		"watch: Wait is 31s; want 0 to 30s":                        {Client: client, Wait: 31 * time.Second},
		"watch: AuditEvery is -1s; want 0 or more":                 {Client: client, AuditEvery: -time.Second},
		"watch: StaleFor is -1s; want 0 or more":                   {Client: client, StaleFor: -time.Second},
		"watch: IdleFor is -1s; want 0 or more":                    {Client: client, IdleFor: -time.Second},
		"watch: MaxServices is -1; want 0 or more":                 {Client: client, MaxServices: -1},
		`watch: PreferAddresses is [""]; want names such as "wan"`: {Client: client, PreferAddresses: []string{""}},
		"watch: MaxQueries is 184; want 0 to 183":                  {Client: client, MaxQueries: 184},
		"watch: MaxQueries is -1; want 0 to 183":                   {Client: client, MaxQueries: -1},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
}

func TestEachQuestionAndEachAnswerThatWasBelievedIsTold(t *testing.T) {
	var mu sync.Mutex
	told := map[string]int{}
	count := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		told[what]++
	}
	trace := &Trace{
		Asked:    count,
		Answered: func(service string, changed bool) { count(fmt.Sprint(service, " ", changed)) },
	}
	at, state := 7, api.HealthPassing
	follow(t, Config{Trace: trace, AuditEvery: time.Hour}, func(c call) reply {
		if c.kind == block {
			return reply{index: index(at), leader: true, body: body(entry("a", check(state, ""))), after: time.Second}
		}
		return reply{index: index(at), leader: true, body: body(entry("a", check(state, "")))}
	}, func(t *testing.T, w *Watcher, s *script) {
		wantLatest(t, w, "a:passing")
		settle(90 * time.Second)
		s.do(func() { at, state = 8, api.HealthCritical })
		settle(10 * time.Second)
		wantLatest(t, w, "a:critical")
		mu.Lock()
		defer mu.Unlock()
		if told["order true"] != 2 {
			t.Errorf("told of %d answers with a new set; want the first and the one with the change", told["order true"])
		}
		if told["order false"] < 5 {
			t.Errorf("told of %d answers with the same set; want one for each time that the question was held in vain", told["order false"])
		}
		for op, kind := range map[string]kind{"fetch": fetch, "block": block} {
			if n := len(s.asked(kind)); told[op] != n || n == 0 {
				t.Errorf("told of %d questions %s; want the %d that there were", told[op], op, n)
			}
		}
	})
}
