package consul

import (
	"context"
	"io"
	"net/http/httptrace"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
)

// TestIndexThatGoesBackwardsIsAskedAnew is what Consul's documentation of blocking
// queries asks for: https://developer.hashicorp.com/consul/api-docs/features/blocking.
func TestIndexThatGoesBackwardsIsAskedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []uint64{7, 9, 5, 6, 0, 3}
		var asked []uint64
		ctx, cancel := context.WithCancel(t.Context())
		_ = Follow(ctx, func(q *api.QueryOptions) (int, *api.QueryMeta, error) {
			if asked = append(asked, q.WaitIndex); len(asked) > len(answers) {
				cancel()
				return 0, nil, ctx.Err()
			}
			return 0, &api.QueryMeta{LastIndex: answers[len(asked)-1]}, nil
		}, func(int, *api.QueryMeta, error) {})
		if want := []uint64{0, 7, 9, 0, 6, 0, 3}; !slices.Equal(asked, want) {
			t.Errorf("asked with the indexes %v; want %v", asked, want)
		}
	})
}

// follow runs Follow for a while of a bubble, and returns how many questions it put and
// how many failures it told. held is what comes of a question that Consul holds.
func follow(t *testing.T, lasts time.Duration, held func(q *api.QueryOptions) error) (asked, failed int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), lasts)
		defer cancel()
		_ = Follow(ctx, func(q *api.QueryOptions) (int, *api.QueryMeta, error) {
			if asked++; q.WaitIndex == 0 {
				return 0, &api.QueryMeta{LastIndex: 7}, nil
			}
			return 0, &api.QueryMeta{LastIndex: 7}, held(q)
		}, func(_ int, _ *api.QueryMeta, err error) {
			if err != nil {
				failed++
			}
		})
	})
	return asked, failed
}

func TestProxyThatCutsWaitsShortIsLearnedByWhoFollows(t *testing.T) {
	asked, failed := follow(t, 9*time.Minute, func(q *api.QueryOptions) error {
		if q.WaitTime > 10*time.Second {
			time.Sleep(10 * time.Second)
			return io.ErrUnexpectedEOF
		}
		time.Sleep(q.WaitTime)
		return nil
	})
	if failed > 2 || asked > 9*9 {
		t.Errorf("in 9 minutes %d questions and %d failures told; want 9 a minute and 2 at most", asked, failed)
	}
}

func TestHeldQuestionThatBreaksAtOnceIsPutOnceASecond(t *testing.T) {
	asked, failed := follow(t, time.Minute, func(q *api.QueryOptions) error {
		trace := httptrace.ContextClientTrace(q.Context())
		trace.GotConn(httptrace.GotConnInfo{Reused: true})
		trace.GotConn(httptrace.GotConnInfo{}) // by net/http itself, after the first one broke
		time.Sleep(time.Millisecond)
		return context.Cause(q.Context())
	})
	if failed > 0 || asked < 100 || asked > 122 {
		t.Errorf("in a minute %d questions, of which half are not held, and %d failures told; want two a second and none", asked, failed)
	}
}
