package traffic

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestCapacityIsWhatEightClientsGetInASecond(t *testing.T) {
	const work = 20 * time.Millisecond
	var most, now atomic.Int64
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != OrdersPath {
			t.Errorf("asked for %s; want %s", r.URL.Path, OrdersPath)
		}
		for n := now.Add(1); ; {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(work)
		now.Add(-1)
	}))
	defer gateway.Close()
	got, err := Capacity(t.Context(), gateway.URL, 900*time.Millisecond)
	bound := together / work.Seconds() // which a busy machine does not reach
	if err != nil || got <= 0 || got > bound*1.1 || most.Load() != together {
		t.Errorf("%v a second, %v, %d at once at most; want at most %v, and %d at once", got, err, most.Load(), bound, together)
	}
}

func TestCapacityOfWhatDoesNotAnswerIsAnError(t *testing.T) {
	var code atomic.Int64
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(time.Millisecond)
		w.WriteHeader(int(code.Load()))
	}))
	defer gateway.Close()
	code.Store(503)
	if got, err := Capacity(t.Context(), gateway.URL, 300*time.Millisecond); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("%v, %v of a gateway that refuses everything; want an error", got, err)
	}
	code.Store(200)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Capacity(ctx, gateway.URL, 300*time.Millisecond); err == nil {
		t.Errorf("%v of one that was not asked; want an error", got)
	}
}
