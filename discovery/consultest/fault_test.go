package consultest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func beaten(id string) *api.AgentServiceRegistration {
	return order(id, 1, &api.AgentServiceCheck{CheckID: id + ":beat", TTL: "1h", Status: "passing"})
}

func TestRefusedAgentCutsConnectionsAndComesBack(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, beaten("order-1"))
		waits := ask(t.Context(), a.Client(), a.Index(), time.Minute)
		a.Break("", consultest.Refuse())
		if got := <-waits; got.err == nil || got.took != 0 {
			t.Errorf("a waiting query got %v after %v; want an error at once", got.err, got.took)
		}
		if _, err := c.Status().Leader(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v; want connection refused", err)
		}
		a.Mend()
		if v, _ := entries(t, c, nil); len(v) != 1 {
			t.Errorf("got %d entries afterwards; want 1", len(v))
		}
	})
}

func TestRefusedPathLeavesOthersAlone(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.Break("/v1/agent/", consultest.Refuse())
		err := c.Agent().ServiceRegister(beaten("order-1"))
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("register got %v; want EOF", err)
		}
		if v, _ := entries(t, c, nil); len(v) != 0 {
			t.Errorf("got %d entries; want the refused register not to have happened", len(v))
		}
	})
}

func TestSilentAgentNeverAnswersNorActs(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		waits := ask(t.Context(), a.Client(), a.Index(), time.Minute)
		a.Break("", consultest.Silent())
		done := make(chan error, 1)
		go func() { done <- c.Agent().ServiceRegister(beaten("order-1")) }()
		time.Sleep(time.Hour)
		waiting(t, waits)
		a.Mend()
		time.Sleep(time.Hour)
		waiting(t, waits)
		select {
		case err := <-done:
			t.Errorf("a swallowed register was answered: %v", err)
		default:
		}
		if v, _ := entries(t, a.Client(), nil); len(v) != 0 {
			t.Errorf("got %d entries; want none from a register that was swallowed", len(v))
		}
		a.Close()
		if <-done == nil {
			t.Error("the swallowed register had no error")
		}
	})
}

func TestPausedAgentAnswersLater(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1, &api.AgentServiceCheck{CheckID: "beat", TTL: "30s", Status: "passing"}))
		a.Break("", consultest.Paused())
		done := make(chan error, 1)
		begin := time.Now()
		go func() { done <- c.Agent().UpdateTTL("beat", "", "pass") }()
		time.Sleep(time.Minute)
		a.Mend()
		if err := <-done; err != nil || time.Since(begin) != time.Minute {
			t.Errorf("the beat got %v after %v; want an answer after the pause of 1m", err, time.Since(begin))
		}
		if k := check(t, c, "beat"); k.Status != "passing" {
			t.Errorf("got %s; want the beat that waited to rescue a TTL that had run out", k.Status)
		}
	})
}

func TestFailedAnswersHaveStatusAndBody(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, beaten("order-1"))
		waits := ask(t.Context(), c, a.Index(), time.Minute)
		a.Break("/v1/health/", consultest.Fail(http.StatusForbidden, "Permission denied: token lacks permission"))
		got := <-waits
		status, ok := errors.AsType[api.StatusError](got.err)
		if !ok || status.Code != http.StatusForbidden || !strings.Contains(status.Body, "Permission denied") || got.took != 0 {
			t.Errorf("the waiting query got %v after %v; want 403 at once", got.err, got.took)
		}
		if err := c.Agent().UpdateTTL("order-1:beat", "", "pass"); err != nil {
			t.Errorf("another path got %v; want no error", err)
		}
		// The longest prefix wins, whichever was set first.
		a.Break("/v1/health/service/order", consultest.Empty(1))
		a.Break("/v1/", consultest.Fail(http.StatusBadGateway, ""))
		if v, _ := entries(t, c, nil); len(v) != 0 {
			t.Errorf("got %d entries; want the longer prefix to win", len(v))
		}
		a.Mend("/v1/health/service/order", "/v1/")
		_, _, err := c.Health().Service("order", "", false, nil)
		if status, ok := errors.AsType[api.StatusError](err); !ok || status.Code != http.StatusForbidden {
			t.Errorf("got %v; want the fault that was not mended", err)
		}
	})
}

