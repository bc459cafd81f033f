package registration

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

const (
	oldToken = "aaaaaaaa-0000-4000-8000-00000000000a"
	newToken = "bbbbbbbb-0000-4000-8000-00000000000b"
)

// badge sends the token of the moment, as a token file does.
type badge struct {
	next  http.RoundTripper
	token atomic.Pointer[string]
}

func (b *badge) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Consul-Token", *b.token.Load())
	return b.next.RoundTrip(r)
}

func (b *badge) wear(token string) { b.token.Store(&token) }

// badged is a client that wears the old token, and its badge.
func badged(t *testing.T, addr string, next http.RoundTripper) (*api.Client, *badge) {
	t.Helper()
	b := &badge{next: next}
	b.wear(oldToken)
	c, err := api.NewClient(&api.Config{Address: addr, Scheme: "http", HttpClient: &http.Client{Transport: b}})
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

// rotated is a Consul whose tokens are rotated.
type rotated struct {
	all     *api.Client // may do everything
	cfg     Config
	badge   *badge
	add     func(token string)
	discard func(token string)
}

// onBoth runs a test against the fake in a bubble, and against a real Consul with
// ACLs. The tokens have the least rights: service:write for the service, node:read.
func onBoth(t *testing.T, test func(t *testing.T, r rotated)) {
	t.Run("fake", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			agent := consultest.New(t)
			cfg := settings(t, agent)
			var r rotated
			cfg.Client, r.badge = badged(t, consultest.Address, agent.HTTPClient().Transport)
			r.all, r.cfg = agent.Client(), cfg
			r.add = func(token string) { agent.Token(token, "service:write", "node:read") }
			r.discard = agent.DeleteToken
			agent.Tokens()
			r.add(oldToken)
			test(t, r)
		})
	})
	t.Run("real", func(t *testing.T) {
		server := consultest.RealWithACLs(t)
		cfg := settings(t, server)
		own := &http.Transport{}
		t.Cleanup(own.CloseIdleConnections)
		var r rotated
		cfg.Client, r.badge = badged(t, server.Addr(), own)
		r.all, r.cfg = server.Client(), cfg
		accessors := map[string]string{}
		acl := r.all.ACL()
		rules := `service "` + cfg.Service + `" { policy = "write" } node_prefix "" { policy = "read" }`
		if _, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: "own", Rules: rules}, nil); err != nil {
			t.Fatal(err)
		}
		r.add = func(token string) {
			made, _, err := acl.TokenCreate(&api.ACLToken{SecretID: token, Policies: []*api.ACLLink{{Name: "own"}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			accessors[token] = made.AccessorID
		}
		r.discard = func(token string) {
			if _, err := acl.TokenDelete(accessors[token], nil); err != nil {
				t.Fatal(err)
			}
		}
		r.add(oldToken)
		test(t, r)
	})
}

func TestRotatedTokenIsTheEntrysAtTheNextHeartbeat(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, c rotated) {
		log := newLines()
		c.cfg.Log = slog.New(log)
		c.cfg.HeartbeatInterval, c.cfg.TTL = 2*time.Second, 10*time.Second
		var ready switchable
		c.cfg.Ready = ready.ready
		r := begun(t, c.cfg)
		if err := c.all.Agent().EnableServiceMaintenance(r.ID(), "new disk"); err != nil {
			t.Fatal(err)
		}
		was := seen(t, c.all, r).Service.Meta[writeKey]
		c.add(newToken)
		c.badge.wear(newToken)
		eventually(t, "written anew, and never away", func() bool {
			e := seen(t, c.all, r)
			if e == nil {
				t.Fatal("the entry is away for a moment")
			}
			return e.Service.Meta[writeKey] != was
		})
		c.discard(oldToken)
		time.Sleep(time.Second)
		ready.set(errors.New("no disk"))
		r.Refresh()
		eventually(t, "critical", func() bool { return status(t, c.all, r) == api.HealthCritical })
		ready.set(nil)
		r.Refresh()
		eventually(t, "passing", func() bool { return status(t, c.all, r) == api.HealthPassing })
		if m := check(seen(t, c.all, r), api.ServiceMaintPrefix+r.ID()); m == nil || m.Notes != "new disk" {
			t.Errorf("maintenance is %+v; want it as it was", m)
		}
		inState(t, r, StateRegistered)
		if n := log.count("WARN") + log.count("ERROR"); n != 0 {
			t.Errorf("said %q; want nothing: it was rotated in order", log.text)
		}
	})
}

// TestWordThatNeverArrivesIsAFault deletes the old token before the next heartbeat:
// the agent takes every word with the new one, and passes none on.
func TestWordThatNeverArrivesIsAFault(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"a drain", "a readiness"} {
		t.Run(how, func(t *testing.T) {
			onBoth(t, func(t *testing.T, c rotated) {
				var ready switchable
				c.cfg.Ready, c.cfg.ConsulTimeout = ready.ready, 20*time.Second
				r := begun(t, c.cfg)
				time.Sleep(time.Second)
				c.add(newToken)
				c.discard(oldToken)
				c.badge.wear(newToken)
				if how == "a readiness" {
					ready.set(errors.New("no disk"))
					r.Refresh()
					eventually(t, "critical", func() bool { return status(t, c.all, r) == api.HealthCritical })
					ready.set(nil)
					r.Refresh()
					eventually(t, "passing", func() bool { return status(t, c.all, r) == api.HealthPassing })
				}
				if err := r.Drain(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := status(t, c.all, r); got != api.HealthCritical || r.exhausted.Load() {
					t.Errorf("after the drain the catalog says %q, given up: %t; want critical", got, r.exhausted.Load())
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "gone", func() bool { return seen(t, c.all, r) == nil })
			})
		})
	}
}

func TestTokenWithoutNodeReadIsNamed(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		log := newLines()
		agent.Tokens()
		agent.Token(oldToken, "service:write")
		cfg.Client, _ = badged(t, consultest.Address, agent.HTTPClient().Transport)
		cfg.Log = slog.New(log)
		r := start(t, cfg)
		time.Sleep(time.Minute)
		if s := r.Status(); s.State == StateRegistered || !strings.Contains(s.Why, "node:read") || s.Err == nil {
			t.Errorf("status is %+v; want the right that is missing", s)
		}
		if n := log.count("ERROR"); n != 1 || !strings.Contains(strings.Join(log.text, "\n"), "node:read") {
			t.Errorf("said %d errors; want one that names the right: %q", n, log.text)
		}
	})
}
