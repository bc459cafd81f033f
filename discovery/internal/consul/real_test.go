package consul_test

import (
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

func TestConsulsOwnWordsMeanUnknown(t *testing.T) {
	for name, client := range map[string]func(t *testing.T) *api.Client{
		"real": func(t *testing.T) *api.Client { return consultest.Real(t).Client() },
		"fake": func(t *testing.T) *api.Client { return consultest.New(t).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			client := client(t)
			agent := client.Agent()
			_, _, read := consul.Service(client, "nope", nil)
			for what, err := range map[string]error{
				"read":        read,
				"deregister":  agent.ServiceDeregister("nope"),
				"update":      agent.UpdateTTL("nope", "", api.HealthPassing),
				"maintenance": agent.EnableServiceMaintenance("nope", ""),
			} {
				if !consul.Unknown(err) {
					t.Errorf("%s: got %v; want it to mean unknown", what, err)
				}
			}
			if _, err := client.Raw().Query("/v1/nope", &struct{}{}, nil); err == nil || consul.Unknown(err) {
				t.Errorf("a path that is none: got %v; want an error that doesn't mean unknown", err)
			}
		})
	}
}
