package outlier_test

import (
	"fmt"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

func Example() {
	rules, err := outlier.New(outlier.Config{Consecutive: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	order := balancer.New("order", balancer.Config{Outliers: rules, Trace: &balancer.Trace{
		Ejected: func(_ string, _ catalog.Instance, x outlier.Ejection) {
			fmt.Println("out for", x.Until.Sub(x.At), "after", x.Reason)
		},
	}})
	feed := catalog.NewFeed("order")
	now := time.Now()
	feed.Publish([]catalog.Instance{
		{ID: "order-a", Host: "10.0.0.3", Port: 8080, State: catalog.StatePassing, Weight: 1},
		{ID: "order-b", Host: "10.0.0.4", Port: 8080, State: catalog.StatePassing, Weight: 1},
	}, now)
	order.Use(feed.Current(), now)

	// Each answer is a 500, whichever gives it.
	for range 4 {
		lease, err := order.Pick(balancer.Request{Now: now})
		if err != nil {
			fmt.Println(err)
			return
		}
		lease.Done(outcome.Result{Code: outcome.Error, Began: now, At: now})
	}
	fmt.Println(order.Counts(now).Ejected, "of 2 is out")
	now = now.Add(2 * time.Second)
	fmt.Println(order.Counts(now).Ejected, "of 2 are out")
	// Output:
	// out for 2s after error
	// 1 of 2 is out
	// 0 of 2 are out
}
