package metrics_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newOrder() *metrics.Metrics {
	return metrics.New(metrics.Config{Service: "order", Version: "1.2.3", Peers: []string{"user"}})
}

// feeds is a Follower whose snapshots are given.
type feeds []*catalog.Feed

func (f feeds) Snapshots() []*catalog.Snapshot {
	var all []*catalog.Snapshot
	for _, feed := range f {
		if s := feed.Current(); s != nil {
			all = append(all, s)
		}
	}
	return all
}

func (f feeds) Balancer(string) *balancer.Balancer { return nil }

// everything makes each metric have at least one series.
func everything(t *testing.T, m *metrics.Metrics) {
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
	m.Watch(feeds{feed})
}

func TestEveryMetricIsNamedAndExplainedByTheRules(t *testing.T) {
	m := newOrder()
	everything(t, m)
	problems, err := testutil.GatherAndLint(m.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := m.Gatherer().Gather()
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
	if ours != 26 {
		t.Errorf("%d metrics of ours; want 26 (a new one belongs into everything above, and into the reference)", ours)
	}
}

func expect(t *testing.T, m *metrics.Metrics, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestUnknownMethodsAndPeersAreOneSeriesEach(t *testing.T) {
	m := newOrder()
	for _, method := range []string{"BREW", "PROPFIND", "get"} {
		m.Server().Begin()
		m.Server().End("", method, 404, time.Millisecond)
	}
	for _, service := range []string{"payroll", "stock", "user"} {
		m.Trace().HTTP.Balancer.Picked(service, false)
	}
	n, err := testutil.GatherAndCount(m.Gatherer(), "http_server_request_duration_seconds")
	if n != 1 || err != nil {
		t.Errorf("three unknown methods made %d series (%v); want 1", n, err)
	}
	expect(t, m, `
# HELP rollcall_picks_total Instances chosen to send to, by the service asked and mode: normal, or panic (none was ready, so those that are critical were used rather than failing everything).
# TYPE rollcall_picks_total counter
rollcall_picks_total{mode="normal",peer="other"} 2
rollcall_picks_total{mode="normal",peer="user"} 1
`, "rollcall_picks_total")
}

func TestRequestIsCountedByServiceRouteMethodAndCode(t *testing.T) {
	m := newOrder()
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
	m := newOrder()
	everything(t, m)
	families, err := m.Gatherer().Gather()
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
	m := newOrder()
	done := m.Trace().HTTP.Done
	done(&httpmesh.Report{Service: "user", Outcome: outcome.OK, Tries: []httpmesh.Try{{Outcome: outcome.Unreachable}, {Outcome: outcome.Misdirected}, {Outcome: outcome.OK}}})
	done(&httpmesh.Report{Service: "user", Outcome: outcome.NoInstance})
	expect(t, m, `
# HELP rollcall_client_retries_total Tries beyond the first of a request, by the service asked.
# TYPE rollcall_client_retries_total counter
rollcall_client_retries_total{peer="user"} 2
# HELP rollcall_client_tries_total Tries at one instance, by the service asked and how the try ended: one of the outcomes of docs/explanation/choosing.md.
# TYPE rollcall_client_tries_total counter
rollcall_client_tries_total{outcome="misdirected",peer="user"} 1
rollcall_client_tries_total{outcome="ok",peer="user"} 1
rollcall_client_tries_total{outcome="unreachable",peer="user"} 1
`, "rollcall_client_retries_total", "rollcall_client_tries_total")
}

func TestSnapshotSeriesFollowWhatIsInUse(t *testing.T) {
	m := newOrder()
	feed := catalog.NewFeed("user")
	m.Watch(feeds{feed})
	expect(t, m, "", "rollcall_instances") // no answer so far: no series

	feed.Publish([]catalog.Instance{
		{ID: "a", State: catalog.StatePassing},
		{ID: "b", State: catalog.StatePassing, MissingUntil: time.Now().Add(time.Hour)},
		{ID: "c", State: catalog.StateCritical},
	}, time.Now().Add(-time.Hour))
	const instances = `
# HELP rollcall_instances Instances in the last answer of Consul, by the service followed and their state there.
# TYPE rollcall_instances gauge
rollcall_instances{peer="user",state="critical"} 1
rollcall_instances{peer="user",state="draining"} 0
rollcall_instances{peer="user",state="maintenance"} 0
rollcall_instances{peer="user",state="passing"} 1
rollcall_instances{peer="user",state="warning"} 0
# HELP rollcall_instances_missing Instances that vanished from Consul's answer and are still used for a while, by the service followed.
# TYPE rollcall_instances_missing gauge
rollcall_instances_missing{peer="user"} 1
`
	expect(t, m, instances, "rollcall_instances", "rollcall_instances_missing")
	if age := value(t, m, `rollcall_snapshot_age_seconds{peer="user"}`); age < 3600 || age > 3700 {
		t.Errorf("age is %v s; want the hour since the set came, which nothing has proven", age)
	}
	feed.Confirm(time.Now())
	feed.Fail(errors.New("connection refused"))
	if age := value(t, m, `rollcall_snapshot_age_seconds{peer="user"}`); age > 60 {
		t.Errorf("age is %v s; want the time since the proof", age)
	}
	if failing := value(t, m, `rollcall_snapshot_failing{peer="user"}`); failing != 1 {
		t.Errorf("failing is %v; want 1", failing)
	}

	if left := value(t, m, `rollcall_instances_missing_seconds{peer="user"}`); left < 3500 || left > 3600 {
		t.Errorf("missing for %v s still; want the hour that b has left", left)
	}
	if disk := value(t, m, `rollcall_snapshot_from_disk{peer="user"}`); disk != 0 {
		t.Errorf("from disk is %v; want 0", disk)
	}
	feed.Fail(fmt.Errorf("%w: refused", catalog.ErrFromDisk))
	if disk := value(t, m, `rollcall_snapshot_from_disk{peer="user"}`); disk != 1 {
		t.Errorf("from disk is %v; want 1", disk)
	}

	feed.Close(nil)
	expect(t, m, "", "rollcall_instances", "rollcall_instances_missing", "rollcall_snapshot_age_seconds")
}

func TestServicesThatShareALabelAreSummedUp(t *testing.T) {
	m := newOrder()
	stock, payroll := catalog.NewFeed("stock"), catalog.NewFeed("payroll")
	stock.Publish([]catalog.Instance{{ID: "a", State: catalog.StatePassing}}, time.Now())
	payroll.Publish([]catalog.Instance{{ID: "b", State: catalog.StatePassing}}, time.Now())
	m.Watch(feeds{stock, payroll})
	if n := value(t, m, `rollcall_instances{peer="other",state="passing"}`); n != 2 {
		t.Errorf("%v passing instances of other services; want 2", n)
	}
}

func TestSeriesOfAForgottenServiceVanish(t *testing.T) {
	m := newOrder()
	trace := m.Trace().Watch
	trace.Failed("user", errors.New("refused"))
	trace.Failed("stock", errors.New("refused"))
	trace.Forgot("user")
	trace.Forgot("stock")
	expect(t, m, `
# HELP rollcall_watch_errors_total Questions to Consul that failed or whose answer was not believed, by the service followed. The last good set stays in use.
# TYPE rollcall_watch_errors_total counter
rollcall_watch_errors_total{peer="other"} 1
`, "rollcall_watch_errors_total")
}

func TestRegistrationIsInOneState(t *testing.T) {
	m := newOrder()
	trace := m.Trace().Registration
	trace.Changed("order", "order-1", registration.StateStarting, registration.StateRegistered, "seen")
	trace.Changed("order", "order-1", registration.StateRegistered, registration.StateRecovering, "gone")
	trace.Attempted("order", "order-1", "beat", errors.New("500"))
	expect(t, m, `
# HELP rollcall_registration_attempts_total Calls to Consul about this instance's own entry, by what was asked (register, deregister, beat, look) and whether it worked: ok or error.
# TYPE rollcall_registration_attempts_total counter
rollcall_registration_attempts_total{op="beat",outcome="error"} 1
# HELP rollcall_registration_state 1 for the state that this instance's entry in Consul is in, 0 for the others: starting, registered, recovering (being mended), draining, deregistered.
# TYPE rollcall_registration_state gauge
rollcall_registration_state{state="recovering"} 1
rollcall_registration_state{state="draining"} 0
rollcall_registration_state{state="deregistered"} 0
rollcall_registration_state{state="registered"} 0
rollcall_registration_state{state="starting"} 0
`, "rollcall_registration_attempts_total", "rollcall_registration_state")
}

func TestScrapeSpeaksOpenMetricsToThoseWhoAsk(t *testing.T) {
	m := newOrder()
	everything(t, m)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	if got := w.Header().Get("Content-Type"); w.Code != 200 || !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("got %d %s; want 200 and OpenMetrics", w.Code, got)
	}
	for _, want := range []string{
		`rollcall_build_info{goversion="go`, `version="1.2.3"} 1`, "go_goroutines ", "process_open_fds ",
		`http_server_request_duration_seconds_bucket{code="200",method="GET",route="GET /users/{id}",service="order",le="0.001"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

// page returns what a scraper that asks for plain text reads.
func page(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// value returns the value of one series, written as on the page.
func value(t *testing.T, m *metrics.Metrics, series string) float64 {
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
	m := newOrder()
	changed := m.Trace().Registration.Changed
	changed("order", "order-1", registration.StateStarting, registration.StateRegistered, "seen")
	for range 2 {
		changed("order", "order-1", registration.StateRegistered, registration.StateRecovering, "vanished")
		changed("order", "order-1", registration.StateRecovering, registration.StateRegistered, "seen")
	}
	expect(t, m, `
# HELP rollcall_registration_transitions_total Changes of the state that this instance's entry in Consul is in, by the state it left and the one it came to.
# TYPE rollcall_registration_transitions_total counter
rollcall_registration_transitions_total{from="recovering",to="registered"} 2
rollcall_registration_transitions_total{from="registered",to="recovering"} 2
rollcall_registration_transitions_total{from="starting",to="registered"} 1
`, "rollcall_registration_transitions_total")
}
