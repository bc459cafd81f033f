package consultest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestHalfAnHourOfBlockingQueriesTakesNoTime(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1))
		_, meta := entries(t, c, nil)
		begin := time.Now()
		queries := 0
		for time.Since(begin) < 30*time.Minute {
			queryBegin := time.Now()
			_, next := entries(t, c, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: 30 * time.Second})
			if took := time.Since(queryBegin); took < 30*time.Second || took > 32*time.Second {
				t.Fatalf("query %d took %v; want 30s and up to a 16th more", queries, took)
			}
			if next.LastIndex != meta.LastIndex {
				t.Fatalf("index went from %d to %d without a change", meta.LastIndex, next.LastIndex)
			}
			queries++
		}
		if n := len(a.Requests("/v1/health/")); n != queries+1 {
			t.Errorf("got %d requests noted; want %d", n, queries+1)
		}
	})
}

func TestDefaultWaitIsFiveMinutes(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1))
		got := <-ask(t.Context(), c, a.Index(), 0)
		if got.err != nil || got.took < 5*time.Minute || got.took > 5*time.Minute+19*time.Second {
			t.Errorf("got an answer after %v, error %v; want 5m and up to a 16th more", got.took, got.err)
		}
	})
}

func TestTTLRunsOutAndABeatRescuesIt(t *testing.T) {
	bubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1, &api.AgentServiceCheck{CheckID: "beat", TTL: "30s", Status: "passing"}))
		for range 10 {
			time.Sleep(29 * time.Second)
			if err := c.Agent().UpdateTTL("beat", "", "pass"); err != nil {
				t.Fatal(err)
			}
		}
		if k := check(t, c, "beat"); k.Status != "passing" {
			t.Fatalf("got %s while beaten each 29s of 30s; want passing", k.Status)
		}
		_, meta := entries(t, c, nil)
		got := <-ask(t.Context(), c, meta.LastIndex, 5*time.Minute)
		if got.took != 30*time.Second {
			t.Errorf("the watcher learned of it after %v; want 30s", got.took)
		}
		if k := check(t, c, "beat"); k.Status != "critical" || k.Output != "TTL expired" {
			t.Errorf("got %s %q; want critical %q", k.Status, k.Output, "TTL expired")
		}
		if err := c.Agent().UpdateTTL("beat", "", "pass"); err != nil {
			t.Fatal(err)
		}
		if k := check(t, c, "beat"); k.Status != "passing" {
			t.Errorf("got %s after a beat; want passing", k.Status)
		}
	})
}

func TestChangedOutputReachesTheCatalogMinutesLater(t *testing.T) {
	bubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1, &api.AgentServiceCheck{CheckID: "beat", TTL: "1h", Status: "critical"}))
		if err := c.Agent().UpdateTTL("beat", "draining", "fail"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if k := check(t, c, "beat"); k.Output != "" {
			t.Errorf("the catalog has output %q after 2m; want none so far", k.Output)
		}
		time.Sleep(6 * time.Minute)
		if k := check(t, c, "beat"); k.Output != "draining" {
			t.Errorf("the catalog has output %q after 8m; want draining", k.Output)
		}
	})
}

func TestCriticalServiceIsReaped(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1, &api.AgentServiceCheck{CheckID: "beat", TTL: "10s", Status: "passing", DeregisterCriticalServiceAfter: "1s"}))
		register(t, c, order("order-2", 2, &api.AgentServiceCheck{TTL: "10h", Status: "passing", DeregisterCriticalServiceAfter: "1m"}))
		time.Sleep(69 * time.Second) // 10s to run out, then 1m, the minimum
		if v, _ := entries(t, c, nil); len(v) != 2 {
			t.Fatalf("got %d entries after 69s; want 2", len(v))
		}
		time.Sleep(31 * time.Second) // Consul looks each 30s
		v, _ := entries(t, c, nil)
		if len(v) != 1 || v[0].Service.ID != "order-2" {
			t.Fatalf("got %d entries after 100s; want order-2 only", len(v))
		}
		if err := c.Agent().UpdateTTL("beat", "", "pass"); err == nil {
			t.Error("the reaped service's check can still be beaten")
		}
		if err := a.SetCheck("service:order-2", "critical", "down"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(45 * time.Second)
		if err := a.SetCheck("service:order-2", "passing", "up"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if v, _ := entries(t, c, nil); len(v) != 1 {
			t.Error("a service was reaped that had recovered in time")
		}
	})
}

