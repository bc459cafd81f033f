package httpmesh_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// story is what a trace was told, in order.
type story struct {
	mu   sync.Mutex
	told []string
}

func (s *story) tell(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

type (
	requestKey struct{}
	tryKey     struct{}
)

// trace tells the story, and by their contexts which events belong together. Each try
// sends its number.
func (s *story) trace() *httpmesh.Trace {
	return &httpmesh.Trace{
		Begin: func(ctx context.Context, service, method string) context.Context {
			s.tell("begin %s %s", method, service)
			return context.WithValue(ctx, requestKey{}, "request")
		},
		Try: func(ctx context.Context, t httpmesh.TryStart) context.Context {
			why := "first"
			if t.Beside {
				why = "beside"
			}
			if t.After != outcome.None {
				why += " after " + t.After.String()
			}
			s.tell("%v: try %d at %s, %s", ctx.Value(requestKey{}), t.Number, t.Instance.ID, why)
			t.Set("X-Try", fmt.Sprint(t.Number))
			return context.WithValue(ctx, tryKey{}, t.Number)
		},
		Tried: func(ctx context.Context, t httpmesh.Try) {
			s.tell("%v: try %v at %s is %v, %d", ctx.Value(requestKey{}), ctx.Value(tryKey{}), t.Instance.ID, t.Outcome, t.Status)
		},
		Done: func(ctx context.Context, r *httpmesh.Report) {
			s.tell("%v: done, %v", ctx.Value(requestKey{}), r.Outcome)
		},
	}
}

// heard tells which of the tries' headers came to an instance.
func (s *story) heard(id string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.tell("%s hears %v", id, r.Header.Values("X-Try"))
		next(w, r)
	}
}

func TestTraceIsToldOfEachTryAndWhyItIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFleet(t), new(story)
		f.add("order", "order-a", s.heard("order-a", after(5*time.Second, says("a"))))
		f.add("order", "order-b", s.heard("order-b", status(http.StatusServiceUnavailable)))
		f.add("order", "order-c", s.heard("order-c", says("c")))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://order/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Try", "the caller's")
		resp, err := f.transport(httpmesh.Config{Trace: s.trace()}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		want := []string{
			"begin GET order",
			"request: try 1 at order-a, first",
			"order-a hears [1]",
			"request: try 2 at order-b, beside",
			"order-b hears [2]",
			"request: try 2 at order-b is gateway, 503",
			"request: try 3 at order-c, beside after gateway",
			"order-c hears [3]",
			"request: try 3 at order-c is ok, 200",
			"request: try 1 at order-a is silent, 0",
			"request: done, ok",
		}
		if diff := cmp.Diff(want, s.told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		if got := r.Header.Get("X-Try"); got != "the caller's" {
			t.Errorf("the caller's header has become %q", got)
		}
	})
}

func TestTraceIsToldOfARequestWithoutATry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, s := newFleet(t), new(story)
		transport := f.transport(httpmesh.Config{Trace: s.trace()})
		send(t, transport, http.MethodGet, "http://nobody/", nil)
		_ = transport.Close()
		send(t, transport, http.MethodGet, "http://order/", nil)
		want := []string{
			"begin GET nobody", "request: done, no_instance",
			"begin GET order", "request: done, closed",
		}
		if diff := cmp.Diff(want, s.told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	})
}
