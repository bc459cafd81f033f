package registration

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// backend is a Consul, a fake one or a real one.
type backend interface {
	Client() *api.Client
	Wipe()
}

// behaviours run against the fake agent in a bubble, and against a real Consul,
// which has some of its own besides.
func behaviours(t *testing.T, all map[string]func(t *testing.T, b backend), real map[string]func(t *testing.T, s *consultest.Server)) {
	t.Run("fake", func(t *testing.T) {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { all[name](t, consultest.New(t)) })
			})
		}
	})
	t.Run("real", func(t *testing.T) {
		server := consultest.Real(t)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			t.Run(name, func(t *testing.T) { all[name](t, server) })
		}
		for _, name := range slices.Sorted(maps.Keys(real)) {
			t.Run(name, func(t *testing.T) { real[name](t, server) })
		}
	})
}

// settings are those of a service that is named after the test. A real Consul
// probes a server that is really there.
func settings(t *testing.T, b backend) Config {
	t.Helper()
	cfg := Config{
		Client:  b.Client(),
		Service: serviceName(t),
		Host:    "127.0.0.1",
		Port:    4000,
		Log:     slog.New(slog.DiscardHandler),
		Checks:  []Check{{Path: "/readyz", Port: 4001}},
	}
	if _, fake := b.(*consultest.Agent); !fake {
		probe := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(probe.Close)
		cfg.Checks[0].Port = probe.Listener.Addr().(*net.TCPAddr).Port
	}
	return cfg
}

// probeCheck is the ID of the check of settings.
func probeCheck(id string) string { return checkID(id, "probe") }

// serviceName turns the last part of the test's name into a service's.
func serviceName(t *testing.T) string {
	name := t.Name()[strings.LastIndex(t.Name(), "/")+1:]
	return strings.ToLower(strings.Map(func(r rune) rune {
		if wellNamed(string(r), 1) {
			return r
		}
		return '-'
	}, name))
}

// start begins a life that ends with the test.
func start(t *testing.T, cfg Config) *Registration {
	t.Helper()
	r, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// begun is start, and waits until the entry was seen.
func begun(t *testing.T, cfg Config) *Registration {
	t.Helper()
	r := start(t, cfg)
	inState(t, r, StateRegistered)
	return r
}

// eventually waits for a condition, with a generous limit.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 30s still not so: %s", what)
		}
	}
}

// within is eventually with a bound, for fake time.
func within(t *testing.T, bound time.Duration, what string, holds func() bool) {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > bound {
			t.Fatalf("after %v still not so: %s", bound, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func inState(t *testing.T, r *Registration, want State) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("status is %+v", r.Status())
		}
	}()
	eventually(t, "state "+want.String(), func() bool { return r.Status().State == want })
}

// seen is the entry of an ID as others see it; nil if there is none.
func seen(t *testing.T, c *api.Client, r *Registration) *api.ServiceEntry {
	t.Helper()
	entries, _, err := c.Health().Service(r.cfg.Service, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Service.ID == r.ID() {
			return e
		}
	}
	return nil
}

// check is a check of the entry by its ID; nil if there is no such check.
func check(e *api.ServiceEntry, id string) *api.HealthCheck {
	if e != nil {
		for _, c := range e.Checks {
			if c.CheckID == id {
				return c
			}
		}
	}
	return nil
}

// status is the status of the entry's TTL check, "" if there is none.
func status(t *testing.T, c *api.Client, r *Registration) string {
	t.Helper()
	if k := check(seen(t, c, r), r.ID()+":rollcall"); k != nil {
		return k.Status
	}
	return ""
}

// switchable is a readiness that the test changes.
type switchable struct {
	mu  sync.Mutex // guards err
	err error
}

func (s *switchable) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *switchable) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// cable is a network that the test plugs elsewhere.
type cable struct {
	mu   sync.Mutex // guards addr
	addr netip.Addr // invalid: unplugged
}

func (c *cable) plug(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addr = netip.Addr{}
	if addr != "" {
		c.addr = netip.MustParseAddr(addr)
	}
}

func (c *cable) towards(context.Context, string) (netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.addr.IsValid() {
		return netip.Addr{}, &net.OpError{Op: "dial", Net: "udp", Err: errors.New("network is unreachable")}
	}
	return c.addr, nil
}

func (c *cable) has(host string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addr.IsValid() && c.addr.String() == host
}

// diary notes changes of state and attempts.
type diary struct {
	mu      sync.Mutex // guards what follows
	changes []string
	ops     map[string]int
	failed  int
}

func (d *diary) trace() *Trace {
	return &Trace{
		Changed: func(_, _ string, from, to State, _ string) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.changes = append(d.changes, from.String()+" to "+to.String())
		},
		Attempted: func(_, _, op string, err error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.ops == nil {
				d.ops = map[string]int{}
			}
			d.ops[op]++
			if err != nil {
				d.failed++
			}
		},
	}
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.changes)
}

func (d *diary) count(op string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops[op]
}

// lines is a log that counts its records by level.
type lines struct {
	slog.Handler
	mu   sync.Mutex // guards text
	text []string
}

func newLines() *lines { return &lines{Handler: slog.DiscardHandler} }

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, r.Level.String()+" "+r.Message)
	return nil
}

func (l *lines) count(prefix string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.text {
		if strings.HasPrefix(s, prefix) {
			n++
		}
	}
	return n
}

// twoHomed is a machine in two networks, whose way to Consul alternates.
type twoHomed struct{ n int }

func (n *twoHomed) towards(context.Context, string) (netip.Addr, error) {
	n.n++
	return netip.AddrFrom4([4]byte{10, 0, byte(n.n % 2), 7}), nil
}

func (n *twoHomed) has(string) bool { return true }
