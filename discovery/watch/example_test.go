package watch_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

func Example() {
	// A Consul in memory; a program takes internal/consul's client.
	agent := consultest.New(&testing.T{})
	defer agent.Close()
	client := agent.Client()
	err := client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "order-1", Name: "order", Address: "10.0.0.1", Port: 8080})
	if err != nil {
		fmt.Println(err)
		return
	}

	watcher, err := watch.New(watch.Config{Client: agent.Client()})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer watcher.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	snapshot, err := watcher.Latest(ctx, "order")
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range snapshot.All() {
		fmt.Println(i.ID, i.Addr(), i.State)
	}
	// Output: order-1 10.0.0.1:8080 passing
}
