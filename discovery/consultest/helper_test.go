package consultest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// bubble runs the test with an agent in a synctest bubble.
func bubble(t *testing.T, do func(t *testing.T, a *consultest.Agent, c *api.Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := consultest.New(t)
		do(t, a, a.Client())
	})
}

func register(t *testing.T, c *api.Client, r *api.AgentServiceRegistration) {
	t.Helper()
	if err := c.Agent().ServiceRegister(r); err != nil {
		t.Fatalf("register %s: %v", r.ID, err)
	}
}

func entries(t *testing.T, c *api.Client, q *api.QueryOptions) ([]*api.ServiceEntry, *api.QueryMeta) {
	t.Helper()
	v, meta, err := c.Health().Service("order", "", false, q)
	if err != nil {
		t.Fatalf("health of order: %v", err)
	}
	return v, meta
}

func check(t *testing.T, c *api.Client, id string) *api.HealthCheck {
	t.Helper()
	v, _ := entries(t, c, nil)
	for _, e := range v {
		for _, k := range e.Checks {
			if k.CheckID == id {
				return k
			}
		}
	}
	return nil
}

// later is a health query that waits.
type later struct {
	entries []*api.ServiceEntry
	meta    *api.QueryMeta
	err     error
	took    time.Duration
}

func ask(ctx context.Context, c *api.Client, index uint64, wait time.Duration) <-chan later {
	out := make(chan later, 1)
	begin := time.Now()
	go func() {
		v, meta, err := c.Health().Service("order", "", false, (&api.QueryOptions{WaitIndex: index, WaitTime: wait}).WithContext(ctx))
		out <- later{v, meta, err, time.Since(begin)}
	}()
	synctest.Wait()
	return out
}

func waiting(t *testing.T, l <-chan later) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-l:
		t.Fatalf("the query came back after %v: %d entries, error %v; want it to wait", got.took, len(got.entries), got.err)
	default:
	}
}
