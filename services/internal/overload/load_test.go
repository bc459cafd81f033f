package overload_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/services/internal/overload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is what became of one request.
type answer struct {
	at, took time.Duration // at: since the load began
	status   int
}

// load is an open loop: requests come at their times, whatever became of those
// before. It is to be run in a bubble.
type load struct {
	handler   http.Handler
	perSecond float64
	lasts     time.Duration
	method    string // empty: GET
	seed      uint64
}

// run returns when every request is answered.
func (l load) run() answers {
	if l.method == "" {
		l.method = http.MethodGet
	}
	// As from many independent clients: the gaps are exponential.
	random := rand.New(rand.NewPCG(l.seed, 1))
	var (
		all     sync.WaitGroup
		mu      sync.Mutex
		answers answers
	)
	began := time.Now()
	for {
		time.Sleep(time.Duration(random.ExpFloat64() / l.perSecond * float64(time.Second)))
		at := time.Since(began)
		if at >= l.lasts {
			break
		}
		all.Go(func() {
			w := httptest.NewRecorder()
			l.handler.ServeHTTP(w, httptest.NewRequest(l.method, "/orders/1", nil))
			a := answer{at: at, took: time.Since(began) - at, status: w.Code}
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, a)
		})
	}
	all.Wait()
	return answers
}

type answers []answer

func (a answers) only(keep func(answer) bool) answers {
	return slices.DeleteFunc(slices.Clone(a), func(x answer) bool { return !keep(x) })
}

func (a answers) served() answers { return a.only(func(x answer) bool { return x.status == 200 }) }
func (a answers) shed() int       { return len(a) - len(a.served()) }

// p99 is that of the time that the answers took.
func (a answers) p99() time.Duration {
	if len(a) == 0 {
		return 0
	}
	took := make([]time.Duration, 0, len(a))
	for _, x := range a {
		took = append(took, x.took)
	}
	slices.Sort(took)
	return took[len(took)*99/100]
}

func (a answers) String() string {
	return fmt.Sprintf("%d asked, %d shed, p99 of the served %v", len(a), a.shed(), a.served().p99())
}

// slots is a handler that works on so many requests at once, for a time each;
// the others queue.
func slots(n int, hold time.Duration) http.Handler {
	free := make(chan struct{}, n)
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		free <- struct{}{}
		time.Sleep(hold)
		<-free
	})
}

// slow is a handler that takes its time, and works on any number at once.
func slow(takes func() time.Duration) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(takes()) })
}

func limited(t *testing.T, cfg overload.Config, h http.Handler) (*overload.Limiter, http.Handler) {
	t.Helper()
	l, err := overload.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l, l.Handler(h)
}
