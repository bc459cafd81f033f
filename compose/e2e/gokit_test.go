package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-kit/kit/endpoint"
	"github.com/go-kit/kit/sd"
	kitconsul "github.com/go-kit/kit/sd/consul"
	"github.com/go-kit/kit/sd/lb"
	"github.com/go-kit/log"
)

// testStockGoKitClientFindsAndCallsAllOrders uses go-kit's own client of Consul, which knows nothing of us:
// what we register is what others expect. The tag is that of the port it can speak to. The containers' addresses are reached from this host, as Linux does.
func testStockGoKitClientFindsAndCallsAllOrders(t *testing.T, m *mesh) {
	instancer := kitconsul.NewInstancer(kitconsul.NewClient(m.consul), log.NewNopLogger(), "order", []string{"http"}, true)
	defer instancer.Stop()
	factory := func(instance string) (endpoint.Endpoint, io.Closer, error) {
		return func(ctx context.Context, _ any) (any, error) {
			a, err := m.request(ctx, http.MethodGet, "http://"+instance+"/orders/1", nil)
			if err != nil {
				return nil, err
			}
			if a.status != http.StatusOK || a.body != right["/orders/1"] {
				return nil, fmt.Errorf("%s answers %d %s", instance, a.status, a.body)
			}
			return instance, nil
		}, nil, nil
	}
	endpointer := sd.NewEndpointer(instancer, factory, log.NewNopLogger())
	defer endpointer.Close()
	until(t, 10*time.Second, "go-kit's endpointer finds three orders", func(context.Context) error {
		es, err := endpointer.Endpoints()
		if err == nil && len(es) != 3 {
			err = fmt.Errorf("%d endpoints", len(es))
		}
		return err
	})
	// No lb.Retry: each call counts.
	balancer := lb.NewRoundRobin(endpointer)
	served := map[any]int{}
	for range 30 {
		call, err := balancer.Endpoint()
		if err != nil {
			t.Fatal(err)
		}
		instance, err := call(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		served[instance]++
	}
	es, err := m.entries(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if n := served[fmt.Sprintf("%s:%d", e.Service.Address, e.Service.Port)]; n != 10 {
			t.Errorf("%s served %d of 30 calls; want 10 (%v)", e.Service.ID, n, served)
		}
	}
}
