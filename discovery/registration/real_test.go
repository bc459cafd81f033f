package registration

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// isBackSoonAfterEmptyStart begins to count at Consul's first answer of any kind,
// before it has a leader. How long an election takes is the machine's affair; from
// then on it is ours.
func isBackSoonAfterEmptyStart(t *testing.T, server *consultest.Server) {
	var lives []*Registration
	for i := range 6 {
		cfg := settings(t, server)
		cfg.Service, cfg.Port = "order", 4000+i
		lives = append(lives, begun(t, cfg))
	}
	server.Kill()
	for _, r := range lives {
		inState(t, r, StateRecovering)
	}

	var answered time.Time
	var wg sync.WaitGroup
	wg.Go(func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if resp, err := client.Get("http://" + server.Addr() + "/v1/status/leader"); err == nil {
				_ = resp.Body.Close()
				answered = time.Now()
				return
			}
		}
	})
	server.Wipe()
	elected := time.Now()
	wg.Wait()
	if answered.IsZero() {
		t.Fatal("Consul never answered")
	}
	c := server.Client()
	eventually(t, "all back and passing", func() bool {
		entries, _, err := c.Health().Service("order", "", true, nil)
		return err == nil && len(entries) == len(lives)
	})
	t.Logf("%d instances back %v after Consul's first answer, %v after its election",
		len(lives), time.Since(answered).Round(time.Millisecond), time.Since(elected).Round(time.Millisecond))
	if took := time.Since(elected); took > 5*time.Second {
		t.Errorf("all back %v after Consul's election; want 5s at most", took)
	}
	for _, r := range lives {
		inState(t, r, StateRegistered)
		if check(seen(t, c, r), probeCheck(r.ID())) == nil {
			t.Errorf("%s came back without its HTTP check", r.ID())
		}
	}
}

func isKeptByConsulWithData(t *testing.T, server *consultest.Server) {
	var d diary
	cfg := settings(t, server)
	cfg.Trace = d.trace()
	r := begun(t, cfg)
	server.Kill()
	inState(t, r, StateRecovering)
	server.Restart()
	inState(t, r, StateRegistered)
	c := server.Client()
	eventually(t, "passing", func() bool {
		e := seen(t, c, r)
		return e != nil && e.Checks.AggregatedStatus() == api.HealthPassing
	})
	if n := d.count(opDeregister); n != 0 {
		t.Errorf("deregistered %d times; want never: the entry was there", n)
	}
}

// comesBackWithChecksOfTheAgent takes them from the agent itself, which then does
// not know the check any more.
func comesBackWithChecksOfTheAgent(t *testing.T, server *consultest.Server) {
	c := server.Client()
	r := begun(t, settings(t, server))
	for _, lost := range []string{heartbeatCheck(r.ID()), probeCheck(r.ID())} {
		if err := c.Agent().CheckDeregister(lost); err != nil {
			t.Fatal(err)
		}
		eventually(t, "check back", func() bool {
			e := seen(t, c, r)
			return check(e, lost) != nil && e.Checks.AggregatedStatus() == api.HealthPassing
		})
		inState(t, r, StateRegistered)
	}
}

// TestServerWipedBehindAnAgentIsFilledWithinTwelveSecondsOfItsReturn has a server and a client
// agent, which stays, and believes that the server knows everything. What is
// measured begins with the agent's first answer that there is a leader.
func TestServerWipedBehindAnAgentIsFilledWithinTwelveSecondsOfItsReturn(t *testing.T) {
	t.Parallel()
	server := consultest.Real(t)
	agent := server.Agent()
	c := server.Client()
	var lives []*Registration
	for i := range 3 {
		cfg := settings(t, agent)
		cfg.Service, cfg.Port = "order", 4000+i
		lives = append(lives, begun(t, cfg))
	}
	if err := agent.Client().Agent().EnableServiceMaintenance(lives[0].ID(), "new disk"); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	time.Sleep(2 * time.Second) // the agent goes on answering

	var led time.Time
	var wg sync.WaitGroup
	near := agent.Client()
	wg.Go(func() {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if leader, err := near.Status().Leader(); err == nil && leader != "" {
				led = time.Now()
				return
			}
		}
	})
	server.Wipe()
	wg.Wait()
	if led.IsZero() {
		t.Fatal("the agent never found the server again")
	}
	eventually(t, "all back with the word of each", func() bool {
		for _, r := range lives {
			if status(t, c, r) != api.HealthPassing {
				return false
			}
		}
		return true
	})
	took := time.Since(led)
	t.Logf("%d instances back %v after the agent's first answer with a leader", len(lives), took.Round(time.Millisecond))
	if took > 15*time.Second { // 12s, and a busy machine
		t.Errorf("all back %v after the agent's first answer with a leader; want 12s at most", took)
	}
	for _, r := range lives {
		inState(t, r, StateRegistered)
		if e := seen(t, c, r); check(e, probeCheck(r.ID())) == nil {
			t.Errorf("%s came back without its HTTP check", r.ID())
		}
	}
	if m := check(seen(t, c, lives[0]), api.ServiceMaintPrefix+lives[0].ID()); m == nil || m.Notes != "new disk" {
		t.Errorf("maintenance is %+v; want it back, since the agent remembers it", m)
	}
}

// mendsWhatSomebodyDid keeps the usual intervals. The bound leaves a second for the
// machine.
func mendsWhatSomebodyDid(t *testing.T, server *consultest.Server) {
	c := server.Client()
	cfg := settings(t, server)
	cfg.Tags, cfg.Meta = []string{"prometheus"}, map[string]string{"version": "1"}
	r := begun(t, cfg)
	all := harms()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name](c, r); err != nil {
			t.Fatal(err)
		}
		harmed := time.Now()
		eventually(t, name+" mended", func() bool { return whole(t, c, r) })
		if took := time.Since(harmed); took > 2*time.Second {
			t.Errorf("%s: mended after %v; want 2s at most", name, took)
		}
		inState(t, r, StateRegistered)
		time.Sleep(mendPause) // two mends within it are spaced
	}
}
