package registration_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func ExampleStart() {
	// In a program the client comes from a Consul that may be away.
	agent := consultest.New(&testing.T{})
	defer agent.Close()
	client := agent.Client()

	instance, err := registration.Start(registration.Config{
		Client:     client,
		ConsulAddr: consultest.Address,
		Service:    "order",
		ID:         "order-1",
		Port:       4000,
		Meta:       map[string]string{"version": "1.2.3"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = instance.Wait(context.Background())
	show(client)

	// On SIGTERM, before the listener closes:
	if err := instance.Drain(context.Background()); err != nil {
		fmt.Println(err)
	}
	show(client)

	// When the last request is answered:
	if err := instance.Close(); err != nil {
		fmt.Println(err)
	}
	show(client)
	// Output:
	// order-1 at 127.0.0.1:4000 is passing
	// order-1 at 127.0.0.1:4000 is critical
	// nobody offers order
}

func show(client *api.Client) {
	entries, _, err := client.Health().Service("order", "", false, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range entries {
		fmt.Printf("%s at %s:%d is %s\n", e.Service.ID, e.Service.Address, e.Service.Port, e.Checks.AggregatedStatus())
	}
	if len(entries) == 0 {
		fmt.Println("nobody offers order")
	}
}
