package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// usual is how many instances of each of our services there are when nobody scaled anything.
var usual = map[string]int{"user": 2, "order": 3, "gateway": 1}

// trafficPort is that of every service of ours inside its container, adminPort the other one.
const (
	trafficPort = 8080
	adminPort   = 8081
)

// mesh is a fleet and what the tests ask of it.
type mesh struct {
	*fleet.Fleet

	client *http.Client
	consul *api.Client

	gateway, admin, users, orders, consulURL, prometheus string
}

func newMesh(f *fleet.Fleet) *mesh {
	url := func(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }
	consul, err := api.NewClient(&api.Config{
		Address:    fmt.Sprintf("127.0.0.1:%d", f.Ports.Consul),
		HttpClient: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{}},
	})
	if err != nil {
		panic(err) // for a wrong address only
	}
	return &mesh{
		Fleet: f,
		client: &http.Client{
			Timeout:       10 * time.Second,
			Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		consul:     consul,
		gateway:    url(f.Ports.Gateway),
		admin:      url(f.Ports.GatewayAdmin),
		users:      url(f.Ports.Users),
		orders:     url(f.Ports.Orders),
		consulURL:  url(f.Ports.Consul),
		prometheus: url(f.Ports.Prometheus),
	}
}

func (m *mesh) close() { m.client.CloseIdleConnections() }

// answer is a response that was read to its end.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a *answer) servedBy() string { return a.header.Get("X-Served-By") }

// request sends one request; header is pairs of name and value.
func (m *mesh) request(ctx context.Context, method, url string, body io.Reader, header ...string) (*answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return nil, fmt.Errorf("read the body of %s %s: %w", method, url, err)
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: string(b)}, nil
}

// get is a GET that must be answered, whatever the status.
func (m *mesh) get(t *testing.T, url string, header ...string) *answer {
	t.Helper()
	a, err := m.request(t.Context(), http.MethodGet, url, nil, header...)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	return a
}

// post is a POST of JSON that must be answered, whatever the status.
func (m *mesh) post(t *testing.T, url, body string, header ...string) *answer {
	t.Helper()
	header = append([]string{"Content-Type", "application/json"}, header...)
	a, err := m.request(t.Context(), http.MethodPost, url, strings.NewReader(body), header...)
	if err != nil {
		t.Fatalf("POST %s: %v", url, err)
	}
	return a
}

// getJSON decodes the 200 answer of a GET into v.
func (m *mesh) getJSON(ctx context.Context, url string, v any) error {
	a, err := m.request(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if a.status != http.StatusOK {
		return fmt.Errorf("GET %s: %d %s", url, a.status, a.body)
	}
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		return fmt.Errorf("GET %s: %w in %.300s", url, err, a.body)
	}
	return nil
}

// until asks every 50 ms until check gives no error; at the limit the test fails with the last one.
func until(t *testing.T, limit time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil || last == nil { // else it only says that the time is up
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// pause lets the load run on for a while.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	case <-time.After(d):
	}
}

// entries of a service's HTTP ports in the catalog, in the order of their IDs.
func (m *mesh) entries(ctx context.Context, service string) ([]*api.ServiceEntry, error) {
	es, _, err := m.consul.Health().Service(service, "", false, (&api.QueryOptions{Filter: `"grpc" not in Service.Tags`}).WithContext(ctx))
	slices.SortFunc(es, func(a, b *api.ServiceEntry) int { return strings.Compare(a.Service.ID, b.Service.ID) })
	return es, err
}

func ids(es []*api.ServiceEntry) []string {
	var l []string
	for _, e := range es {
		l = append(l, e.Service.ID)
	}
	return l
}

