package balancer_test

import (
	"context"
	"fmt"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func Example() {
	var source catalog.Fixed
	err := source.Set("order",
		catalog.Instance{ID: "order-a", Host: "10.0.0.3", Port: 8080},
		catalog.Instance{ID: "order-b", Host: "10.0.0.4", Port: 8080, State: catalog.StateDraining},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	order := balancer.New("order", balancer.Config{Policy: balancer.P2C{}})

	// For each request:
	snapshot, err := source.Latest(context.Background(), "order")
	if err != nil {
		fmt.Println(err)
		return
	}
	order.Use(snapshot, time.Now())
	lease, err := order.Pick(balancer.Request{Now: time.Now()})
	if err != nil {
		fmt.Println(err)
		return
	}
	began, instance := time.Now(), lease.Endpoint().Instance()
	fmt.Println(instance.ID, instance.Addr())
	// … send the request to it …
	lease.Done(outcome.Result{Code: outcome.OK, Began: began, At: time.Now(), Latency: time.Since(began)})

	counts := order.Counts(time.Now())
	fmt.Println(counts.Known, "known,", counts.Ready, "ready,", counts.Draining, "draining")
	// Output:
	// order-a 10.0.0.3:8080
	// 2 known, 1 ready, 1 draining
}
