package metrics_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// order is the metrics of a process of the service order, and the registry that
// they are in.
type order struct {
	*metrics.Metrics
	reg *prometheus.Registry
}

func newOrder(t *testing.T) order {
	t.Helper()
	reg := prometheus.NewRegistry()
	return order{in(t, reg, "order"), reg}
}

func in(t *testing.T, reg prometheus.Registerer, service string) *metrics.Metrics {
	t.Helper()
	m, err := metrics.New(metrics.Config{Registerer: reg, Service: service, Version: "1.2.3", Peers: []string{"user"}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// mesh is a Mesh whose status is given.
type mesh func() discovery.Status

func (m mesh) Status() discovery.Status { return m() }

func always(s discovery.Status) mesh { return func() discovery.Status { return s } }

// everything makes each metric have at least one series.
func everything(t *testing.T, m order) {
	t.Helper()
	m.Server().Begin()
	m.Server().End("GET /users/{id}", http.MethodGet, 200, time.Millisecond)
	m.Server().Accepted()
	m.Server().Closed()
	m.Server().Refused()
	m.Server().Panicked()
	trace := m.Trace()
	trace.HTTP.Done(&httpmesh.Report{Service: "user", Outcome: outcome.OK, Elapsed: time.Millisecond, Tries: []httpmesh.Try{{Outcome: outcome.Unreachable}, {Outcome: outcome.OK}}})
	trace.HTTP.Balancer.Picked("user", false)
	trace.HTTP.Balancer.Ejected("user", catalog.Instance{}, outlier.Ejection{Reason: outcome.Error})
	feed := catalog.NewFeed("user")
	feed.Publish([]catalog.Instance{{ID: "a", State: catalog.StatePassing}}, time.Now())
	trace.Watch.Changed(feed.Current())
	trace.Watch.Failed("user", errors.New("refused"))
	trace.Watch.Refused("user", &catalog.InvalidError{Field: "Port"})
	trace.Watch.Missing("user", catalog.Instance{})
	trace.Registration.Changed("order", "order-1", registration.StateStarting, registration.StateRegistered, "seen")
	trace.Registration.Attempted("order", "order-1", "register", nil)
	m.Limiter("read", func() (int, int) { return 48, 3 })()
	m.Replays()()
	m.Watch(always(discovery.Status{
		Services:      []discovery.ServiceStatus{{Service: "user"}},
		Registrations: []discovery.RegistrationStatus{{Service: "order", ID: "order-1"}},
	}))
}

func TestEveryMetricIsNamedAndExplainedByTheRules(t *testing.T) {
	m := newOrder(t)
	everything(t, m)
	problems, err := testutil.GatherAndLint(m.reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "rollcall_") || strings.HasPrefix(f.GetName(), "http_server_") {
			ours++
			if !strings.HasSuffix(f.GetHelp(), ".") {
				t.Errorf("%s: its help %q is no sentence", f.GetName(), f.GetHelp())
			}
		}
	}
	if ours != 31 {
		t.Errorf("%d metrics of ours; want 31 (a new one belongs into everything above, and into the reference)", ours)
	}
}

func expect(t *testing.T, m order, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(m.reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestUnknownMethodsAndPeersAreOneSeriesEach(t *testing.T) {
	m := newOrder(t)
	for _, method := range []string{"BREW", "PROPFIND", "get"} {
		m.Server().Begin()
		m.Server().End("", method, 404, time.Millisecond)
	}
	for _, service := range []string{"payroll", "stock", "user"} {
		m.Trace().HTTP.Balancer.Picked(service, false)
	}
	n, err := testutil.GatherAndCount(m.reg, "http_server_request_duration_seconds")
	if n != 1 || err != nil {
		t.Errorf("three unknown methods made %d series (%v); want 1", n, err)
	}
	expect(t, m, `
# HELP rollcall_picks_total Instances chosen to send to, by the service asked and mode: normal, or panic (none was ready, so those that are critical were used rather than failing everything).
# TYPE rollcall_picks_total counter
rollcall_picks_total{mode="normal",peer="other",service="order"} 2
rollcall_picks_total{mode="normal",peer="user",service="order"} 1
`, "rollcall_picks_total")
}

func TestRequestIsCountedByServiceRouteMethodAndCode(t *testing.T) {
	m := newOrder(t)
	m.Server().Begin()
	m.Server().End("GET /orders/{user}", http.MethodGet, 200, 3*time.Millisecond)
	m.Server().Begin() // still being served
	series := `{code="200",method="GET",route="GET /orders/{user}",service="order"}`
	if n := value(t, m, "http_server_request_duration_seconds_count"+series); n != 1 {
		t.Errorf("%v requests; want 1", n)
	}
	if n := value(t, m, `http_server_requests_in_flight{service="order"}`); n != 1 {
		t.Errorf("%v requests in flight; want 1", n)
	}
}

func TestDurationsAreNativeAndClassicHistograms(t *testing.T) {
	m := newOrder(t)
	everything(t, m)
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		if !strings.HasSuffix(f.GetName(), "_request_duration_seconds") {
			continue
		}
		seen++
		h := f.GetMetric()[0].GetHistogram()
		if len(h.GetBucket()) != 13 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("%s has %d classic buckets and %d native spans; want 13 and some", f.GetName(), len(h.GetBucket()), len(h.GetPositiveSpan()))
		}
	}
	if seen != 2 {
		t.Errorf("%d histograms; want the server's and the client's", seen)
	}
}

func TestTriesAndRetriesOfARequestAreCounted(t *testing.T) {
	m := newOrder(t)
	done := m.Trace().HTTP.Done
	done(&httpmesh.Report{Service: "user", Outcome: outcome.OK, Tries: []httpmesh.Try{{Outcome: outcome.Unreachable}, {Outcome: outcome.Misdirected}, {Outcome: outcome.OK}}})
	done(&httpmesh.Report{Service: "user", Outcome: outcome.NoInstance})
	expect(t, m, `
# HELP rollcall_client_retries_total Tries beyond the first of a request, by the service asked.
# TYPE rollcall_client_retries_total counter
rollcall_client_retries_total{peer="user",service="order"} 2
# HELP rollcall_client_tries_total Tries at one instance, by the service asked and how the try ended: one of the outcomes of docs/explanation/choosing.md.
# TYPE rollcall_client_tries_total counter
rollcall_client_tries_total{outcome="misdirected",peer="user",service="order"} 1
rollcall_client_tries_total{outcome="ok",peer="user",service="order"} 1
rollcall_client_tries_total{outcome="unreachable",peer="user",service="order"} 1
`, "rollcall_client_retries_total", "rollcall_client_tries_total")
}

func TestSnapshotSeriesFollowWhatIsInUse(t *testing.T) {
	m := newOrder(t)
	now := time.Now()
	var status discovery.Status
	end := m.Watch(mesh(func() discovery.Status { return status }))
	expect(t, m, "", "rollcall_instances") // no answer so far: no series

	user := discovery.ServiceStatus{Service: "user", Since: now.Add(-time.Hour), Missing: 1, Ejected: 1, Instances: []discovery.InstanceStatus{
		{ID: "a", State: catalog.StatePassing},
		{ID: "b", State: catalog.StatePassing, MissingUntil: now.Add(20 * time.Second)},
		{ID: "c", State: catalog.StateCritical},
	}}
	status = discovery.Status{At: now, Services: []discovery.ServiceStatus{user}}
	expect(t, m, `
# HELP rollcall_instances Instances in the last answer of Consul, by the service followed and their state there.
# TYPE rollcall_instances gauge
rollcall_instances{peer="user",service="order",state="critical"} 1
rollcall_instances{peer="user",service="order",state="draining"} 0
rollcall_instances{peer="user",service="order",state="maintenance"} 0
rollcall_instances{peer="user",service="order",state="passing"} 1
rollcall_instances{peer="user",service="order",state="warning"} 0
# HELP rollcall_instances_missing Instances that vanished from Consul's answer and are still used for a while, by the service followed.
# TYPE rollcall_instances_missing gauge
rollcall_instances_missing{peer="user",service="order"} 1
`, "rollcall_instances", "rollcall_instances_missing")
	const labels = `{peer="user",service="order"}`
	gauges := func(want map[string]float64) {
		t.Helper()
		for name, want := range want {
			if got := value(t, m, name+labels); got != want {
				t.Errorf("%s is %v; want %v", name, got, want)
			}
		}
	}
	gauges(map[string]float64{
		"rollcall_snapshot_age_seconds":      3600, // since the set came: nothing has proven it
		"rollcall_snapshot_failing":          0,
		"rollcall_snapshot_from_disk":        0,
		"rollcall_instances_ejected":         1,
		"rollcall_instances_missing_seconds": 20,
	})
	user.Proven, user.Error, user.FromDisk = now.Add(-10*time.Second), "connection refused", true
	status.Services = []discovery.ServiceStatus{user}
	gauges(map[string]float64{
		"rollcall_snapshot_age_seconds": 10,
		"rollcall_snapshot_failing":     1,
		"rollcall_snapshot_from_disk":   1,
	})

	end()
	expect(t, m, "", "rollcall_instances", "rollcall_instances_missing", "rollcall_snapshot_age_seconds")
}

func TestServicesThatShareALabelAreSummedUp(t *testing.T) {
	m := newOrder(t)
	one := []discovery.InstanceStatus{{ID: "a", State: catalog.StatePassing}}
	m.Watch(always(discovery.Status{Services: []discovery.ServiceStatus{
		{Service: "stock", Instances: one}, {Service: "payroll", Instances: one},
	}}))
	if n := value(t, m, `rollcall_instances{peer="other",service="order",state="passing"}`); n != 2 {
		t.Errorf("%v passing instances of other services; want 2", n)
	}
}

func TestSeriesOfAForgottenServiceVanish(t *testing.T) {
	m := newOrder(t)
	trace := m.Trace().Watch
	trace.Failed("user", errors.New("refused"))
	trace.Failed("stock", errors.New("refused"))
	trace.Forgot("user")
	trace.Forgot("stock")
	expect(t, m, `
# HELP rollcall_watch_errors_total Questions to Consul that failed or whose answer was not believed, by the service followed. The last good set stays in use.
# TYPE rollcall_watch_errors_total counter
rollcall_watch_errors_total{peer="other",service="order"} 1
`, "rollcall_watch_errors_total")
}

func TestRegistrationsOfAProcessAreCountedByServiceAndState(t *testing.T) {
	m := newOrder(t)
	m.Watch(always(discovery.Status{Registrations: []discovery.RegistrationStatus{
		{Service: "order", ID: "order-1", State: registration.StateRegistered},
		{Service: "order", ID: "order-2", State: registration.StateRegistered, Loopback: true},
		{Service: "order", ID: "order-3", State: registration.StateStarting},
		{Service: "stock", ID: "stock-1", State: registration.StateDraining},
	}}))
	for service, want := range map[string]float64{"order": 1, "stock": 0} {
		if got := value(t, m, `rollcall_registration_loopback{service="`+service+`"}`); got != want {
			t.Errorf("%v of %s at a loopback; want %v", got, service, want)
		}
	}
	for series, want := range map[string]float64{
		`{service="order",state="registered"}`: 2,
		`{service="order",state="starting"}`:   1,
		`{service="order",state="draining"}`:   0,
		`{service="stock",state="draining"}`:   1,
		`{service="stock",state="registered"}`: 0,
	} {
		if got := value(t, m, "rollcall_registration_state"+series); got != want {
			t.Errorf("%s is %v; want %v", series, got, want)
		}
	}
	trace := m.Trace().Registration
	trace.Attempted("order", "order-1", "register", nil)
	trace.Attempted("order", "order-2", "register", errors.New("500"))
	trace.Attempted("stock", "stock-1", "register", nil)
	trace.Attempted("", "", "hold", nil) // for all of the process
	for series, want := range map[string]float64{
		`{op="register",outcome="ok",service="order"}`:    1,
		`{op="register",outcome="error",service="order"}`: 1,
		`{op="register",outcome="ok",service="stock"}`:    1,
		`{op="hold",outcome="ok",service="order"}`:        1,
	} {
		if got := value(t, m, "rollcall_registration_attempts_total"+series); got != want {
			t.Errorf("%s is %v; want %v", series, got, want)
		}
	}
}

// page returns what a scraper reads.
func page(t *testing.T, m order) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// value returns the value of one series, written as on the page.
func value(t *testing.T, m order, series string) float64 {
	t.Helper()
	for line := range strings.Lines(page(t, m)) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no %s", series)
	return 0
}

func TestEachChangeOfTheRegistrationIsCounted(t *testing.T) {
	m := newOrder(t)
	changed := m.Trace().Registration.Changed
	changed("order", "order-1", registration.StateStarting, registration.StateRegistered, "seen")
	for range 2 {
		changed("order", "order-1", registration.StateRegistered, registration.StateRecovering, "vanished")
		changed("order", "order-1", registration.StateRecovering, registration.StateRegistered, "seen")
	}
	expect(t, m, `
# HELP rollcall_registration_transitions_total Changes of the state that this process's own entries in Consul are in, by their service, the state they left and the one they came to.
# TYPE rollcall_registration_transitions_total counter
rollcall_registration_transitions_total{from="recovering",service="order",to="registered"} 2
rollcall_registration_transitions_total{from="registered",service="order",to="recovering"} 2
rollcall_registration_transitions_total{from="starting",service="order",to="registered"} 1
`, "rollcall_registration_transitions_total")
}
