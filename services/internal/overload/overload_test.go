package overload_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

const (
	held     = 20 * time.Millisecond
	capacity = 200 // 4 slots × 20ms
	overloop = 30 * time.Second
)

func TestServerAtThriceItsCapacityServesAsMuchAsItCanAndSoon(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit bool
	}{
		{"with the limit", true},
		{"without it, to show that this test can fail", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, seed := range []uint64{1, 2, 3} {
				synctest.Test(t, func(t *testing.T) {
					h := slots(4, held)
					if tc.limit {
						_, h = limited(t, overload.Config{}, h)
					}
					light := load{handler: h, perSecond: capacity / 4, lasts: overloop, seed: seed}.run()
					if light.shed() > 0 {
						t.Errorf("at a quarter of the capacity: %v; want none shed", light)
					}
					heavy := load{handler: h, perSecond: 3 * capacity, lasts: overloop, seed: seed}.run()
					// What is answered after the load has ended is too late.
					inTime := heavy.served().only(func(a answer) bool { return a.at+a.took <= overloop })
					share := float64(len(inTime)) / (capacity * overloop.Seconds())
					holds := share >= .8 && heavy.served().p99() < 3*light.p99()
					told := fmt.Sprintf("light: %v; thrice the capacity: %v, goodput %.1f%%", light, heavy, 100*share)
					if holds != tc.limit {
						t.Errorf("%s; want 80%% and a p99 under thrice that of a light load: %v", told, tc.limit)
					}
					t.Log(told)
				})
			}
		})
	}
}

func TestWhatIsShedIsToldAtOnceHoweverLongTheOthersTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h := limited(t, overload.Config{}, slots(4, held))
		shed := load{handler: h, perSecond: 3 * capacity, lasts: overloop}.run().only(func(a answer) bool { return a.status != http.StatusOK })
		if len(shed) == 0 {
			t.Fatal("nothing was shed; this test has nothing to say")
		}
		for _, a := range shed {
			if a.status != http.StatusServiceUnavailable || a.took > 0 {
				t.Fatalf("one was answered %d after %v; want 503 at once", a.status, a.took)
			}
		}
	})
}

func TestLimitHoldsForAsLongAsTheOverloadLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, h := limited(t, overload.Config{}, slots(4, held))
		served := load{handler: h, perSecond: 3 * capacity, lasts: 3 * time.Minute}.run().served()
		last := served.only(func(a answer) bool { return a.at > 2*time.Minute })
		if len(last) < 60*capacity*9/10 || last.p99() >= 3*held {
			t.Errorf("in the third minute %v; want %d served with p99 below %v", last, 60*capacity, 3*held)
		}
		if limit, _ := l.Now(overload.Read); limit > 12 {
			t.Errorf("the limit has drifted to %d; want it near the 4 slots", limit)
		}
	})
}

func TestNothingIsShedOnceTheOverloadIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, h := limited(t, overload.Config{}, slots(4, held))
		load{handler: h, perSecond: 3 * capacity, lasts: 10 * time.Second}.run()
		after := load{handler: h, perSecond: capacity / 4, lasts: 10 * time.Second}.run()
		late := after.only(func(a answer) bool { return a.at > 2*time.Second })
		if late.shed() > 0 {
			t.Errorf("from 2s after the end: %v; want none shed", late)
		}
		if limit, _ := l.Now(overload.Read); limit != 48 {
			t.Errorf("the limit is %d; want 48 again", limit)
		}
	})
}

func TestWorkThatBecomesSlowerInTheOverloadIsMeasuredAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		hold := held
		free := make(chan struct{}, 4)
		h := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			free <- struct{}{}
			mu.Lock()
			d := hold
			mu.Unlock()
			time.Sleep(d)
			<-free
		})
		_, h2 := limited(t, overload.Config{}, h)
		load{handler: h2, perSecond: 3 * capacity, lasts: 10 * time.Second}.run()
		mu.Lock()
		hold = 4 * held
		mu.Unlock()
		served := load{handler: h2, perSecond: 3 * capacity, lasts: time.Minute}.run().served()
		late := served.only(func(a answer) bool { return a.at > 30*time.Second })
		if len(late) < 30*capacity/4*8/10 || late.p99() >= 3*4*held {
			t.Errorf("%v; want %d served in 30s, with p99 below %v", late, 30*capacity/4, 3*4*held)
		}
	})
}

