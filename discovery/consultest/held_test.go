package consultest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestNodeQueriesAreBlindAfterTheServersWereWiped(t *testing.T) {
	for name, ask := range map[string]nodeQuery{"services": servicesOf, "checks": checksOf} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
				s := side{Client: c}
				for range 5 { // so that the index is above what a wiped catalog begins with
					register(t, c, beaten("order-1"))
					if err := c.Agent().ServiceDeregister("order-1"); err != nil {
						t.Fatal(err)
					}
				}
				before, err := ask(s, consultest.NodeName, nil)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan uint64, 1)
				begin := time.Now()
				go func() {
					index, err := ask(s, consultest.NodeName, &api.QueryOptions{WaitIndex: before, WaitTime: 30 * time.Second})
					if err != nil {
						t.Error(err)
					}
					done <- index
				}()
				synctest.Wait()
				if got := a.Held("/v1/"); got != 1 {
					t.Errorf("got %d queries held; want 1", got)
				}
				if got := a.Held("/v1/agent/"); got != 0 {
					t.Errorf("got %d queries held of /v1/agent/; want 0", got)
				}
				a.WipeServers()
				register(t, c, beaten("order-2"))
				after := <-done
				if took := time.Since(begin); took < 30*time.Second {
					t.Errorf("a query with index %d came back after %v with index %d; want it blind for its wait of 30s", before, took, after)
				}
				if after == 0 || after >= before {
					t.Errorf("got index %d after the wipe; want one below %d", after, before)
				}
				if got := a.Held(""); got != 0 {
					t.Errorf("got %d queries held in the end; want 0", got)
				}
			})
		})
	}
}
