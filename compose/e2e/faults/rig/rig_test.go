package rig

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const scrape = `# HELP rollcall_picks_total Instances chosen.
# TYPE rollcall_picks_total counter
rollcall_picks_total{mode="normal",peer="order"} 12
rollcall_picks_total{mode="panic",peer="order"} 3
rollcall_picks_total{mode="panic",peer="user"} 4.5e+01 1700000000000
http_server_request_duration_seconds_bucket{route="GET /orders/{user}",le="+Inf"} 7
go_goroutines 42
broken{
`

func TestMetricsAreSummedByLabels(t *testing.T) {
	m := parse(scrape)
	if len(m) != 5 {
		t.Fatalf("%d series: %v; want 5", len(m), m)
	}
	for _, c := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{3, "rollcall_picks_total", []string{`peer="order"`, `mode="panic"`}},
		{15, "rollcall_picks_total", []string{`peer="order"`}},
		{60, "rollcall_picks_total", nil},
		{42, "go_goroutines", nil},
		{0, "rollcall_picks_total", []string{`peer="ord"`}},
		{7, "http_server_request_duration_seconds_bucket", nil},
	} {
		if got := m.Sum(c.name, c.labels...); got != c.want {
			t.Errorf("%s %v is %v; want %v", c.name, c.labels, got, c.want)
		}
	}
	if !m.Has("go_goroutines") || m.Has("go_gorout") {
		t.Error("Has takes a part of a name for a name")
	}
	if got := m[3].Label("route"); got != "GET /orders/{user}" {
		t.Errorf("route is %q", got)
	}
}

func TestUntilReturnsTheLastErrorThatIsNotTheTimes(t *testing.T) {
	cause := errors.New("two of three")
	err := Until(t.Context(), 100*time.Millisecond, "the fleet settles", func(ctx context.Context) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return cause
	})
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "the fleet settles") {
		t.Errorf("got %v; want what and %v", err, cause)
	}
	n := 0
	if err := Until(t.Context(), time.Minute, "x", func(context.Context) error {
		if n++; n < 3 {
			return cause
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%v after %d times; want nil after 3", err, n)
	}
}

// consul answers /v1/health/service/… with entries that have so many checks of their own, of that status.
func consul(t *testing.T, checks map[string][]int, status string) *Rig {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		type check struct{ ServiceID, Status, CheckID string }
		type entry struct {
			Service struct{ ID, Address string }
			Checks  []check
		}
		es := []entry{}
		service := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		for i, n := range checks[service] {
			var e entry
			e.Service.ID = service + strconv.Itoa(i)
			for c := range n {
				e.Checks = append(e.Checks, check{e.Service.ID, status, strconv.Itoa(c)})
			}
			es = append(es, e)
		}
		_ = json.NewEncoder(w).Encode(es)
	}))
	t.Cleanup(s.Close)
	port, err := strconv.Atoi(s.URL[strings.LastIndexByte(s.URL, ':')+1:])
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(&fleet.Fleet{Ports: fleet.Ports{Consul: port}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func TestPassingWantsEachEntryWithBothItsChecks(t *testing.T) {
	want := map[string]int{"order": 2}
	for _, c := range []struct {
		name   string
		checks []int
		status string
		ok     bool
	}{
		{"two whole ones", []int{2, 2}, "passing", true},
		{"one lost a check", []int{2, 1}, "passing", false},
		{"one too many", []int{2, 2, 2}, "passing", false},
		{"critical", []int{2, 2}, "critical", false},
		{"none", nil, "passing", false},
	} {
		err := consul(t, map[string][]int{"order": c.checks}, c.status).Passing(t.Context(), want)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v; want no error: %v", c.name, err, c.ok)
		}
	}
}
