package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// picture is what the page's stream shows, of interest here.
type picture struct {
	Consul   struct{ Reachable bool }
	Services []struct {
		Name      string
		Instances []struct {
			ID       string
			Protocol string
			State    string
			Answered bool
		}
	}
	Edges []struct {
		From, To string
		Rate     float64
	}
}

// passing is how many of the service's instances the picture shows passing, by HTTP.
func (p *picture) passing(service string) (n int) {
	for _, s := range p.Services {
		for _, i := range s.Instances {
			if s.Name == service && i.Protocol == "http" && i.State == "passing" {
				n++
			}
		}
	}
	return n
}

// viewer is what somebody who looks at the page has been shown.
type viewer struct {
	mu   sync.Mutex
	last picture
	at   map[int]time.Time // when so many passing orders were first shown
}

// look follows the page's stream until ctx ends.
func (m *mesh) look(ctx context.Context) (*viewer, func() error, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.admin+"/mesh/stream", nil)
	if err != nil {
		return nil, nil, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, nil, fmt.Errorf("GET /mesh/stream: %s", resp.Status)
	}
	v, ended := &viewer{at: map[int]time.Time{}}, make(chan error, 1)
	go func() {
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && strings.Contains(data, `"services"`) {
				if err := v.show(data); err != nil {
					ended <- err
					return
				}
			}
		}
		ended <- nil // by its context, as the test sees if it was not
	}()
	return v, func() error { return <-ended }, nil
}

func (v *viewer) show(data string) error {
	var p picture
	if err := json.Unmarshal([]byte(data), &p); err != nil {
		return fmt.Errorf("%w in %.300s", err, data)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last = p
	if n := p.passing("order"); v.at[n].IsZero() {
		v.at[n] = time.Now()
	}
	return nil
}

func (v *viewer) orders(n int) (shown time.Time, now picture) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.at[n], v.last
}

// testPageShowsTheFleetAndFollowsAScaleUp measures from the first moment that Consul's answer has the new ones to
// the moment that the page's stream shows them.
func testPageShowsTheFleetAndFollowsAScaleUp(t *testing.T, m *mesh) {
	page := m.get(t, m.admin+"/mesh/")
	if page.status != http.StatusOK || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") {
		t.Fatalf("/mesh/ answers %d %s", page.status, page.header.Get("Content-Type"))
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("/mesh/ has the policy %q; want default-src 'none'", csp)
	}
	if a := m.get(t, m.admin+"/"); a.header.Get("Location") != "/mesh/" {
		t.Errorf("/ of the admin port answers %d, Location %q; want it to lead to /mesh/", a.status, a.header.Get("Location"))
	}

	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	v, ended, err := m.look(ctx)
	if err != nil {
		t.Fatal(err)
	}
	until(t, 30*time.Second, "the page shows the fleet", func(ctx context.Context) error {
		if _, err := m.request(ctx, http.MethodGet, m.gateway+"/orders/1", nil); err != nil {
			return err
		}
		_, p := v.orders(0)
		for service, n := range usual {
			if got := p.passing(service); got != n {
				return fmt.Errorf("it shows %d passing of %s; want %d", got, service, n)
			}
		}
		for _, s := range p.Services {
			for _, i := range s.Instances {
				if usual[s.Name] > 0 && i.Protocol == "http" && !i.Answered {
					return fmt.Errorf("%s did not tell what it knows", i.ID)
				}
			}
		}
		for _, e := range p.Edges {
			if e.From == "gateway" && e.To == "order" && e.Rate > 0 {
				return nil
			}
		}
		return fmt.Errorf("no requests from gateway to order among %v", p.Edges)
	})

	m.compose(t, "up", "-d", "--scale", "order=5")
	until(t, time.Minute, "five orders pass", func(ctx context.Context) error {
		return m.wantPassing(ctx, map[string]int{"order": 5})
	})
	passing := time.Now()
	until(t, 10*time.Second, "the page shows five orders", func(context.Context) error {
		if shown, p := v.orders(5); shown.IsZero() {
			return fmt.Errorf("it shows %d", p.passing("order"))
		}
		return nil
	})
	shown, _ := v.orders(5)
	t.Logf("shown %v after the first answer of Consul's with all five passing", shown.Sub(passing).Round(time.Millisecond))
	if late := shown.Sub(passing); late > 4*time.Second { // 2 s are promised; twice that on a busy machine
		t.Errorf("the page was %v late; want 2s at most", late)
	}
	m.compose(t, "up", "-d", "--scale", "order=3")
	leave()
	if err := ended(); err != nil {
		t.Error(err)
	}
}

func testCommandRunsInAContainer(t *testing.T, m *mesh) {
	out, err := m.Compose(t.Context(), "run", "--rm", "-T", "rollcall", "ls", "order", "-o", "json")
	if err != nil {
		t.Fatalf("rollcall ls: %v", err)
	}
	es, err := m.entries(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if e.Checks.AggregatedStatus() != api.HealthPassing || !strings.Contains(out, e.Service.ID) {
			t.Errorf("%s is not in what rollcall ls says: %s", e.Service.ID, out)
		}
	}
	if out, err := m.Compose(t.Context(), "run", "--rm", "-T", "rollcall", "call", "order", "/orders/1", "-n", "30"); err != nil || !strings.Contains(out, "30") {
		t.Errorf("rollcall call: %v in %s", err, out)
	}
	if out, err := m.Compose(t.Context(), "run", "--rm", "-T", "rollcall", "doctor"); err != nil {
		t.Errorf("rollcall doctor finds something in a healthy fleet: %v\n%s", err, out)
	}
}