func TestSetCheckNamesWhatIsMissing(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, _ *api.Client) {
		if err := a.SetCheck("nobody", "passing", ""); err == nil || !strings.Contains(err.Error(), `"nobody"`) {
			t.Errorf("got %v; want an error that names the check", err)
		}
	})
}

func TestAgentServiceBlocksOnItsHash(t *testing.T) {
	bubble(t, func(t *testing.T, _ *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1))
		s, meta, err := c.Agent().Service("order-1", nil)
		if err != nil || s.ContentHash == "" || meta.LastContentHash != s.ContentHash {
			t.Fatalf("got %v, %v, %v; want a hash in body and header", s, meta, err)
		}
		changed := make(chan error, 1)
		go func() {
			time.Sleep(10 * time.Second)
			changed <- c.Agent().ServiceRegister(order("order-1", 2))
		}()
		begin := time.Now()
		next, _, err := c.Agent().Service("order-1", &api.QueryOptions{WaitHash: s.ContentHash, WaitTime: time.Minute})
		if err != nil || next.Port != 2 || time.Since(begin) != 10*time.Second {
			t.Errorf("got %+v after %v, %v; want port 2 after 10s", next, time.Since(begin), err)
		}
		if err := <-changed; err != nil {
			t.Error(err)
		}
	})
}

func TestConnectionOverTheLimitGets429(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1))
		a.LimitConnections(3)
		index := a.Index()
		waits := []<-chan later{
			ask(t.Context(), a.Client(), index, time.Minute),
			ask(t.Context(), a.Client(), index, time.Minute),
		}
		if n := a.Connections(); n != 3 {
			t.Fatalf("got %d connections; want 3", n)
		}
		_, _, err := a.Client().Health().Service("order", "", false, nil)
		if status, ok := errors.AsType[api.StatusError](err); !ok || status.Code != http.StatusTooManyRequests {
			t.Errorf("the fourth connection got %v; want 429", err)
		}
		entries(t, c, nil) // the first still works
		for _, w := range waits {
			if got := <-w; got.err != nil {
				t.Errorf("a waiting query failed: %v", got.err)
			}
		}
	})
}

func TestCloseEndsWaitingQueriesAndMayBeCalledTwice(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1, &api.AgentServiceCheck{TTL: "1h"}))
		waits := ask(t.Context(), a.Client(), a.Index(), time.Minute)
		a.Break("/v1/agent/", consultest.Silent())
		silent := make(chan error, 1)
		go func() { silent <- c.Agent().UpdateTTL("service:order-1", "", "pass") }()
		synctest.Wait()
		begin := time.Now()
		a.Close()
		a.Close()
		if got := <-waits; got.err == nil {
			t.Error("a waiting query was answered by a closed agent")
		}
		if err := <-silent; err == nil {
			t.Error("a swallowed request was answered by a closed agent")
		}
		if _, err := c.Status().Leader(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a closed agent says %v; want connection refused", err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("closing took %v of the bubble's time; want none", took)
		}
	})
}

func TestCancelledQueryEndsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
		register(t, c, order("order-1", 1))
		ctx, cancel := context.WithCancel(t.Context())
		waits := ask(ctx, c, a.Index(), time.Minute)
		cancel()
		if got := <-waits; !errors.Is(got.err, context.Canceled) || got.took != 0 {
			t.Errorf("got %v after %v; want canceled at once", got.err, got.took)
		}
		synctest.Wait()
		if n := a.Connections(); n != 0 {
			t.Errorf("%d connections are open; want the cancelled one closed", n)
		}
	})
}

func TestAgentWorksOutsideABubbleAndOnAPort(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("agent", func(t *testing.T) {
		a := consultest.New(t)
		addr, err := a.Listen()
		if err != nil {
			t.Fatal(err)
		}
		register(t, a.Client(), order("order-1", 1))
		tr := &http.Transport{}
		defer tr.CloseIdleConnections()
		res, err := (&http.Client{Transport: tr}).Get("http://" + addr + "/v1/health/service/order")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(body), `"order-1"`) {
			t.Errorf("got %s, %v; want order-1", body, err)
		}
	})
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}
