package watch_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"pgregory.net/rapid"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// step is one event of a history.
type step struct {
	what string
	who  int
	wait time.Duration // afterwards
}

// world is Consul, the instances, and a client that watches and sends.
type world struct {
	agent   *consultest.Agent
	lab     *lab
	b       *balancer.Balancer
	alive   map[int]bool      // it answers, and its address is reachable
	started map[int]time.Time // when it last began to be alive
	left    map[int]time.Time // when it drained or was reaped; not there while it lives
	drained map[int]bool      // it left in order
	wanted  map[int]bool      // its entry should be in the catalog
	well    time.Time         // since when Consul answers and has a leader; zero: it does not
	lost    time.Time         // when Consul last lost entries: they are mended 15 s later
	used    bool              // an instance was in use once
}

const (
	modelMissing = 30 * time.Second
	// noticed bounds the time in which a healthy Consul is heard again: a
	// query that was swallowed is given up after 30 s and a sixteenth and 5 s,
	// and the back-off is up to 10 s.
	noticed = 50 * time.Second
)

func (w *world) register(n int) {
	id := fmt.Sprint(n)
	_ = w.lab.consul.Agent().ServiceDeregister(id)
	_ = w.lab.consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: id, Name: "order", Address: "10.0.0." + id, Port: 8080,
		Check: &api.AgentServiceCheck{CheckID: id + ":rollcall", TTL: "24h", Status: api.HealthPassing},
	})
}

// keep is what registration does soon after Consul answers again, later here
// than there: the entry of who lives is mended.
func (w *world) keep() {
	entries, _, err := w.lab.consul.Health().Service("order", "", false, nil)
	if err != nil {
		return
	}
	have := map[string]bool{}
	for _, e := range entries {
		have[e.Service.ID] = true
	}
	for n := range w.wanted {
		if w.alive[n] && !have[fmt.Sprint(n)] {
			w.register(n)
		}
	}
}

func (w *world) do(s step) {
	id := fmt.Sprint(s.who)
	healthy := !w.well.IsZero()
	switch s.what {
	case "start":
		if healthy && !w.alive[s.who] {
			w.alive[s.who], w.wanted[s.who], w.started[s.who] = true, true, time.Now()
			delete(w.left, s.who)
			delete(w.drained, s.who)
			w.register(s.who)
		}
	case "drain":
		if healthy && w.alive[s.who] {
			_ = w.lab.consul.Agent().UpdateTTL(id+":rollcall", "draining", api.HealthCritical)
			time.Sleep(500 * time.Millisecond)
			_ = w.lab.consul.Agent().ServiceDeregister(id)
			delete(w.wanted, s.who)
			w.alive[s.who], w.left[s.who], w.drained[s.who] = false, time.Now(), true
		}
	case "kill": // SIGKILL, and Consul reaps it
		if healthy && w.alive[s.who] {
			delete(w.wanted, s.who)
			w.alive[s.who] = false
			_ = w.lab.consul.Agent().ServiceDeregister(id)
			w.left[s.who] = time.Now()
		}
	case "wipe":
		w.agent.Wipe()
		w.lost = time.Now()
	case "wipe servers":
		w.agent.WipeServers()
		w.lost = time.Now()
	case "restore":
		w.agent.SetIndex(3)
	case "mend":
		w.agent.Mend()
		w.agent.ElectLeader()
		if !healthy {
			w.well, w.lost = time.Now(), time.Now()
		}
	default:
		w.well = time.Time{}
		faults := map[string]consultest.Fault{
			"refuse": consultest.Refuse(), "silent": consultest.Silent(), "fail": consultest.Fail(500, "No cluster leader"),
			"empty": consultest.Empty(1), "filtered": consultest.Filtered(), "truncate": consultest.Truncate(40), "html": consultest.HTML(),
		}
		if s.what == "no leader" {
			w.agent.LoseLeader()
		} else {
			w.agent.Break("/v1/health/", faults[s.what])
		}
	}
}

