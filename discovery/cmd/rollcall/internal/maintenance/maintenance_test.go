package maintenance_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/maintenance"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func register(t *testing.T, client *api.Client, ids ...string) {
	t.Helper()
	for n, id := range ids {
		err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{
			ID: id, Name: "order", Address: "10.0.0.1", Port: 8080 + n,
			Checks: api.AgentServiceChecks{{CheckID: id + ":rollcall", TTL: "1h", Status: api.HealthPassing}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// reasonOf is what clients see of an instance's maintenance mode.
func reasonOf(t *testing.T, client *api.Client, id string) (reason string, out bool) {
	t.Helper()
	entries, _, err := client.Health().Service("order", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		for _, c := range e.Checks {
			if c.CheckID == api.ServiceMaintPrefix+id {
				return c.Notes, true
			}
		}
	}
	return "", false
}

func instance(t *testing.T, text string) maintenance.Instance {
	t.Helper()
	i, err := maintenance.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// bubble runs a test against an agent of consultest's.
func bubble(t *testing.T, do func(t *testing.T, a *consultest.Agent)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(t, consultest.New(t)) })
}

// cluster runs a test with two agents of one cluster, of which the second is at node
// other.
func cluster(t *testing.T, do func(t *testing.T, first, second *api.Client, other string)) {
	t.Run("a Consul in the test", func(t *testing.T) {
		bubble(t, func(t *testing.T, a *consultest.Agent) {
			do(t, a.Client(), a.AddAgent(t, "worker-2").Client(), "worker-2")
		})
	})
	t.Run("a real Consul", func(t *testing.T) {
		s := consultest.Real(t)
		do(t, s.Client(), s.Agent().Client(), consultest.AgentNodeName)
	})
}

func TestInstanceGoesOutWithItsReasonAndComesBack(t *testing.T) {
	cluster(t, func(t *testing.T, client, _ *api.Client, _ string) {
		register(t, client, "order-1", "order-2")
		awaitEntries(t, client, 2)
		i := instance(t, "order/order-1")
		done, err := maintenance.Enable(t.Context(), client, i, "looking at its disk")
		if err != nil || done.Already || done.Reason != "looking at its disk" || done.Instance.Node != consultest.NodeName {
			t.Fatalf("got %+v, %v; want it out for the reason", done, err)
		}
		if reason, out := reasonOf(t, client, "order-1"); !out || reason != "looking at its disk" {
			t.Errorf("got %q, %v in the catalog when it was done; want the reason", reason, out)
		}
		if _, out := reasonOf(t, client, "order-2"); out {
			t.Error("the other instance is out as well")
		}
		if done, err = maintenance.Enable(t.Context(), client, i, "another"); err != nil || !done.Already || done.Reason != "looking at its disk" {
			t.Errorf("got %+v, %v when it is out already; want the reason that it has", done, err)
		}
		if done, err = maintenance.Disable(t.Context(), client, i); err != nil || done.Already {
			t.Errorf("got %+v, %v; want it back", done, err)
		}
		if _, out := reasonOf(t, client, "order-1"); out {
			t.Error("it is out in the catalog when it was done")
		}
		if done, err = maintenance.Disable(t.Context(), client, i); err != nil || !done.Already {
			t.Errorf("got %+v, %v when it is in use already; want that said", done, err)
		}
	})
}

func TestInstanceOfAnotherAgentIsRefusedNamingItsOwner(t *testing.T) {
	cluster(t, func(t *testing.T, first, second *api.Client, other string) {
		register(t, second, "order-1")
		awaitEntries(t, first, 1)
		_, err := maintenance.Enable(t.Context(), first, instance(t, "order/order-1"), "why not")
		owner, ok := errors.AsType[*maintenance.OwnerError](err)
		if !ok || owner.Instance.Node != other || owner.Address != "127.0.0.1" || owner.Asked != consultest.NodeName || !maintenance.IsRefusal(err) {
			t.Fatalf("got %#v (%v); want the owner %s at 127.0.0.1, and who was asked", owner, err, other)
		}
		for _, word := range []string{"order/order-1", other, "127.0.0.1", consultest.NodeName} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q lacks %s", err, word)
			}
		}
		if _, out := reasonOf(t, first, "order-1"); out {
			t.Error("it is out all the same")
		}
	})
}

func TestIDAtTwoNodesIsRefusedUntilTheNodeIsNamed(t *testing.T) {
	cluster(t, func(t *testing.T, first, second *api.Client, other string) {
		register(t, first, "order-1")
		register(t, second, "order-1")
		awaitEntries(t, first, 2)
		i := instance(t, "order/order-1")
		_, err := maintenance.Enable(t.Context(), first, i, "why not")
		several, ok := errors.AsType[*maintenance.AmbiguousError](err)
		want := []string{consultest.NodeName + " (127.0.0.1)", other + " (127.0.0.1)"}
		slices.Sort(want)
		if !ok || !slices.Equal(several.At, want) || !maintenance.IsRefusal(err) {
			t.Fatalf("got %v; want both nodes: %q", err, want)
		}
		i.Node = other
		_, err = maintenance.Enable(t.Context(), first, i, "why not")
		if owner, ok := errors.AsType[*maintenance.OwnerError](err); !ok || owner.Instance.Node != other {
			t.Errorf("got %v at the first agent; want it refused as %s's", err, other)
		}
		if done, err := maintenance.Enable(t.Context(), second, i, "why not"); err != nil || done.Instance.Node != other {
			t.Errorf("got %+v, %v at the agent that has it; want it out", done, err)
		}
	})
}

