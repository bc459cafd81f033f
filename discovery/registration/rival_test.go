package registration

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// rivals are two lives under one ID, at the ports 4000 and 5000.
func rivals(t *testing.T, b backend) (lives [2]*Registration, logs [2]*lines) {
	t.Helper()
	for n, port := range []int{4000, 5000} {
		cfg := settings(t, b)
		logs[n] = newLines()
		cfg.ID, cfg.Port, cfg.Log = cfg.Service+"-1", port, slog.New(logs[n])
		lives[n] = begun(t, cfg)
	}
	return lives, logs
}

// tellsOfRivals is two processes that claim one ID, until one of them leaves.
func tellsOfRivals(t *testing.T, b backend) {
	lives, logs := rivals(t, b)
	if n := logs[1].count("WARN taking over an entry that passes at another address: is the ID unique?"); n != 1 {
		t.Errorf("the second one warned %d times at its start; want once", n)
	}
	eventually(t, "told of as an error", func() bool { return logs[0].count("ERROR another process has registered our ID") == 1 })
	eventually(t, "told of in the state, with what to do", func() bool {
		s := lives[0].Status()
		return errors.Is(s.Err, ErrIDTaken) && s.State == StateRecovering && strings.Contains(s.Why, "give each instance its own") && strings.Contains(s.Why, "its entry is at 127.0.0.1 port 5000")
	})

	_ = lives[1].Close()
	c := b.Client()
	eventually(t, "the one that is left has the entry", func() bool {
		e := seen(t, c, lives[0])
		return lives[0].Status().State == StateRegistered && e != nil && e.Service.Port == 4000 && status(t, c, lives[0]) == api.HealthPassing
	})
}

// TestProcessThatRegisteredAnIDLastHasIt lets the earlier one drain and leave.
func TestProcessThatRegisteredAnIDLastHasIt(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, agent *consultest.Agent, _ Config) {
		c := agent.Client()
		lives, logs := rivals(t, agent)
		time.Sleep(time.Minute)
		before := len(agent.Requests(registerPath))
		for range 5 * 60 * 20 {
			time.Sleep(50 * time.Millisecond)
			if e := seen(t, c, lives[1]); e == nil || e.Service.Port != 5000 || e.Checks.AggregatedStatus() != api.HealthPassing {
				t.Fatalf("the entry is %+v; want that of the process that registered last", e)
			}
		}
		if n := len(agent.Requests(registerPath)) - before; n != 0 {
			t.Errorf("registered %d times in 5 minutes; want no race", n)
		}
		if err := lives[0].Drain(t.Context()); err != nil {
			t.Error(err)
		}
		if err := lives[0].Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if e := seen(t, c, lives[1]); e == nil || e.Checks.AggregatedStatus() != api.HealthPassing {
			t.Errorf("after the other one drained and left, the entry is %+v; want it untouched", e)
		}
		for n, log := range logs {
			if told := log.count("ERROR"); told != 1-n {
				t.Errorf("process %d told of it %d times; want the earlier one once: %q", n, told, log.text)
			}
		}
	})
}

// TestDrainedAtOnceAfterTheIDWasTakenTouchesNothing is a drain that begins before
// the loss was seen.
func TestDrainBeforeTheLossOfTheIDWasSeenTouchesNothing(t *testing.T) {
	for _, how := range []string{"drain", "close"} {
		in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
			cfg.ID = "order-1"
			old := begun(t, cfg)
			cfg.Port = 5000
			next := begun(t, cfg)
			if how == "drain" {
				if err := old.Drain(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if err := old.Close(); err != nil {
				t.Error(err)
			}
			if e := seen(t, agent.Client(), next); e == nil || e.Checks.AggregatedStatus() != api.HealthPassing {
				t.Errorf("%s of the old process: the new one's entry is %+v; want it untouched", how, e)
			}
		})
	}
}

func TestTwoRegistrationsOfOneIDInAProcessAreAnError(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		shared, err := NewAgent(AgentConfig{Client: agent.Client(), Log: cfg.Log})
		if err != nil {
			t.Fatal(err)
		}
		defer shared.Close()
		cfg.Agent = shared
		r, err := Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Start(cfg); err == nil || !strings.Contains(err.Error(), r.ID()) {
			t.Errorf("the second one says %v; want an error with the ID", err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r, err = Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
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
				if r.Method == http.MethodGet && !strings.HasPrefix(r.Path, "/v1/status/") && r.Path != "/v1/agent/self" && !strings.HasPrefix(r.Path, "/v1/agent/service/") && r.Query.Get("filter") == "" {
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

func TestAgentThatIsClosedBeforeItsRegistrationsHarmsNothing(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		shared, err := NewAgent(AgentConfig{Client: agent.Client(), Log: cfg.Log, Trace: &Trace{Attempted: func(_, _, _ string, _ error) {}}})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Agent = shared
		r := begun(t, cfg)
		shared.Close()
		shared.Close()
		time.Sleep(time.Minute)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if seen(t, agent.Client(), r) != nil {
			t.Error("the entry is there still")
		}
	})
}
