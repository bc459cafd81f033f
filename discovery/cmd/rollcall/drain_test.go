package main

import (
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func registerOrders(t *testing.T, client *api.Client, ids ...string) {
	t.Helper()
	for n, id := range ids {
		if err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: id, Name: "order", Address: "10.0.0.1", Port: 8080 + n}); err != nil {
			t.Fatal(err)
		}
	}
	awaitService(t, client, "order", "the entries", func(entries []*api.ServiceEntry) bool { return len(entries) >= len(ids) })
}

func TestDrainTakesAnInstanceOutAndUndrainPutsItBack(t *testing.T) {
	eachConsul(t, func(t *testing.T, client *api.Client) {
		registerOrders(t, client, "order-1", "order-2")
		statuses := func() map[string]string {
			entries, _, err := client.Health().Service("order", "", false, nil)
			if err != nil {
				t.Fatal(err)
			}
			all := map[string]string{}
			for _, e := range entries {
				all[e.Service.ID] = e.Checks.AggregatedStatus()
			}
			return all
		}
		for _, step := range []struct {
			words  []string
			out    string
			status string
		}{
			{[]string{"drain", "order/order-1", "--reason", "looking at its disk"}, "order/order-1 is out: no client sends it anything more\n", api.HealthMaint},
			{[]string{"drain", "order/order-1", "--reason", "another"}, "order/order-1 is out already: looking at its disk\n", api.HealthMaint},
			{[]string{"undrain", "order/order-1"}, "order/order-1 is in no maintenance mode any more\n", api.HealthPassing},
			{[]string{"undrain", "order/order-1"}, "order/order-1 is in no maintenance mode of its own\n", api.HealthPassing},
		} {
			got := rollcall(t, step.words...)
			if got.code != 0 || got.out != step.out {
				t.Errorf("%v: got the exit code %d, %q and %q; want %q", step.words, got.code, got.out, got.errs, step.out)
			}
			if s := statuses(); s["order-1"] != step.status || s["order-2"] != api.HealthPassing {
				t.Errorf("%v: got %v; want order-1 %s", step.words, s, step.status)
			}
		}
	})
}

func TestDrainThatIsRefusedSaysWhatToDo(t *testing.T) {
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	other := agent.AddAgent(t, "worker-2")
	other.SetNodeAddress("192.0.2.7")
	registerOrders(t, agent.Client(), "order-1", "order-both")
	registerOrders(t, other.Client(), "order-2", "order-both")
	agent.Token("all", "service:write", "node:read", "agent:read")
	agent.Token("reader", "service:read", "node:read", "agent:read")
	agent.Token("blind", "agent:read")
	for _, c := range []struct {
		name, token string
		words       []string
		code        int
		errs        []string
	}{
		{
			"another agent's", "all",
			[]string{"drain", "order/order-2", "--reason", "its disk"},
			exitNo,
			[]string{"worker-2", "192.0.2.7", "run there: rollcall drain order/order-2 --reason 'its disk'\n", "CONSUL_HTTP_ADDR=192.0.2.7:8500 rollcall drain order/order-2"},
		},
		{"another agent's, back", "all", []string{"undrain", "order/order-2"}, exitNo, []string{"worker-2", "run there: rollcall undrain order/order-2\n"}},
		{
			"two nodes'", "all",
			[]string{"drain", "order/order-both", "--reason", "its disk"},
			exitNo,
			[]string{consultest.NodeName, "worker-2 (192.0.2.7)", "rollcall drain order/order-both --reason 'its disk' --node NAME"},
		},
		{"none's", "all", []string{"drain", "order/order-3", "--reason", "its disk"}, exitNo, []string{"order-1, order-2, order-both"}},
		{"no write", "reader", []string{"drain", "order/order-1", "--reason", "its disk"}, exitNoConsul, []string{"service:write"}},
		{"no read", "blind", []string{"drain", "order/order-1", "--reason", "its disk"}, exitNoConsul, []string{"service:read"}},
		{"no reason", "all", []string{"drain", "order/order-1"}, exitUsage, []string{"--reason"}},
		{"empty reason", "all", []string{"drain", "order/order-1", "--reason", " "}, exitUsage, []string{"--reason is empty"}},
		{"no slash", "all", []string{"undrain", "order-1"}, exitUsage, []string{"SERVICE/ID"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CONSUL_HTTP_ADDR", address)
			t.Setenv("CONSUL_HTTP_TOKEN", c.token)
			got := rollcall(t, c.words...)
			if got.code != c.code {
				t.Errorf("got the exit code %d; want %d", got.code, c.code)
			}
			for _, word := range c.errs {
				if !strings.Contains(got.errs, word) {
					t.Errorf("%q lacks %q", got.errs, word)
				}
			}
		})
	}
	t.Setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
	if got := rollcall(t, "drain", "order/order-1", "--reason", "its disk"); got.code != exitNoConsul || !strings.Contains(got.errs, "CONSUL_HTTP_ADDR") {
		t.Errorf("got the exit code %d and %q without a Consul; want %d and what to do", got.code, got.errs, exitNoConsul)
	}
}

func TestCommandToRunIsAsAShellTakesIt(t *testing.T) {
	for word, want := range map[string]string{
		"order/order-1:8080": "order/order-1:8080",
		"":                   "''",
		"its disk":           "'its disk'",
		"it's":               `'it'\''s'`,
		"$(rm -r x)":         "'$(rm -r x)'",
	} {
		if got := quoted(word); got != want {
			t.Errorf("got %s; want %s", got, want)
		}
	}
}