// await waits until the catalog has what is wanted of the service: an agent tells the
// servers after it has answered.
func await(t *testing.T, client *api.Client, what string, ok func(entries []*api.ServiceEntry) bool) {
	t.Helper()
	var index uint64
	for range 100 {
		entries, meta, err := client.Health().Service("order", "", false, (&api.QueryOptions{WaitIndex: index}).WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		if ok(entries) {
			return
		}
		index = meta.LastIndex
	}
	t.Fatalf("the catalog never had %s", what)
}

func awaitEntries(t *testing.T, client *api.Client, n int) {
	t.Helper()
	await(t, client, "as many entries", func(entries []*api.ServiceEntry) bool { return len(entries) == n })
}

func TestMissingInstanceIsRefusedNamingThoseThatThereAre(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent) {
		register(t, a.Client(), "order-2", "order-1")
		_, err := maintenance.Enable(t.Context(), a.Client(), instance(t, "order/order-3"), "why not")
		missing, ok := errors.AsType[*maintenance.MissingError](err)
		if !ok || !slices.Equal(missing.IDs, []string{"order-1", "order-2"}) || !maintenance.IsRefusal(err) {
			t.Errorf("got %v; want the two that there are", err)
		}
		_, err = maintenance.Disable(t.Context(), a.Client(), instance(t, "user/user-1"))
		if err == nil || !strings.Contains(err.Error(), "has no instance") {
			t.Errorf("got %v; want it said that the service has none", err)
		}
	})
}

func TestAgentThatMayNotBeReadIsKnownByItsChecks(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent) {
		other := a.AddAgent(t, "worker-2")
		a.Tokens("writer") // service:write and node:read
		register(t, a.Client(), "order-1")
		register(t, other.Client(), "order-2")
		if _, err := maintenance.Enable(t.Context(), a.ClientWith("writer"), instance(t, "order/order-1"), "why not"); err != nil {
			t.Errorf("got %v; want it out", err)
		}
		_, err := maintenance.Enable(t.Context(), a.ClientWith("writer"), instance(t, "order/order-2"), "why not")
		if owner, ok := errors.AsType[*maintenance.OwnerError](err); !ok || owner.Instance.Node != "worker-2" {
			t.Errorf("got %v; want worker-2 as the owner", err)
		}
	})
}

func TestTokenThatMayNotReadIsToldWhichRightsItWants(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent) {
		register(t, a.Client(), "order-1")
		a.Token("blind", "agent:read")
		_, err := maintenance.Enable(t.Context(), a.ClientWith("blind"), instance(t, "order/order-1"), "why not")
		if err == nil || maintenance.IsRefusal(err) || !strings.Contains(err.Error(), `service:read for "order"`) || !strings.Contains(err.Error(), "node:read") {
			t.Errorf("got %v; want the rights, and not that there is no such instance", err)
		}
	})
}

func TestChangeThatTheCatalogDoesNotShowIsNotDone(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent) {
		register(t, a.Client(), "order-1")
		a.Break("/v1/agent/service/maintenance/", consultest.Answer(200, ""))
		_, err := maintenance.Enable(t.Context(), a.Client(), instance(t, "order/order-1"), "why not")
		if !errors.Is(err, maintenance.ErrUnseen) {
			t.Errorf("got %v; want ErrUnseen", err)
		}
	})
}

func TestEntryThatItsAgentDoesNotHaveIsToldAsLeftOver(t *testing.T) {
	bubble(t, func(t *testing.T, a *consultest.Agent) {
		_, err := a.Client().Catalog().Register(&api.CatalogRegistration{
			Node: consultest.NodeName, Address: "127.0.0.1",
			Service: &api.AgentService{ID: "order-1", Service: "order", Port: 8080},
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = maintenance.Enable(t.Context(), a.Client(), instance(t, "order/order-1"), "why not")
		if err == nil || !strings.Contains(err.Error(), "left over") {
			t.Errorf("got %v; want it told as left over", err)
		}
	})
}

func TestMaintenanceOfTheNodeIsTold(t *testing.T) {
	cluster(t, func(t *testing.T, client, _ *api.Client, _ string) {
		register(t, client, "order-1")
		if err := client.Agent().EnableNodeMaintenance("a new kernel"); err != nil {
			t.Fatal(err)
		}
		await(t, client, "a node in maintenance", func(entries []*api.ServiceEntry) bool {
			return len(entries) == 1 && slices.ContainsFunc(entries[0].Checks, func(c *api.HealthCheck) bool { return c.CheckID == api.NodeMaint })
		})
		done, err := maintenance.Disable(t.Context(), client, instance(t, "order/order-1"))
		if err != nil || !done.Already || done.NodeReason != "a new kernel" {
			t.Errorf("got %+v, %v; want the node's reason", done, err)
		}
	})
}

func TestInstanceIsWrittenAsServiceAndID(t *testing.T) {
	for text, want := range map[string]maintenance.Instance{
		"order/order-1":  {Service: "order", ID: "order-1"},
		"order/a/b:8080": {Service: "order", ID: "a/b:8080"},
	} {
		if got, err := maintenance.Parse(text); err != nil || got != want || got.String() != text {
			t.Errorf("got %+v, %v of %q; want %+v", got, err, text, want)
		}
	}
	for _, text := range []string{"", "order", "order/", "/order-1"} {
		if _, err := maintenance.Parse(text); err == nil || !strings.Contains(err.Error(), "SERVICE/ID") {
			t.Errorf("got %v of %q; want what is wanted", err, text)
		}
	}
}
