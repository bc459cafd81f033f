package web_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// oneService is a mesh that follows user.
type oneService struct {
	feed *catalog.Feed
	b    *balancer.Balancer
}

func (m oneService) Snapshots() []*catalog.Snapshot { return []*catalog.Snapshot{m.feed.Current()} }

func (m oneService) Balancer(string) *balancer.Balancer { return m.b }

func TestDiscoveryPageTellsWhatIsInUseAndWhoIsMissing(t *testing.T) {
	now := time.Now()
	m := oneService{feed: catalog.NewFeed("user"), b: balancer.New("user", balancer.Config{})}
	m.feed.Publish([]catalog.Instance{
		{ID: "a", Service: "user", Host: "10.0.0.1", Port: 80, Weight: 1, State: catalog.StatePassing},
		{ID: "b", Service: "user", Host: "::1", Port: 80, Weight: 1, State: catalog.StateCritical, Reason: "refused"},
		{ID: "c", Service: "user", Host: "10.0.0.3", Port: 80, Weight: 1, State: catalog.StatePassing, MissingUntil: now.Add(20 * time.Second)},
	}, now.Add(-time.Minute))
	m.feed.Confirm(now.Add(-10 * time.Second))
	m.feed.Fail(errors.New("connection refused"))
	m.b.Use(m.feed.Current(), now)
	lease, err := m.b.Pick(balancer.Request{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	busy := lease.Endpoint().Instance().ID

	w := httptest.NewRecorder()
	web.Discovery{Mesh: m, Registration: func() (string, registration.Status, bool) {
		return "order-1", registration.Status{State: registration.StateRecovering, Why: "no answer"}, true
	}}.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/discovery", nil))
	var page struct {
		Registration struct{ ID, State, Why string }
		Services     []struct {
			Service, Error string
			AgeMS          int64 `json:"age_ms"`
			Ready          int
			Instances      []struct {
				ID, Addr, State, Reason string
				InFlight                int    `json:"in_flight"`
				MissingForMS            *int64 `json:"missing_for_ms"`
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if r := page.Registration; r.ID != "order-1" || r.State != "recovering" || r.Why != "no answer" {
		t.Errorf("registration is %+v", r)
	}
	if len(page.Services) != 1 || len(page.Services[0].Instances) != 3 {
		t.Fatalf("services are %+v; want user with 3 instances", page.Services)
	}
	s := page.Services[0]
	if s.Service != "user" || s.Error != "connection refused" || s.Ready != 2 || s.AgeMS < 10_000 || s.AgeMS > 50_000 {
		t.Errorf("user is %+v; want 2 ready, proven 10s ago, and the trouble since", s)
	}
	for _, i := range s.Instances {
		if missing := i.MissingForMS != nil; missing != (i.ID == "c") || (missing && (*i.MissingForMS <= 0 || *i.MissingForMS > 20_000)) {
			t.Errorf("%s: missing for %v", i.ID, i.MissingForMS)
		}
		if want := map[bool]int{true: 1}[i.ID == busy]; i.InFlight != want {
			t.Errorf("%s: %d in flight; want %d", i.ID, i.InFlight, want)
		}
	}
	if b := s.Instances[1]; b.Addr != "[::1]:80" || b.State != "critical" || b.Reason != "refused" {
		t.Errorf("b is %+v", b)
	}
	lease.Done(outcome.Result{Began: now, At: now})
}

// roundTrip is a RoundTripper made of a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRequestIDGoesAlongToTheNextService(t *testing.T) {
	var got string
	next := web.PassRequestID(roundTrip(func(r *http.Request) (*http.Response, error) {
		got = r.Header.Get("X-Request-Id")
		return nil, http.ErrNotSupported
	}))
	for _, tc := range []struct{ ctx, header, want string }{
		{"id-1", "", "id-1"},
		{"", "", ""},
		{"id-1", "own", "own"},
	} {
		ctx := t.Context()
		if tc.ctx != "" {
			ctx = logging.WithRequestID(ctx, tc.ctx)
		}
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "http://user/", nil)
		if tc.header != "" {
			r.Header.Set("X-Request-Id", tc.header)
		}
		if resp, err := next.RoundTrip(r); err == nil {
			resp.Body.Close()
		}
		if got != tc.want || r.Header.Get("X-Request-Id") != tc.header {
			t.Errorf("context %q, header %q: sent %q, and the request now has %q", tc.ctx, tc.header, got, r.Header.Get("X-Request-Id"))
		}
	}
}

func TestDiscoveryPageSaysThatASetIsFromDisk(t *testing.T) {
	m := oneService{feed: catalog.NewFeed("user")}
	m.feed.Publish([]catalog.Instance{{ID: "a", Service: "user", Host: "10.0.0.1", Port: 80, Weight: 1, State: catalog.StatePassing}}, time.Now())
	for trouble, want := range map[error]bool{
		fmt.Errorf("%w: connection refused", catalog.ErrFromDisk): true,
		errors.New("connection refused"):                          false,
	} {
		m.feed.Fail(trouble)
		w := httptest.NewRecorder()
		web.Discovery{Mesh: m}.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/debug/discovery", nil))
		var page struct {
			Services []struct {
				FromDisk bool `json:"from_disk"`
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if len(page.Services) != 1 || page.Services[0].FromDisk != want {
			t.Errorf("%v: got %+v; want from_disk %v", trouble, page.Services, want)
		}
	}
}