func TestOrdinaryLoadIsNeverShed(t *testing.T) {
	uniform := func(low, high time.Duration) func() time.Duration {
		return func() time.Duration { return low + rand.N(high-low) }
	}
	for name, tc := range map[string]struct {
		reads, writes http.Handler
	}{
		"a fast store":                         {slow(uniform(time.Millisecond, 3*time.Millisecond)), slow(uniform(2*time.Millisecond, 20*time.Millisecond))},
		"a store that takes 1 to 300ms":        {slow(uniform(time.Millisecond, 300*time.Millisecond)), slow(uniform(time.Millisecond, 300*time.Millisecond))},
		"writes that wait 2s for a lock":       {slow(uniform(time.Millisecond, 3*time.Millisecond)), slow(func() time.Duration { return 2 * time.Second })},
		"half a second's stop every 5s":        {stops(5*time.Second, 500*time.Millisecond), stops(5*time.Second, 500*time.Millisecond)},
		"a store that comes to be 100x slower": {steps(3*time.Millisecond, 300*time.Millisecond), steps(5*time.Millisecond, 300*time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodGet {
						tc.reads.ServeHTTP(w, r)
					} else {
						tc.writes.ServeHTTP(w, r)
					}
				})
				_, h2 := limited(t, overload.Config{}, h)
				var both sync.WaitGroup
				// Of three instances at 200 and 20 a second, one is down.
				both.Go(func() {
					if got := (load{handler: h2, perSecond: 70, lasts: 5 * time.Minute}).run(); got.shed() > 0 {
						t.Errorf("reads: %v; want none shed", got)
					}
				})
				both.Go(func() {
					if got := (load{handler: h2, perSecond: 7, lasts: 5 * time.Minute, method: http.MethodPost}).run(); got.shed() > 0 {
						t.Errorf("writes: %v; want none shed", got)
					}
				})
				both.Wait()
			})
		})
	}
}

// stops is a handler that stands still for a while from time to time, as for
// garbage or a paused container.
func stops(every, lasts time.Duration) http.Handler {
	var began time.Time
	var once sync.Once
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { began = time.Now() })
		if into := time.Since(began) % every; into > every-lasts {
			time.Sleep(every - into)
		}
		time.Sleep(2 * time.Millisecond)
	})
}

// steps is a handler that takes one time at first and from the second minute on
// another one.
func steps(first, then time.Duration) http.Handler {
	var began time.Time
	var once sync.Once
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { began = time.Now() })
		if time.Since(began) < time.Minute {
			time.Sleep(first)
		} else {
			time.Sleep(then)
		}
	})
}

func TestSlowStoreUnderMoreThanStartIsServedAfterAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The last instance left: 60 requests are at work at once, and would be
		// at any limit.
		_, h := limited(t, overload.Config{}, steps(3*time.Millisecond, 300*time.Millisecond))
		got := load{handler: h, perSecond: 200, lasts: 3 * time.Minute}.run()
		late := got.only(func(a answer) bool { return a.at > time.Minute+5*time.Second })
		if late.shed() > 0 {
			t.Errorf("from 5s after the store became slow: %v; want none shed", late)
		}
		moment := got.only(func(a answer) bool { return a.at > time.Minute && a.at < time.Minute+5*time.Second })
		t.Logf("in the first 5s: %v", moment)
	})
}

func TestWritesThatHangDoNotKeepOutReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				time.Sleep(10 * time.Second)
			}
			time.Sleep(time.Millisecond)
		})
		_, h2 := limited(t, overload.Config{}, h)
		var both sync.WaitGroup
		both.Go(func() {
			writes := load{handler: h2, perSecond: 20, lasts: time.Minute, method: http.MethodPost}.run()
			if writes.shed() == 0 {
				t.Error("no write was shed; this test has nothing to say")
			}
		})
		both.Go(func() {
			if reads := (load{handler: h2, perSecond: 200, lasts: time.Minute}).run(); reads.shed() > 0 {
				t.Errorf("reads: %v; want none shed", reads)
			}
		})
		both.Wait()
	})
}

func TestMeasurementThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		hanging := 48
		_, h := limited(t, overload.Config{}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			hangs := hanging > 0
			hanging--
			mu.Unlock()
			if hangs {
				time.Sleep(time.Minute)
			}
			time.Sleep(time.Millisecond)
		}))
		got := load{handler: h, perSecond: 50, lasts: 50 * time.Second}.run()
		// The first second takes the 48; then nobody is let in for 5s.
		late := got.only(func(a answer) bool { return a.at > 8*time.Second })
		if late.shed() > 0 {
			t.Errorf("while 48 hang: %v; want the others served", late)
		}
	})
}

func TestStallWhileTheLeastLatencyIsMeasuredDoesNotLetInMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			l        *overload.Limiter
			mu       sync.Mutex
			stalling int // how many more requests this measurement stalls
		)
		work := slots(4, held)
		l, h := limited(t, overload.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			limit, atWork := l.Now(overload.Read)
			mu.Lock()
			measured := limit == 3 && atWork <= 3
			if !measured {
				stalling = 3
			}
			stall := measured && stalling > 0
			if stall {
				stalling--
			}
			mu.Unlock()
			if stall {
				time.Sleep(2 * held)
			}
			work.ServeHTTP(w, r)
		}))
		served := load{handler: h, perSecond: 3 * capacity, lasts: overloop}.run().served()
		late := served.only(func(a answer) bool { return a.at > 2*time.Second })
		limit, _ := l.Now(overload.Read)
		if len(late) < 28*capacity*9/10 || late.p99() >= 3*held {
			t.Errorf("%v, the limit at the end %d; want %d served with p99 below %v", late, limit, 28*capacity*9/10, 3*held)
		}
	})
}
