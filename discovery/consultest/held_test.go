package consultest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestNodeQueriesAreBlindAfterTheServersWereWiped(t *testing.T) {
	own := func(c *api.Client, status string) error {
		if status == "critical" {
			return c.Agent().ServiceDeregister("order-1")
		}
		return c.Agent().ServiceRegister(beaten("order-1"))
	}
	far := func(c *api.Client, status string) error {
		_, err := c.Catalog().Register(&api.CatalogRegistration{
			Node: "far", Address: "10.9.9.9", Check: &api.AgentCheck{CheckID: "far:1", Name: "one", Status: status},
		}, nil)
		return err
	}
	for _, c := range []struct {
		name   string
		ask    nodeQuery
		raise  func(c *api.Client, status string) error // the index
		change bool                                     // the node after the wipe
	}{
		{"services", servicesOf, own, true},
		{"checks", checksOf, own, true},
		{"checks, raised by another node's", checksOf, far, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask, raise, change := c.ask, c.raise, c.change
			bubble(t, func(t *testing.T, a *consultest.Agent, c *api.Client) {
				s := side{Client: c}
				for range 5 { // so that the index is above what a wiped catalog begins with
					if err := errors.Join(raise(c, "passing"), raise(c, "critical")); err != nil {
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
				if change {
					register(t, c, beaten("order-2"))
				}
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
