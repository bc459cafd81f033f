package metrics_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

func lint(t *testing.T, reg prometheus.Gatherer) {
	t.Helper()
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestTwoMeshesOfTwoServicesShareARegistryAndOverwriteNothing(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector()) // the program's own
	a, b := in(t, reg, "order"), in(t, reg, "stock")
	for n, m := range []*metrics.Metrics{a, b} {
		all := order{m, reg}
		everything(t, all)
		m.Server().Begin() // one more than everything leaves
		if got := value(t, all, `http_server_requests_in_flight{service="`+[]string{"order", "stock"}[n]+`"}`); got != 1 {
			t.Errorf("%v in flight; want 1 for each service", got)
		}
	}
	for _, service := range []string{"order", "stock"} {
		if got := value(t, order{a, reg}, `rollcall_snapshot_failing{peer="user",service="`+service+`"}`); got != 0 {
			t.Errorf("%s: failing is %v; want 0", service, got)
		}
	}
	lint(t, reg)
}

func TestTwoMeshesOfOneServiceAddUp(t *testing.T) {
	reg := prometheus.NewRegistry()
	one := always(discovery.Status{Services: []discovery.ServiceStatus{
		{Service: "user", Instances: []discovery.InstanceStatus{{State: catalog.StatePassing}}},
	}})
	a, b := in(t, reg, "order"), in(t, reg, "order")
	endA := a.Watch(one)
	b.Watch(one)
	a.Trace().HTTP.Balancer.Picked("user", false)
	b.Trace().HTTP.Balancer.Picked("user", false)
	m := order{a, reg}
	if got := value(t, m, `rollcall_picks_total{mode="normal",peer="user",service="order"}`); got != 2 {
		t.Errorf("%v picks; want those of both", got)
	}
	const passing = `rollcall_instances{peer="user",protocol="http",service="order",state="passing"}`
	if got := value(t, m, passing); got != 2 {
		t.Errorf("%v instances; want those of both", got)
	}
	endA()
	if got := value(t, m, passing); got != 1 {
		t.Errorf("%v instances after one of them is read no more; want 1", got)
	}
	lint(t, reg)
}

func TestMeshesThatAWrappedRegistryNamesAreApart(t *testing.T) {
	reg := prometheus.NewRegistry()
	for n, name := range []string{"eu", "us"} {
		named := prometheus.WrapRegistererWith(prometheus.Labels{"mesh": name}, reg)
		for range n + 1 {
			in(t, named, "order").Trace().HTTP.Balancer.Picked("user", false)
		}
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP rollcall_picks_total Instances chosen to send to, by the service asked and mode: normal, or panic (none was ready, or each that was has failed the request, so one that is critical was used rather than failing it).
# TYPE rollcall_picks_total counter
rollcall_picks_total{mesh="eu",mode="normal",peer="user",service="order"} 1
rollcall_picks_total{mesh="us",mode="normal",peer="user",service="order"} 2
`), "rollcall_picks_total"); err != nil {
		t.Error(err)
	}
	lint(t, reg)
}

func TestForeignMetricOfTheSameNameIsAnErrorAndLeavesNothingBehind(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "rollcall_picks_total", Help: "Another's."}))
	if _, err := metrics.New(metrics.Config{Registerer: reg}); err == nil || !strings.Contains(err.Error(), "rollcall_picks_total") {
		t.Errorf("got %v; want an error that names the metric", err)
	}
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Errorf("got %d families (%v); want the other's one", len(families), err)
	}
}
