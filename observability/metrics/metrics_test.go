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
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
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
	m.Server().End(t.Context(), "GET /users/{id}", http.MethodGet, 200, time.Millisecond)
	m.Server().Accepted()
	m.Server().Closed()
	m.Server().Refused()
	m.Server().Panicked()
	trace := m.Trace()
	trace.HTTP.Done(t.Context(), &httpmesh.Report{Service: "user", Outcome: outcome.OK, Elapsed: time.Millisecond, OverBudget: true, Tries: []httpmesh.Try{{Outcome: outcome.Silent}, {Outcome: outcome.OK, Beside: true}}})
	trace.HTTP.Balancer.Picked("user", false)
	trace.HTTP.Balancer.Capped("user", catalog.Instance{})
	trace.HTTP.Balancer.Ejected("user", catalog.Instance{}, outlier.Ejection{Reason: outcome.Error})
	feed := catalog.NewFeed("user")
	feed.Publish([]catalog.Instance{{ID: "a", State: catalog.StatePassing}}, time.Now())
	trace.Watch.Changed(feed.Current())
	trace.Watch.Failed("user", errors.New("refused"))
	trace.Watch.Refused("user", &catalog.InvalidError{Field: "Port"})
	trace.Watch.Missing("user", catalog.Instance{})
	trace.Watch.Answered("user", true)
	trace.Watch.Asked("fetch")
	trace.Failover.Switched("user", "dc2")
	trace.TLS.Loaded(mtls.Info{NotAfter: time.Now()})
	trace.Registration.Changed("order", "order-1", registration.StateStarting, registration.StateRegistered, "seen")
	trace.Registration.Attempted("order", "order-1", "register", nil)
	trace.Registration.Left("order", "order-1", "seen", time.Millisecond)
	m.Limiter("read", func() (int, int) { return 48, 3 })()
	m.Replays()()
	m.Degraded()()
	rpcs := m.RPCServer()
	rpcs.Begin()
	rpcs.End(t.Context(), "/user.v1.UserService/GetUser", "OK", time.Millisecond)
	rpcs.Panicked()
	m.Watch(always(discovery.Status{
		Services:      []discovery.ServiceStatus{{Service: "user", Instances: []discovery.InstanceStatus{{ID: "a"}}}},
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
	for _, f := range families {
		if !strings.HasSuffix(f.GetHelp(), ".") {
			t.Errorf("%s: its help %q is no sentence", f.GetName(), f.GetHelp())
		}
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
		m.Server().End(t.Context(), "", method, 404, time.Millisecond)
	}
	for _, service := range []string{"payroll", "stock", "user"} {
		m.Trace().HTTP.Balancer.Picked(service, false)
	}
	n, err := testutil.GatherAndCount(m.reg, "http_server_request_duration_seconds")
	if n != 1 || err != nil {
		t.Errorf("three unknown methods made %d series (%v); want 1", n, err)
	}
	expect(t, m, `
# HELP rollcall_picks_total Instances chosen to send to, by the service asked and mode: normal, or panic (none was ready, or each that was has failed the request, so one that is critical was used rather than failing it).
# TYPE rollcall_picks_total counter
rollcall_picks_total{mode="normal",peer="other",service="order"} 2
rollcall_picks_total{mode="normal",peer="user",service="order"} 1
`, "rollcall_picks_total")
}

func TestRequestIsCountedByServiceRouteMethodAndCode(t *testing.T) {
	m := newOrder(t)
	m.Server().Begin()
	m.Server().End(t.Context(), "GET /orders/{user}", http.MethodGet, 200, 3*time.Millisecond)
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
	done(t.Context(), &httpmesh.Report{Service: "user", Outcome: outcome.OK, Tries: []httpmesh.Try{
		{Outcome: outcome.Unreachable},
		{Outcome: outcome.Silent, After: outcome.Unreachable},
		{Outcome: outcome.Misdirected, Beside: true},
		{Outcome: outcome.OK, Beside: true, After: outcome.Misdirected},
	}})
	done(t.Context(), &httpmesh.Report{Service: "user", Outcome: outcome.NoInstance})
	done(t.Context(), &httpmesh.Report{Service: "user", Outcome: outcome.Gateway, Tries: []httpmesh.Try{{Outcome: outcome.Gateway}}, OverBudget: true})
	expect(t, m, `
# HELP rollcall_client_beside_total Tries that ran beside others of the same request, one of which had no answer within the patience, by the service asked.
# TYPE rollcall_client_beside_total counter
rollcall_client_beside_total{peer="user",service="order"} 2
# HELP rollcall_client_over_budget_total Requests that would have been tried again had the budget of retries paid for it, by the service asked.
# TYPE rollcall_client_over_budget_total counter
rollcall_client_over_budget_total{peer="user",service="order"} 1
# HELP rollcall_client_retries_total Tries beyond the first of a request, by the service asked and the outcome of the try before; patience for one that was begun beside a try without an answer so far.
# TYPE rollcall_client_retries_total counter
rollcall_client_retries_total{peer="user",reason="misdirected",service="order"} 1
rollcall_client_retries_total{peer="user",reason="patience",service="order"} 1
rollcall_client_retries_total{peer="user",reason="unreachable",service="order"} 1
# HELP rollcall_client_tries_total Tries at one instance, by the service asked and how the try ended: one of the outcomes of docs/explanation/choosing.md.
# TYPE rollcall_client_tries_total counter
rollcall_client_tries_total{outcome="gateway",peer="user",service="order"} 1
rollcall_client_tries_total{outcome="misdirected",peer="user",service="order"} 1
rollcall_client_tries_total{outcome="ok",peer="user",service="order"} 1
rollcall_client_tries_total{outcome="silent",peer="user",service="order"} 1
rollcall_client_tries_total{outcome="unreachable",peer="user",service="order"} 1
`, "rollcall_client_retries_total", "rollcall_client_tries_total", "rollcall_client_beside_total", "rollcall_client_over_budget_total")
}

func TestSnapshotSeriesFollowWhatIsInUse(t *testing.T) {
	m := newOrder(t)
	now := time.Now()
	var status discovery.Status
	end := m.Watch(mesh(func() discovery.Status { return status }))
	expect(t, m, "", "rollcall_instances") // no answer so far: no series

	user := discovery.ServiceStatus{Service: "user", Since: now.Add(-time.Hour), Missing: 1, Ejected: 1, RetriesLeft: 29, Instances: []discovery.InstanceStatus{
		{ID: "a", State: catalog.StatePassing, Protocol: "http", Connections: 2, InFlight: 1},
		{ID: "b", State: catalog.StatePassing, Protocol: "http", MissingUntil: now.Add(20 * time.Second)},
		{ID: "c", State: catalog.StateCritical, Protocol: "http,grpc", Ejected: &discovery.EjectionStatus{}},
		{ID: "a-grpc", State: catalog.StatePassing, Protocol: "grpc"},
	}}
	status = discovery.Status{At: now, Services: []discovery.ServiceStatus{user}}
	expect(t, m, `
# HELP rollcall_endpoint_connections Open connections to an instance, idle ones included, by its service and its ID. Of services with 200 instances at most.
# TYPE rollcall_endpoint_connections gauge
rollcall_endpoint_connections{peer="user",peer_instance="a",service="order"} 2
rollcall_endpoint_connections{peer="user",peer_instance="a-grpc",service="order"} 0
rollcall_endpoint_connections{peer="user",peer_instance="b",service="order"} 0
rollcall_endpoint_connections{peer="user",peer_instance="c",service="order"} 0
# HELP rollcall_endpoint_in_flight Requests that are an instance's load now, by its service and its ID. Of services with 200 instances at most.
# TYPE rollcall_endpoint_in_flight gauge
rollcall_endpoint_in_flight{peer="user",peer_instance="a",service="order"} 1
rollcall_endpoint_in_flight{peer="user",peer_instance="a-grpc",service="order"} 0
rollcall_endpoint_in_flight{peer="user",peer_instance="b",service="order"} 0
rollcall_endpoint_in_flight{peer="user",peer_instance="c",service="order"} 0
# HELP rollcall_endpoint_out 1 while an instance is out of use for failing, else 0, by its service and its ID. Of services with 200 instances at most.
# TYPE rollcall_endpoint_out gauge
rollcall_endpoint_out{peer="user",peer_instance="a",service="order"} 0
rollcall_endpoint_out{peer="user",peer_instance="a-grpc",service="order"} 0
rollcall_endpoint_out{peer="user",peer_instance="b",service="order"} 0
rollcall_endpoint_out{peer="user",peer_instance="c",service="order"} 1
`, "rollcall_endpoint_connections", "rollcall_endpoint_in_flight", "rollcall_endpoint_out")
	expect(t, m, `
# HELP rollcall_instances Instances in the last answer of Consul, one for each port that is registered, by the service followed, their state there and the protocol that they speak: http or grpc; one that speaks both counts for each.
# TYPE rollcall_instances gauge
rollcall_instances{peer="user",protocol="grpc",service="order",state="critical"} 1
rollcall_instances{peer="user",protocol="grpc",service="order",state="draining"} 0
rollcall_instances{peer="user",protocol="grpc",service="order",state="maintenance"} 0
rollcall_instances{peer="user",protocol="grpc",service="order",state="passing"} 1
rollcall_instances{peer="user",protocol="grpc",service="order",state="warning"} 0
rollcall_instances{peer="user",protocol="http",service="order",state="critical"} 1
rollcall_instances{peer="user",protocol="http",service="order",state="draining"} 0
rollcall_instances{peer="user",protocol="http",service="order",state="maintenance"} 0
rollcall_instances{peer="user",protocol="http",service="order",state="passing"} 1
rollcall_instances{peer="user",protocol="http",service="order",state="warning"} 0
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
		"rollcall_retry_budget_left":         29,
		"rollcall_failover_active":           0,
	})
	user.Proven, user.Error, user.FromDisk, user.FailedOverTo = now.Add(-10*time.Second), "connection refused", true, "dc2"
	status.Services = []discovery.ServiceStatus{user}
	gauges(map[string]float64{
		"rollcall_snapshot_age_seconds": 10,
		"rollcall_snapshot_failing":     1,
		"rollcall_snapshot_from_disk":   1,
		"rollcall_failover_active":      1,
	})

	end()
	expect(t, m, "", "rollcall_instances", "rollcall_instances_missing", "rollcall_snapshot_age_seconds", "rollcall_endpoint_connections")
}

func TestServicesThatShareALabelAreSummedUp(t *testing.T) {
	m := newOrder(t)
	one := []discovery.InstanceStatus{{ID: "a", State: catalog.StatePassing}}
	m.Watch(always(discovery.Status{Services: []discovery.ServiceStatus{
		{Service: "stock", Instances: one}, {Service: "payroll", Instances: one},
	}}))
	if n := value(t, m, `rollcall_instances{peer="other",protocol="http",service="order",state="passing"}`); n != 2 {
		t.Errorf("%v passing instances of other services; want 2", n)
	}
}

func TestInstancesHaveSeriesOfTheirOwnIfThereAreTwoHundredAtMostOfAPeer(t *testing.T) {
	for instances, want := range map[int]int{200: 200, 201: 0} {
		var all []discovery.InstanceStatus
		for n := range instances {
			all = append(all, discovery.InstanceStatus{ID: strconv.Itoa(n), State: catalog.StatePassing})
		}
		m := newOrder(t)
		m.Watch(always(discovery.Status{Services: []discovery.ServiceStatus{
			{Service: "user", Instances: all}, {Service: "stock", Instances: all[:1]},
		}}))
		if n, err := testutil.GatherAndCount(m.reg, "rollcall_endpoint_connections"); n != want || err != nil {
			t.Errorf("%d series of %d instances of user and one of stock, which is no peer (%v); want %d", n, instances, err, want)
		}
	}
}

// Two nodes may have the same ID, and a registry refuses all for two series that are one.
func TestInstancesOfOneIDAreOneSeries(t *testing.T) {
	m := newOrder(t)
	m.Watch(always(discovery.Status{Services: []discovery.ServiceStatus{{Service: "user", Instances: []discovery.InstanceStatus{
		{ID: "a\xff", Addr: "10.0.0.1:80", Connections: 1}, {ID: "a\xff", Addr: "10.0.0.2:80", Connections: 2, Ejected: &discovery.EjectionStatus{}},
	}}}}))
	for name, want := range map[string]float64{"connections": 3, "out": 1} {
		if got := value(t, m, "rollcall_endpoint_"+name+"{peer=\"user\",peer_instance=\"a\uFFFD\",service=\"order\"}"); got != want {
			t.Errorf("%s is %v; want %v", name, got, want)
		}
	}
}

func TestSeriesOfAForgottenServiceVanish(t *testing.T) {
	m := newOrder(t)
	trace := m.Trace().Watch
	trace.Failed("user", errors.New("refused"))
	trace.Failed("stock", errors.New("refused"))
	trace.Answered("user", true)
	trace.Answered("stock", true)
	trace.Forgot("user")
	trace.Forgot("stock")
	expect(t, m, `
# HELP rollcall_watch_answers_total Answers of Consul with all instances of a service that were read and believed, by the service followed and result: changed (it brought a new set), unchanged.
# TYPE rollcall_watch_answers_total counter
rollcall_watch_answers_total{peer="other",result="changed",service="order"} 1
# HELP rollcall_watch_errors_total Questions to Consul that failed or whose answer was not believed, by the service followed. The last good set stays in use.
# TYPE rollcall_watch_errors_total counter
rollcall_watch_errors_total{peer="other",service="order"} 1
`, "rollcall_watch_errors_total", "rollcall_watch_answers_total")
}

func TestWhatIsToldIsCountedUnderItsName(t *testing.T) {
	m := newOrder(t)
	trace := m.Trace()
	for range 3 {
		trace.Watch.Answered("user", false)
	}
	trace.Watch.Answered("user", true)
	trace.Watch.Asked("block")
	trace.Watch.Asked("block")
	for _, datacenter := range []string{"dc2", "dc3", ""} {
		trace.Failover.Switched("user", datacenter)
	}
	trace.HTTP.Balancer.Capped("user", catalog.Instance{})
	trace.Registration.Left("order", "order-1", "settled", 500*time.Millisecond)
	for series, want := range map[string]float64{
		`rollcall_watch_answers_total{peer="user",result="unchanged",service="order"}`: 3,
		`rollcall_watch_answers_total{peer="user",result="changed",service="order"}`:   1,
		`rollcall_consul_questions_total{op="block",service="order"}`:                  2,
		`rollcall_failover_switches_total{peer="user",service="order",to="away"}`:      2,
		`rollcall_failover_switches_total{peer="user",service="order",to="home"}`:      1,
		`rollcall_ejections_refused_total{peer="user",service="order"}`:                1,
		`rollcall_registration_leaving_seconds_sum{service="order",step="settled"}`:    0.5,
	} {
		if got := value(t, m, series); got != want {
			t.Errorf("%s is %v; want %v", series, got, want)
		}
	}
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
# HELP rollcall_registration_transitions_total Changes of the state that this process's own entries in Consul are in, by their service, the state they left and the one they came to. From registered to recovering is an entry that was lost, or a Consul that went away.
# TYPE rollcall_registration_transitions_total counter
rollcall_registration_transitions_total{from="recovering",service="order",to="registered"} 2
rollcall_registration_transitions_total{from="registered",service="order",to="recovering"} 2
rollcall_registration_transitions_total{from="starting",service="order",to="registered"} 1
`, "rollcall_registration_transitions_total")
}
