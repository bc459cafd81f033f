package registration

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// rivals are two lives under one ID, at the ports 4000 and 5000.
func rivals(t *testing.T, b backend) (lives [2]*Registered, logs [2]*lines) {
	t.Helper()
	for n, port := range []int{4000, 5000} {
		cfg := settings(t, b)
		logs[n] = newLines()
		cfg.ID, cfg.Port, cfg.Log = cfg.Service+"-1", port, slog.New(logs[n])
		lives[n] = begun(t, cfg)
	}
	return lives, logs
}

// tellsOfRivals is two instances that claim one ID, until one of them leaves.
func tellsOfRivals(t *testing.T, b backend) {
	lives, logs := rivals(t, b)
	if n := logs[1].count("WARN taking over an entry that passes at another address: is the ID unique?"); n != 1 {
		t.Errorf("the second one warned %d times at its start; want once", n)
	}
	const told = "ERROR another instance uses our ID"
	eventually(t, "told of as an error", func() bool { return logs[0].count(told)+logs[1].count(told) > 0 })
	eventually(t, "told of in the state, with what to do", func() bool {
		for _, r := range lives {
			why := r.Status().Why
			if strings.Contains(why, "another instance claims the same ID: give each its own") && strings.Contains(why, "theirs is at 127.0.0.1 port") {
				return true
			}
		}
		return false
	})

	_ = lives[1].Close() // it may be the other's turn
	c := b.Client()
	eventually(t, "the one that is left has the entry", func() bool {
		e := seen(t, c, lives[0])
		return lives[0].Status().State == StateRegistered && e != nil && e.Service.Port == 4000 && status(t, c, lives[0]) == api.HealthPassing
	})
}

func TestTwoThatClaimOneIDTakeTurnsAndDoNotRace(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, _ Config) {
		c := agent.Client()
		lives, logs := rivals(t, agent)
		time.Sleep(time.Minute)
		before, absent, samples := len(agent.Requests(registerPath)), 0, 0
		for range 5 * 60 * 20 {
			time.Sleep(50 * time.Millisecond)
			samples++
			if seen(t, c, lives[0]) == nil {
				absent++
			}
		}
		if n := len(agent.Requests(registerPath)) - before; n < 10 || n > 400 {
			t.Errorf("registered %d times in 5 minutes; want turns, and no race", n)
		}
		if absent > samples/20 {
			t.Errorf("no entry in %d of %d samples; want one of the two always known", absent, samples)
		}
		for n, log := range logs {
			if told := log.count("ERROR"); told > 1 {
				t.Errorf("instance %d told of one rivalry %d times; want once: %q", n, told, log.text)
			}
		}
	})
}

// TestEntryLeftByAnEarlierLifeIsTakenOverAtOnce is the same ID at another port,
// and nobody behind it.
func TestEntryLeftByAnEarlierLifeIsTakenOverAtOnce(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		var line wire
		log := newLines()
		cfg.ID, cfg.Port, cfg.Client = "order-1", 5000, line.client(t, agent)
		begun(t, cfg)
		line.cut() // as a process that was killed

		cfg.Port, cfg.Client, cfg.Log = 4000, agent.Client(), slog.New(log)
		began := time.Now()
		r := begun(t, cfg)
		if took := time.Since(began); took > time.Second {
			t.Errorf("registered after %v; want at once", took)
		}
		time.Sleep(3 * time.Minute)
		if n := len(agent.Requests(registerPath)); n != 2 || r.Status().State != StateRegistered || log.count("ERROR") != 0 {
			t.Errorf("registered %d times, state %v, log %q; want once for each life and no error", n, r.Status().State, log.text)
		}
	})
}

func TestCostOfAnInstanceDoesNotGrowWithItsService(t *testing.T) {
	read := func(others int) (n int64) {
		in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
			c := agent.Client()
			for i := range others {
				err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{
					ID:   cfg.Service + "-other-" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String(),
					Name: cfg.Service, Address: "10.0.0.1", Port: 1000 + i,
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			var line wire
			cfg.Client = line.client(t, agent)
			begun(t, cfg)
			before := line.bytes.Load()
			for range 6 {
				time.Sleep(10 * time.Second)
				if err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{Name: cfg.Service, ID: "busy", Address: "10.0.0.2", Port: 1 + int(time.Now().UnixNano()%1000)}); err != nil {
					t.Fatal(err)
				}
			}
			n = line.bytes.Load() - before
			for _, r := range agent.Requests("/v1/") {
				if r.Method == http.MethodGet && !strings.HasPrefix(r.Path, "/v1/status/") && !strings.HasPrefix(r.Path, "/v1/agent/service/") && r.Query.Get("filter") == "" {
					t.Errorf("asked %s without a filter; want none that reads the whole service", r.Path)
				}
			}
		})
		return n
	}
	alone, many := read(0), read(400)
	if alone == 0 || many > alone+alone/4 {
		t.Errorf("a minute costs %d bytes of answers beside 400 others, %d alone; want it the same", many, alone)
	}
}
