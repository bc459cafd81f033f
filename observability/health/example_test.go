package health_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/rollcall-mesh/rollcall/observability/health"
)

func Example() {
	checks := health.New(health.Config{})
	defer checks.Close()
	checks.Add("store", health.Required, func(context.Context) error { return errors.New("file is locked") })
	checks.Add("consul", health.Informational, func(context.Context) error { return errors.New("connection refused") })

	fmt.Println(checks.Ready())
	// Output: not ready: store: file is locked
}