func TestAnswersThatLie(t *testing.T) {
	tests := []struct {
		name    string
		fault   func(index uint64) consultest.Fault
		query   uint64 // index asked with
		entries int
		index   func(index uint64) uint64
		check   func(m *api.QueryMeta) bool
		err     string
	}{
		{name: "empty with index 1", fault: func(uint64) consultest.Fault { return consultest.Empty(1) }, query: 1, index: func(uint64) uint64 { return 1 }},
		{name: "filtered, without an index", fault: func(uint64) consultest.Fault { return consultest.Filtered() }, check: func(m *api.QueryMeta) bool { return m.ResultsFilteredByACLs && m.KnownLeader }},
		{name: "filtered, with an index", fault: func(uint64) consultest.Fault { return consultest.Filtered() }, query: 7, index: func(uint64) uint64 { return 7 }, check: func(m *api.QueryMeta) bool { return !m.ResultsFilteredByACLs }},
		{name: "anonymous", fault: func(uint64) consultest.Fault { return consultest.Anonymous() }, check: func(m *api.QueryMeta) bool { return m.DefaultACLPolicy == "deny" && !m.ResultsFilteredByACLs }},
		{name: "no index", fault: func(uint64) consultest.Fault { return consultest.DropIndexHeader() }, entries: 1, index: func(uint64) uint64 { return 0 }},
		{name: "cut", fault: func(uint64) consultest.Fault { return consultest.Truncate(10) }, err: "unexpected EOF"},
		{name: "cut where it would end", fault: func(uint64) consultest.Fault { return consultest.Truncate(1 << 20) }, err: "unexpected EOF"},
		{name: "a web page", fault: func(uint64) consultest.Fault { return consultest.HTML() }, err: "invalid character '<'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
				register(t, c, beaten("order-1"))
				_, before := entries(t, c, nil)
				a.Break("/v1/health/", tt.fault(before.LastIndex))
				v, meta, err := c.Health().Service("order", "", false, &api.QueryOptions{WaitIndex: tt.query})
				if tt.err != "" {
					if err == nil || !strings.Contains(err.Error(), tt.err) {
						t.Fatalf("got error %v; want %q", err, tt.err)
					}
				} else {
					if err != nil {
						t.Fatal(err)
					}
					if len(v) != tt.entries {
						t.Errorf("got %d entries; want %d", len(v), tt.entries)
					}
					if tt.index != nil && meta.LastIndex != tt.index(before.LastIndex) {
						t.Errorf("got index %d; want %d", meta.LastIndex, tt.index(before.LastIndex))
					}
					if tt.check != nil && !tt.check(meta) {
						t.Errorf("got %+v", meta)
					}
				}
				a.Mend()
				if v, _ := entries(t, c, nil); len(v) != 1 {
					t.Errorf("got %d entries after Mend; want 1", len(v))
				}
			})
		})
	}
}

func TestEmptyAnswersLeaveWritesAlone(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.Break("", consultest.Empty(1))
		register(t, c, beaten("order-1"))
		if v, _ := entries(t, c, nil); len(v) != 0 {
			t.Errorf("got %d entries; want none", len(v))
		}
		a.Mend()
		if v, _ := entries(t, c, nil); len(v) != 1 {
			t.Errorf("got %d entries after Mend; want what was registered meanwhile", len(v))
		}
	})
}

func TestSlowAnswerTricklesAndCanBeGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		a.Break("/v1/status/", consultest.Slow(4, time.Second))
		begin := time.Now()
		leader, err := c.Status().Leader()
		if err != nil || leader != "127.0.0.1:8300" || time.Since(begin) != 3*time.Second {
			t.Errorf("got %q after %v, %v; want 16 bytes with 3 pauses of 1s", leader, time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		begin = time.Now()
		if _, err := c.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx)); err == nil {
			t.Errorf("no error after %v; want the context's", time.Since(begin))
		}
	})
}

func TestFaultsMayChangeWhileRequestsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := consultest.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		for i := range 4 {
			go func() {
				defer func() { done <- struct{}{} }()
				c := a.Client()
				for ctx.Err() == nil {
					q := (&api.QueryOptions{WaitIndex: uint64(i), WaitTime: time.Second}).WithContext(ctx)
					_, _, _ = c.Health().Service("order", "", false, q)
					_ = c.Agent().ServiceRegisterOpts(beaten("order-1"), api.ServiceRegisterOpts{}.WithContext(ctx))
					time.Sleep(time.Millisecond)
				}
			}()
		}
		faults := []consultest.Fault{
			consultest.Refuse(), consultest.Paused(), consultest.Fail(500, "no"), consultest.HTML(), consultest.Empty(1),
			consultest.Filtered(), consultest.DropIndexHeader(), consultest.Truncate(3), consultest.Slow(1, time.Microsecond),
		}
		for i := range 60 {
			a.Break([]string{"", "/v1/health/", "/v1/agent/"}[i%3], faults[i%len(faults)])
			time.Sleep(7 * time.Millisecond)
			switch i % 20 {
			case 3:
				a.Wipe()
			case 7:
				a.WipeServers()
			case 11:
				a.Restart()
			case 13:
				a.LoseLeader()
			case 17:
				a.ElectLeader()
			}
			if i%2 == 0 {
				a.Mend()
			}
		}
		a.Mend()
		a.ElectLeader()
		cancel()
		for range 4 {
			<-done
		}
		register(t, a.Client(), order("order-2", 2))
		if v, _ := entries(t, a.Client(), nil); len(v) == 0 {
			t.Error("the agent knows nothing after the storm; want order-2 at least")
		}
	})
}
