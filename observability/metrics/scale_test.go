package metrics_test

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// series are the names and labels of those on the page.
func series(t *testing.T, m order) (all []string) {
	t.Helper()
	name := regexp.MustCompile(`^(.*) \S+$`)
	for line := range strings.Lines(page(t, m)) {
		if found := name.FindStringSubmatch(strings.TrimSuffix(line, "\n")); found != nil && !strings.HasPrefix(line, "#") {
			all = append(all, found[1])
		}
	}
	slices.Sort(all)
	return all
}

// scaled is the fleet of user, and order, which calls it.
type scaled struct {
	t     *testing.T
	mesh  *discovery.Mesh // order's
	fleet *discovery.Mesh // of all instances of user, as each process has its own
	port  int             // of one server, which is every instance
	all   []*registration.Registration
}

// to registers or deregisters until there are so many, and sends each a few requests.
func (s *scaled) to(count int) {
	s.t.Helper()
	for len(s.all) < count {
		r, err := s.fleet.Register(registration.Config{
			Service: "user", ID: fmt.Sprint("user-", len(s.all)), Host: "127.0.0.1", Port: s.port, ConsulTimeout: time.Minute,
		})
		if err != nil {
			s.t.Fatal(err)
		}
		s.all = append(s.all, r)
	}
	var leaving sync.WaitGroup
	for _, r := range s.all[count:] {
		leaving.Go(func() {
			if err := r.Close(); err != nil {
				s.t.Error(err)
			}
		})
	}
	leaving.Wait()
	s.all = s.all[:count]
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if services := s.mesh.Status().Services; len(services) == 1 && len(services[0].Instances) == count {
			break
		}
		if time.Since(began) > 30*time.Second {
			s.t.Fatalf("the mesh never has %d instances", count)
		}
	}
	for range 2 * count {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://user/", http.NoBody)
		if err != nil {
			s.t.Fatal(err)
		}
		resp, err := s.mesh.Client().Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

func TestThreeToAHundredInstancesAndBackLeaveNoSeriesOfTheGone(t *testing.T) {
	addr, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(httpmesh.RequireService("user", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	defer server.Close()
	m := newOrder(t)
	mesh, err := discovery.Open(t.Context(), discovery.Config{
		Consul: discovery.Consul{Address: addr}, Follow: []string{"user"}, Trace: m.Trace(), Watch: watch.Config{MissingFor: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	defer m.Watch(mesh)()
	fleet, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	s := &scaled{t: t, mesh: mesh, fleet: fleet, port: server.Listener.Addr().(*net.TCPAddr).Port}

	s.to(3)
	s.to(4)
	s.to(3) // by now each counter that a change makes is there
	before := series(t, m)
	of := func(all []string, name string) (n int) {
		for _, one := range all {
			if strings.HasPrefix(one, name+"{") {
				n++
			}
		}
		return n
	}
	for _, name := range []string{"connections", "in_flight", "out"} {
		if n := of(before, "rollcall_endpoint_"+name); n != 3 {
			t.Errorf("%d series rollcall_endpoint_%s of three instances; want 3", n, name)
		}
	}
	s.to(100)
	if n := of(series(t, m), "rollcall_endpoint_connections"); n != 100 {
		t.Errorf("%d series of connections of a hundred instances; want 100", n)
	}
	s.to(3)
	// How often Consul is asked in vain depends on the time that it took.
	asked := func(one string) bool {
		return strings.HasPrefix(one, "rollcall_consul_questions_total{") || strings.HasPrefix(one, "rollcall_watch_answers_total{")
	}
	if diff := cmp.Diff(slices.DeleteFunc(before, asked), slices.DeleteFunc(series(t, m), asked)); diff != "" {
		t.Errorf("with three again there are other series than before (-before +after):\n%s", diff)
	}
}