// wantPassing is an error unless each service has exactly so many entries, each with both of its checks, all passing.
func (m *mesh) wantPassing(ctx context.Context, want map[string]int) error {
	var errs []error
	for service, n := range want {
		es, err := m.entries(ctx, service)
		if err != nil {
			return err
		}
		passing := 0
		for _, e := range es {
			if e.Checks.AggregatedStatus() == api.HealthPassing && own(e) == 2 {
				passing++
			}
		}
		if len(es) != n || passing != n {
			errs = append(errs, fmt.Errorf("%s has %d entries, %d of them passing with two checks; want %d", service, len(es), passing, n))
		}
	}
	return errors.Join(errs...)
}

// own is how many checks the entry has of its own, beside those of its node.
func own(e *api.ServiceEntry) int {
	n := 0
	for _, c := range e.Checks {
		if c.ServiceID == e.Service.ID {
			n++
		}
	}
	return n
}

// leader is an error unless Consul answers and has one.
func (m *mesh) leader(ctx context.Context) error {
	var address string
	if err := m.getJSON(ctx, m.consulURL+"/v1/status/leader", &address); err != nil {
		return err
	}
	if address == "" {
		return errors.New("consul has no leader")
	}
	return nil
}

// settle waits until the mesh is as it should be: that many containers and entries, and every order serves.
func (m *mesh) settle(t *testing.T, want map[string]int) {
	t.Helper()
	until(t, 60*time.Second, "the fleet settles", func(ctx context.Context) error {
		for service, n := range want {
			cs, err := m.Containers(ctx, service)
			if err != nil {
				return err
			}
			if running := slices.DeleteFunc(cs, func(c fleet.Container) bool { return c.State.Status != "running" }); len(running) != n {
				return fmt.Errorf("%d containers of %s run; want %d", len(running), service, n)
			}
		}
		if err := m.wantPassing(ctx, want); err != nil {
			return err
		}
		ready, err := m.request(ctx, http.MethodGet, m.admin+"/readyz", nil)
		if err != nil {
			return err
		}
		if ready.status != http.StatusOK {
			return fmt.Errorf("the gateway is not ready: %s", ready.body)
		}
		_, err = m.allServe(ctx, "/orders/1", want["order"])
		return err
	})
}

// allServe asks for path until n instances have served it, and returns one answer of each by its ID.
func (m *mesh) allServe(ctx context.Context, path string, n int) (map[string]*answer, error) {
	seen := map[string]*answer{}
	for range 50 * n {
		a, err := m.request(ctx, http.MethodGet, m.gateway+path, nil)
		if err != nil {
			return nil, err
		}
		if a.status != http.StatusOK {
			return nil, fmt.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
		seen[a.servedBy()] = a
		if len(seen) == n {
			return seen, nil
		}
	}
	return nil, fmt.Errorf("GET %s was served by %d instances in %d calls; want %d", path, len(seen), 50*n, n)
}

// repair brings a fleet that a failed test left in pieces back to the usual.
func (m *mesh) repair(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if m.leader(ctx) == nil && m.wantPassing(ctx, usual) == nil {
		return
	}
	for _, s := range []string{"consul", "user", "order", "gateway", "prometheus"} {
		cs, err := m.Containers(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			if c.State.Status == "paused" {
				_, _ = m.Docker(ctx, "unpause", c.ID)
			}
		}
	}
	if _, err := m.Compose(ctx, "up", "--detach"); err != nil {
		t.Fatal(err)
	}
	m.settle(t, usual)
}

// anOrder is the container of one order that serves.
func (m *mesh) anOrder(t *testing.T) fleet.Container {
	t.Helper()
	cs, err := m.Containers(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		if c.State.Status == "running" {
			return c
		}
	}
	t.Fatal("no container of order runs")
	return fleet.Container{}
}

// docker runs a docker command that must succeed.
func (m *mesh) docker(t *testing.T, args ...string) {
	t.Helper()
	if _, err := m.Docker(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// compose runs a docker compose command that must succeed.
func (m *mesh) compose(t *testing.T, args ...string) {
	t.Helper()
	m.docker(t, append([]string{"compose"}, args...)...)
}

// dump is what one wants to see after a failure.
func (m *mesh) dump() string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var b strings.Builder
	m.Dump(ctx, &b, 30)
	return b.String()
}