// send makes a request, and tries others while a dial fails.
func (w *world) send() {
	var q balancer.Request
	for range 10 {
		q.Now = time.Now()
		lease, err := w.b.Pick(q)
		if err != nil {
			return
		}
		var n int
		if _, err := fmt.Sscan(lease.Endpoint().Instance().ID, &n); err != nil {
			return
		}
		code := outcome.None
		if !w.alive[n] {
			code = outcome.Unreachable
		}
		lease.Done(outcome.Result{Code: code, Began: q.Now, At: q.Now})
		if w.alive[n] {
			return
		}
		q.Tried = append(q.Tried, lease.Endpoint())
	}
}

// check returns what is wrong with the set in use.
func (w *world) check(s *catalog.Snapshot) string {
	now := time.Now()
	w.b.Use(s, now)
	c := w.b.Counts(now)
	usable := c.Ready + c.Critical
	w.used = w.used || usable > 0
	reachable := false
	for n, alive := range w.alive {
		// Known to the client: it began while Consul was well, and that is long enough ago.
		reachable = reachable || alive && w.used && now.Sub(w.started[n]) > noticed
	}
	if reachable && usable == 0 {
		return fmt.Sprintf("nobody is in use (%+v, set %q) while an instance is reachable", c, show(s))
	}
	if w.well.IsZero() {
		return ""
	}
	for i := range s.All() {
		var n int
		if _, err := fmt.Sscan(i.ID, &n); err != nil {
			return err.Error()
		}
		left, gone := w.left[n]
		bound := noticed + modelMissing
		if w.drained[n] {
			bound = noticed
		}
		if since := later(left, w.well); gone && now.Sub(since) > bound && i.State != catalog.StateDraining {
			return fmt.Sprintf("%s is in the set %s after it left (drained: %v); want %s at most", i.ID, now.Sub(since), w.drained[n], bound)
		}
	}
	return ""
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// live runs a history and returns what went wrong.
func live(t *testing.T, history []step) (wrong string) {
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		w := &world{
			agent: agent, lab: newLab(t, agent.Client(), agent.Client(), watch.Config{MissingFor: modelMissing}),
			b: balancer.New("order", balancer.Config{}), alive: map[int]bool{}, started: map[int]time.Time{}, left: map[int]time.Time{},
			drained: map[int]bool{}, wanted: map[int]bool{}, well: time.Now(),
		}
		for n := range history {
			w.do(history[n])
			for end := time.Now().Add(history[n].wait); time.Now().Before(end); time.Sleep(time.Second) {
				if !w.well.IsZero() && time.Since(w.lost) > 15*time.Second {
					w.keep()
				}
				w.lab.KeepAlive("order")
				s, err := w.lab.Latest(t.Context(), "order")
				if err != nil {
					wrong = err.Error()
					return
				}
				if wrong = w.check(s); wrong != "" {
					wrong = fmt.Sprintf("step %d (%s): %s", n, history[n].what, wrong)
					return
				}
				w.send()
			}
		}
	})
	return wrong
}

func TestSetInUseIsNeverEmptyNorHoldsWhoIsGoneOverAnyHistory(t *testing.T) {
	t.Parallel()
	events := rapid.Custom(func(t *rapid.T) step {
		return step{
			what: rapid.SampledFrom([]string{
				"start", "start", "start", "drain", "kill", "kill", "kill", "wipe", "wipe servers", "restore", "mend", "mend", "mend",
				"refuse", "silent", "fail", "empty", "filtered", "truncate", "html", "no leader",
			}).Draw(t, "what"),
			who: rapid.IntRange(1, 3).Draw(t, "who"),
			// Short ones too, so that trouble meets who is missing already.
			wait: time.Duration(rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 200)).Draw(t, "seconds")) * time.Second,
		}
	})
	rapid.Check(t, func(r *rapid.T) {
		history := append([]step{{"start", 1, time.Minute}}, rapid.SliceOfN(events, 1, 15).Draw(r, "history")...)
		if wrong := live(t, history); wrong != "" {
			r.Fatalf("%s\n%v", wrong, history)
		}
	})
}
