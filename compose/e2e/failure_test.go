package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

func testScalingUpAndDownFailsNoRequest(t *testing.T, m *mesh) {
	tr := m.steady(t, true)
	// As it is typed by hand.
	m.compose(t, "up", "-d", "--scale", "order=5")
	five := map[string]int{"user": 2, "order": 5, "gateway": 1}
	m.settle(t, five) // each of the five serves
	m.compose(t, "up", "-d", "--scale", "order=2")
	m.settle(t, map[string]int{"user": 2, "order": 2, "gateway": 1})
	m.compose(t, "up", "-d", "--scale", "order=3")
	m.settle(t, usual)
	gets, posts := tr.stop(t)
	wantNoneFailed(t, posts)
	orders := 0
	for id := range gets.ServedBy {
		if strings.HasPrefix(id, "order") {
			orders++
		}
	}
	if orders < 5 {
		t.Errorf("%d orders took part (%v); want the five", orders, gets.ServedBy)
	}
}

func testStoppedOrderDrainsAndExitsWithZero(t *testing.T, m *mesh) {
	tr := m.steady(t, true)
	c := m.anOrder(t)
	began := time.Now()
	m.docker(t, "stop", c.ID)
	took := time.Since(began)
	pause(t, time.Second)
	_, posts := tr.stop(t)
	wantNoneFailed(t, posts)

	stopped, err := m.Inspect(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if stopped.State.ExitCode != 0 || took > longestDrain {
		t.Errorf("%s exited with %d after %v; want 0 within %v", c.Name, stopped.State.ExitCode, took, longestDrain)
	}
	t.Logf("%s exited with %d after %v", c.Name, stopped.State.ExitCode, took.Round(time.Millisecond))
	// It has left the catalog by itself, before its exit.
	if err := m.wantPassing(t.Context(), map[string]int{"order": 2}); err != nil {
		t.Error(err)
	}
	m.docker(t, "start", c.ID)
	m.settle(t, usual)
}

func testKilledOrderFailsNoGetAndNoPostThatHadNotReachedIt(t *testing.T, m *mesh) {
	tr := m.steady(t, true)
	c := m.anOrder(t)
	killed := time.Now()
	m.docker(t, "kill", "--signal", "KILL", c.ID)
	dead := time.Now()
	until(t, 30*time.Second, "Consul finds that it is dead", func(ctx context.Context) error {
		es, err := m.entries(ctx, "order")
		if err != nil {
			return err
		}
		for _, e := range es {
			if e.Service.Address == c.Address && e.Checks.AggregatedStatus() == "passing" {
				return fmt.Errorf("%s is passing", e.Service.ID)
			}
		}
		return nil
	})
	pause(t, 2*time.Second)
	_, posts := tr.stop(t)

	// A POST that was on its way to the killed instance may have been done: the gateway answers it with 502,
	// and never sends it again. One that never reached it is sent to another instance: so a POST that was
	// sent after the instance was dead must not fail, and the gateway must not say that it could not connect.
	for _, f := range posts.Failures {
		switch {
		case f.Answer == nil || f.Answer.Status != http.StatusBadGateway:
			t.Errorf("a POST failed otherwise than by a connection that broke after it was sent:\n  %s", f)
		case f.At.After(dead):
			t.Errorf("a POST failed that was sent %v after the kill:\n  %s", f.At.Sub(dead), f)
		case f.At.Add(f.Took).Before(killed):
			t.Errorf("a POST failed before the kill:\n  %s", f)
		}
	}
	if n := len(posts.Failures); n > 5 {
		t.Errorf("%d POSTs were cut off; want what one of three instances can have had in flight, 5 at most", n)
	} else {
		t.Logf("%d POSTs were cut off by the kill:\n%s", n, posts.List(5))
	}
	m.docker(t, "start", c.ID)
	m.settle(t, usual)
}

func testPausedOrderFailsNoGet(t *testing.T, m *mesh) {
	tr := m.steady(t, false)
	c := m.anOrder(t)
	m.docker(t, "pause", c.ID)
	unpaused := false
	defer func() {
		if !unpaused {
			_, _ = m.Docker(context.Background(), "unpause", c.ID)
		}
	}()
	pause(t, 10*time.Second)
	m.docker(t, "unpause", c.ID)
	unpaused = true
	pause(t, 2*time.Second)
	tr.stop(t)
	m.settle(t, usual)
}

func testConsulRestartedWithItsDataFailsNoGet(t *testing.T, m *mesh) {
	tr := m.steady(t, false)
	back := m.watchReturn(t, m.wantListed)
	m.compose(t, "restart", "consul")
	back(5 * time.Second)
	// Consul's own checks begin critical and run once in 5 s: all instances may be critical together for a while.
	pause(t, 8*time.Second)
	tr.stop(t)
	m.settle(t, usual)
}

func testConsulRecreatedWithoutItsDataFailsNoGet(t *testing.T, m *mesh) {
	tr := m.steady(t, false)
	back := m.watchReturn(t, m.wantPassing)
	m.compose(t, "rm", "--stop", "--force", "consul")
	m.docker(t, "volume", "rm", m.Project+"_consul-data")
	pause(t, 3*time.Second)
	m.compose(t, "up", "--detach", "--no-deps", "consul")
	back(5 * time.Second)
	pause(t, 5*time.Second)
	tr.stop(t)
	m.settle(t, usual)
}

// wantListed is an error unless each service has exactly so many entries, each with both of its checks.
func (m *mesh) wantListed(ctx context.Context, want map[string]int) error {
	for service, n := range want {
		es, err := m.entries(ctx, service)
		if err != nil {
			return err
		}
		whole := 0
		for _, e := range es {
			if own(e) == 2 {
				whole++
			}
		}
		if len(es) != n || whole != n {
			return fmt.Errorf("%s has %d entries, %d of them with two checks; want %d", service, len(es), whole, n)
		}
	}
	return nil
}

// watchReturn watches from now on for Consul to go, to answer with a leader again, and then for everyone to be
// back. What it returns waits for that, and judges how long after Consul's first answer it was.
func (m *mesh) watchReturn(t *testing.T, isBack func(context.Context, map[string]int) error) func(limit time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	type result struct {
		took time.Duration
		err  error
	}
	done := make(chan result, 1)
	go func() {
		poll := func(what string, ready func() error) error {
			for {
				err := ready()
				if err == nil {
					return nil
				}
				select {
				case <-ctx.Done():
					return fmt.Errorf("%s: not in time: %w", what, err)
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
		err := poll("Consul goes", func() error {
			if m.leader(ctx) == nil {
				return errors.New("it answers")
			}
			return nil
		})
		if err == nil {
			err = poll("Consul answers with a leader", func() error { return m.leader(ctx) })
		}
		first := time.Now()
		if err == nil {
			err = poll("everyone is back", func() error { return isBack(ctx, usual) })
		}
		done <- result{time.Since(first), err}
	}()
	return func(limit time.Duration) {
		t.Helper()
		switch r := <-done; {
		case r.err != nil:
			t.Fatal(r.err)
		case r.took > limit:
			t.Errorf("everyone was back %v after Consul's first answer with a leader; want %v at most", r.took, limit)
		default:
			t.Logf("everyone was back %v after Consul's first answer with a leader", r.took.Round(time.Millisecond))
		}
	}
}

func testOrderStartsWithoutConsulAndRegistersWhenItComes(t *testing.T, m *mesh) {
	tr := m.steady(t, false)
	back := m.watchReturn(t, m.wantListed)
	m.compose(t, "stop", "consul")
	c := m.anOrder(t)
	m.docker(t, "restart", c.ID)
	until(t, 20*time.Second, "an order that was started without Consul serves", func(ctx context.Context) error {
		now, err := m.Inspect(ctx, c.ID)
		if err != nil {
			return err
		}
		if now.Address == "" {
			return errors.New("it has no address")
		}
		url := fmt.Sprintf("http://%s:%d/orders/1", now.Address, trafficPort)
		a, err := m.request(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		// It can't know a user instance; the orders of a user who has some are shown all the same.
		if a.status != http.StatusOK || a.body != right["/orders/1"] || a.header.Get("X-Degraded") != "user" {
			return fmt.Errorf("GET %s: %d %s, X-Degraded %q", url, a.status, a.body, a.header.Get("X-Degraded"))
		}
		// Whether a user without orders exists, nobody can tell.
		b, err := m.request(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/orders/999", now.Address, trafficPort), nil)
		if err != nil {
			return err
		}
		if b.status != http.StatusServiceUnavailable || b.header.Get("Retry-After") == "" {
			return fmt.Errorf("GET /orders/999: %d %s, Retry-After %q; want 503", b.status, b.body, b.header.Get("Retry-After"))
		}
		return nil
	})
	m.compose(t, "start", "consul")
	back(5 * time.Second)
	tr.stop(t)
	m.settle(t, usual)
}

func testDownAndUpKeepsDataAndShowsOnlyLivingInstances(t *testing.T, m *mesh) {
	a := m.post(t, m.gateway+"/orders/2", `{"item":"kept over night"}`)
	if a.status != http.StatusCreated {
		t.Fatalf("POST /orders/2: %d %s", a.status, a.body)
	}
	before := map[string]string{}
	for _, path := range []string{"/users/1", "/users/2", "/users/3", "/orders/1", "/orders/2"} {
		before[path] = m.get(t, m.gateway+path).body
	}
	r, err := m.Run(t.Context(), "make", "--no-print-directory", "down")
	if err != nil || r.Code != 0 {
		t.Fatalf("make down: exit code %d, %v\n%s%s", r.Code, err, r.Stdout, r.Stderr)
	}
	for what, args := range map[string][]string{"container": {"ps", "--all"}, "network": {"network", "ls"}} {
		if left, err := m.Docker(t.Context(), append(args, "--quiet", "--filter", "label=com.docker.compose.project="+m.Project)...); err != nil || left != "" {
			t.Errorf("after make down there is %s %s (%v); want none", what, left, err)
		}
	}
	volumes, err := m.Docker(t.Context(), "volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project="+m.Project)
	if err != nil || len(strings.Fields(volumes)) != 4 {
		t.Errorf("after make down the volumes are %q (%v); want four", volumes, err)
	}

	// Whoever asks Consul, from its very first answer on, sees nobody who is not alive.
	seen := map[string]string{} // ID -> address
	ctx, cancel := context.WithCancel(t.Context())
	watched := make(chan struct{})
	answers := 0
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			for service := range usual {
				es, err := m.entries(ctx, service)
				if err != nil {
					continue
				}
				answers++
				for _, e := range es {
					seen[e.Service.ID] = e.Service.Address
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	err = m.Up(t.Context())
	cancel()
	<-watched
	if err != nil {
		t.Fatal(err)
	}
	living := map[string]bool{}
	for service := range usual {
		cs, err := m.Containers(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			living[c.Address] = true
		}
		es, err := m.entries(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		now := ids(es)
		for id := range seen {
			if strings.HasPrefix(id, service) && !slices.Contains(now, id) {
				t.Errorf("Consul showed %s, which is not alive; alive are %v", id, now)
			}
		}
	}
	for id, address := range seen {
		if !living[address] {
			t.Errorf("Consul showed %s at %s, where no container of ours is", id, address)
		}
	}
	if answers == 0 || len(seen) < 6 {
		t.Errorf("in %d answers of Consul there were %v; want the six", answers, seen)
	}
	for path, want := range before {
		if got := m.get(t, m.gateway+path).body; got != want {
			t.Errorf("GET %s: got %s after down and up; want %s", path, got, want)
		}
	}
	m.settle(t, usual)
}

func testWrongSettingStopsStartWithOneLine(t *testing.T, m *mesh) {
	for _, c := range []struct{ service, setting, value string }{
		{"order", "ROLLCALL_LISTEN", "nonsense"},
		{"user", "ROLLCALL_LISTEN", ":99999"},
		{"gateway", "ROLLCALL_LOG_FORMAT", "xml"},
	} {
		r, err := m.Run(t.Context(), "docker", "run", "--rm", "--network", "none", "--read-only",
			"--label", "com.docker.compose.project="+m.Project, "--env", c.setting+"="+c.value, m.Image(c.service))
		if err != nil {
			t.Errorf("%s with %s=%s: %v", c.service, c.setting, c.value, err)
			continue
		}
		out := strings.TrimSpace(r.Stdout + r.Stderr)
		if r.Code != 2 || strings.Contains(out, "\n") || !strings.Contains(out, c.setting) || !strings.Contains(out, c.value) || !strings.Contains(out, "want") {
			t.Errorf("%s with %s=%s exits with %d and says %q; want 2 and one line with the setting, its value and what is wanted",
				c.service, c.setting, c.value, r.Code, out)
		}
	}
}

func testContainersHaveNoRights(t *testing.T, m *mesh) {
	for _, service := range []string{"consul", "prometheus", "user", "order", "gateway"} {
		cs, err := m.Containers(t.Context(), service)
		if err != nil || len(cs) == 0 {
			t.Fatalf("%d containers of %s, %v", len(cs), service, err)
		}
		for _, c := range cs {
			wantNoRights(t, c)
		}
	}
}

func wantNoRights(t *testing.T, c fleet.Container) {
	t.Helper()
	h := c.HostConfig
	if user, _, _ := strings.Cut(c.Config.User, ":"); user == "" || user == "0" || user == "root" {
		t.Errorf("%s runs as %q", c.Name, c.Config.User)
	}
	if !h.ReadonlyRootfs || h.Privileged || !slices.Equal(h.CapDrop, []string{"ALL"}) || len(h.CapAdd) > 0 {
		t.Errorf("%s: read-only %v, privileged %v, drops %v, adds %v; want true, false, ALL, none", c.Name, h.ReadonlyRootfs, h.Privileged, h.CapDrop, h.CapAdd)
	}
	if !slices.ContainsFunc(h.SecurityOpt, func(s string) bool {
		return strings.HasPrefix(s, "no-new-privileges") && !strings.HasSuffix(s, "false")
	}) {
		t.Errorf("%s: security options are %v; want no-new-privileges", c.Name, h.SecurityOpt)
	}
	if h.Memory <= 0 || h.PidsLimit <= 0 {
		t.Errorf("%s: memory %d, pids %d; want limits", c.Name, h.Memory, h.PidsLimit)
	}
	if c.State.Health.Status != "healthy" || c.State.OOMKilled {
		t.Errorf("%s: health %q, killed for memory %v; want healthy", c.Name, c.State.Health.Status, c.State.OOMKilled)
	}
	for port, bound := range h.PortBindings {
		for _, b := range bound {
			if b.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q; want 127.0.0.1", c.Name, port, b.HostIP)
			}
		}
		if c.Service == "user" || c.Service == "order" {
			t.Errorf("%s: port %s is published", c.Name, port)
		}
	}
}
