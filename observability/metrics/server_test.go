package metrics_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

// sum returns how many requests were observed, and their seconds.
func sum(t *testing.T, m order, route, code string) (n, seconds float64) {
	t.Helper()
	labels := fmt.Sprintf(`{code=%q,method="GET",route=%q,service="order"}`, code, route)
	return value(t, m, "http_server_request_duration_seconds_count"+labels), value(t, m, "http_server_request_duration_seconds_sum"+labels)
}

func ask(t *testing.T, h http.Handler, w http.ResponseWriter) {
	t.Helper()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x", nil))
}

func TestStreamIsObservedByTheTimeUntilItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newOrder(t)
		mux := http.NewServeMux()
		mux.HandleFunc("GET /x", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, "data: 1\n\n")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		})
		ask(t, m.Server().Handler(mux), httptest.NewRecorder())
		if n, seconds := sum(t, m, "GET /x", "200"); n != 1 || seconds != 1 {
			t.Errorf("%v requests of %v s; want one of the second until it began", n, seconds)
		}
	})
}

// hijackable is a ResponseWriter whose connection can be taken over.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

func TestConnectionThatIsTakenOverIsObservedByTheTimeUntilThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newOrder(t)
		ask(t, m.Server().Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Second)
			if _, _, err := w.(http.Hijacker).Hijack(); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		})), hijackable{httptest.NewRecorder()})
		if n, seconds := sum(t, m, metrics.Unmatched, "101"); n != 1 || seconds != 1 {
			t.Errorf("%v connections of %v s; want one of the second until it was taken over", n, seconds)
		}
	})
}

func TestAnswerInOnePieceIsObservedToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newOrder(t)
		ask(t, m.Server().Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusCreated)
			time.Sleep(time.Second)
			_, _ = io.WriteString(w, "done")
		})), httptest.NewRecorder())
		if n, seconds := sum(t, m, metrics.Unmatched, "201"); n != 1 || seconds != 1 {
			t.Errorf("%v requests of %v s; want one of a second", n, seconds)
		}
	})
}

func TestPanicIsCountedAndGoesOn(t *testing.T) {
	m := newOrder(t)
	for _, cause := range []any{"nil map", http.ErrAbortHandler} {
		func() {
			defer func() {
				if p := recover(); p != cause {
					t.Errorf("the panic went on as %v; want %v", p, cause)
				}
			}()
			ask(t, m.Server().Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(cause) })), httptest.NewRecorder())
		}()
	}
	if got := value(t, m, `http_server_panics_total{service="order"}`); got != 1 {
		t.Errorf("%v panics; want the one that was none on purpose", got)
	}
	if n, _ := sum(t, m, metrics.Unmatched, "499"); n != 2 {
		t.Errorf("%v requests without an answer; want both", n)
	}
	if got := value(t, m, `http_server_requests_in_flight{service="order"}`); got != 0 {
		t.Errorf("%v in flight; want 0", got)
	}
}

func TestRequestWhoseClientLeftBeforeAnAnswerHasNone(t *testing.T) {
	m := newOrder(t)
	ctx, cancel := context.WithCancel(t.Context())
	h := m.Server().Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { cancel() }))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/x", nil))
	if n, _ := sum(t, m, metrics.Unmatched, "499"); n != 1 {
		t.Errorf("%v requests without an answer; want 1", n)
	}
}
