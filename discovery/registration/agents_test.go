package registration

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// at is how many entries of the service the catalog has, and how many pass.
func at(t *testing.T, c *api.Client, service string) (all, passing int) {
	t.Helper()
	entries, _, err := c.Health().Service(service, "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Checks.AggregatedStatus() == api.HealthPassing {
			passing++
		}
	}
	return len(entries), passing
}

// behind is an Agent whose address leads to two agents.
func behind(t *testing.T, lb *consultest.Balancer, log *lines, shared bool) *Agent {
	t.Helper()
	client := lb.HTTPClient()
	c, err := api.NewClient(&api.Config{Address: consultest.Address, Scheme: "http", HttpClient: client})
	if err != nil {
		t.Fatal(err)
	}
	cfg := AgentConfig{Client: c, CloseIdle: client.CloseIdleConnections, Log: slog.New(log)}
	if !shared {
		cfg.HoldClient = lb.Client()
	}
	a, err := NewAgent(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func TestSeveralAgentsBehindOneAddressLeaveNoGhostAndAreTold(t *testing.T) {
	for _, c := range []struct {
		name   string
		every  time.Duration // the address leads to the other one
		shared bool          // one client for all
	}{
		{"each new connection to the next", 0, false},
		{"in turn, for 7s each", 7 * time.Second, false},
		{"each new connection to the next, one client", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			in(t, func(t *testing.T, first *consultest.Agent, cfg Config) {
				second := first.AddAgent(t, "second")
				lb := consultest.NewBalancer(first, second)
				log := newLines()
				cfg.Agent, cfg.Log = behind(t, lb, log, c.shared), slog.New(log)
				cfg.Client = nil
				r := begun(t, cfg)
				api := first.Client()
				agents := []*consultest.Agent{first, second}
				for n := range 300 {
					if c.every > 0 && n%int(c.every/time.Second) == 0 {
						lb.LeadTo(agents[n/int(c.every/time.Second)%2])
						lb.Cut()
					}
					if n%10 == 9 {
						lb.Cut()
					}
					time.Sleep(time.Second)
					// Over one client's connections, some lead to the wrong agent for a while.
					if all, passing := at(t, api, cfg.Service); passing == 0 || all > 1 && !c.shared {
						t.Fatalf("%d entries after %ds, %d of them pass; want 1", all, n, passing)
					}
				}
				if n := log.count("ERROR Consul's address leads to several agents"); n != 1 {
					t.Errorf("told %d times; want once: %q", n, log.text)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				if all, _ := at(t, api, cfg.Service); all != 0 {
					t.Errorf("%d entries after Close; want none", all)
				}
			})
		})
	}
}

// TestEntryMovesToTheAgentThatIsLeft is an address that leads elsewhere for good, and
// back later.
func TestEntryMovesToTheAgentThatIsLeftAndIsLeftEverywhere(t *testing.T) {
	in(t, func(t *testing.T, first *consultest.Agent, cfg Config) {
		second := first.AddAgent(t, "second")
		lb := consultest.NewBalancer(first, second)
		lb.LeadTo(first)
		log := newLines()
		cfg.Agent, cfg.Log, cfg.Client = behind(t, lb, log, false), slog.New(log), nil
		r := begun(t, cfg)
		c := first.Client()
		lb.LeadTo(second)
		lb.Cut()
		for n := range 120 {
			time.Sleep(time.Second)
			if _, passing := at(t, c, cfg.Service); passing == 0 {
				t.Fatalf("no passing entry %ds after the address led elsewhere", n)
			}
		}
		inState(t, r, StateRegistered)
		if e := seen(t, c, r); e.Node.Node != "second" && len(second.Requests(registerPath)) == 0 {
			t.Errorf("the entry is at %s; want it at the agent that answers", e.Node.Node)
		}
		lb.LeadTo(first, second)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if all, _ := at(t, c, cfg.Service); all != 0 {
			t.Errorf("%d entries after Close; want none on either node", all)
		}
	})
}

func TestCloseNamesTheNodeThatItCouldNotLeave(t *testing.T) {
	in(t, func(t *testing.T, first *consultest.Agent, cfg Config) {
		second := first.AddAgent(t, "second")
		lb := consultest.NewBalancer(first, second)
		lb.LeadTo(first)
		cfg.Agent, cfg.Client = behind(t, lb, newLines(), false), nil
		r := begun(t, cfg)
		lb.LeadTo(second)
		lb.Cut()
		began := time.Now()
		err := r.Close()
		if !errors.Is(err, ErrSeveralAgents) || !strings.Contains(err.Error(), consultest.NodeName) || !strings.Contains(err.Error(), r.ID()) {
			t.Errorf("Close says %v; want the node %q and the ID", err, consultest.NodeName)
		}
		if took := time.Since(began); took > 2100*time.Millisecond {
			t.Errorf("Close took %v; want 2s at most", took)
		}
	})
}

func TestManyRegistrationsOfAProcessShareThreeConnections(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 110} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
				shared, err := NewAgent(AgentConfig{Client: cfg.Client, Log: cfg.Log})
				if err != nil {
					t.Fatal(err)
				}
				defer shared.Close()
				cfg.Agent, cfg.Checks = shared, nil
				var all []*Registration
				for i := range n {
					cfg.Port = 4000 + i
					all = append(all, start(t, cfg))
				}
				for _, r := range all {
					if err := r.Wait(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				c := agent.Client()
				time.Sleep(10 * time.Minute) // by then the outputs of all checks are in the catalog
				if _, passing := at(t, c, cfg.Service); passing != n {
					t.Errorf("%d pass; want %d", passing, n)
				}
				if got := agent.Connections(); got > 4 { // one of them is the test's
					t.Errorf("%d connections; want three, whatever the number of registrations", got)
				}
				before := len(agent.Requests(""))
				time.Sleep(10 * time.Minute)
				if got, most := float64(len(agent.Requests(""))-before)/10, float64(6*n)*1.01+9; got > most {
					t.Errorf("%.1f questions a minute; want at most %.0f", got, most)
				}
				for _, r := range all {
					go func() { _ = r.Close() }()
				}
				for _, r := range all {
					if err := r.Close(); err != nil {
						t.Error(err)
					}
				}
				if all, _ := at(t, c, cfg.Service); all != 0 {
					t.Errorf("%d entries after Close; want none", all)
				}
			})
		})
	}
}

// TestProxyThatCutsWaitsShortIsNoOutage is one in between that gives up on an answer
// after some seconds.
func TestProxyThatCutsWaitsShortIsNoOutage(t *testing.T) {
	for _, limit := range []time.Duration{5 * time.Second, 2500 * time.Millisecond} {
		for _, how := range []string{"504", "closed"} {
			t.Run(fmt.Sprint(how, " after ", limit), func(t *testing.T) {
				in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
					log := newLines()
					cfg.Log = slog.New(log)
					cfg.Client = impatient(t, agent, limit, how)
					r := begun(t, cfg)
					time.Sleep(time.Minute)
					before := len(agent.Requests(""))
					for range 600 {
						time.Sleep(time.Second)
						if s := r.Status().State; s != StateRegistered {
							t.Fatalf("state is %v, because %s; want registered", s, r.Status().Why)
						}
					}
					if n := (len(agent.Requests("")) - before) / 10; n > 90 {
						t.Errorf("%d questions a minute; want it bounded", n)
					}
					if n := log.count("WARN") + log.count("ERROR"); n != 0 {
						t.Errorf("said %q; want nothing", log.text)
					}
					if n := len(agent.Requests(registerPath)); n != 1 {
						t.Errorf("registered %d times; want once", n)
					}
				})
			})
		}
	}
}

// impatient is a client through such a proxy.
func impatient(t *testing.T, agent *consultest.Agent, limit time.Duration, how string) *api.Client {
	t.Helper()
	next := agent.HTTPClient().Transport
	c, err := api.NewClient(&api.Config{Address: consultest.Address, Scheme: "http", HttpClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
		if !req.URL.Query().Has("wait") {
			return next.RoundTrip(req)
		}
		type result struct {
			resp *http.Response
			err  error
		}
		got := make(chan result, 1)
		go func() {
			resp, err := next.RoundTrip(req)
			got <- result{resp, err}
		}()
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case r := <-got:
			return r.resp, r.err
		case <-timer.C:
		}
		go func() {
			if r := <-got; r.err == nil {
				_ = r.resp.Body.Close()
			}
		}()
		if how == "504" {
			return &http.Response{StatusCode: 504, Body: http.NoBody, Header: http.Header{}, Request: req}, nil
		}
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	})}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestRecoveredIsToldOfEachReturnOfConsulsOnce(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		var returns atomic.Int32
		shared, err := NewAgent(AgentConfig{Client: cfg.Client, Log: cfg.Log, Recovered: func() { returns.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		defer shared.Close()
		cfg.Agent = shared
		begun(t, cfg)
		for n := range int32(3) {
			if got := returns.Load(); got != n {
				t.Errorf("told %d times after %d outages; want as many", got, n)
			}
			agent.Break("", consultest.Refuse())
			time.Sleep(10 * time.Second)
			agent.Mend()
			time.Sleep(10 * time.Second)
		}
	})
}

// TestConnectionsThatAreNotKeptCostNoMoreQuestions is a client, or a proxy, that makes a
// connection for each call.
func TestConnectionsThatAreNotKeptCostNoMoreQuestions(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		transport := agent.HTTPClient().Transport.(*http.Transport).Clone()
		transport.DisableKeepAlives = true
		c, err := api.NewClient(&api.Config{Address: consultest.Address, Scheme: "http", HttpClient: &http.Client{Transport: transport}})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Client = c
		r := begun(t, cfg)
		time.Sleep(time.Minute)
		before := len(agent.Requests(""))
		time.Sleep(10 * time.Minute)
		if n := float64(len(agent.Requests(""))-before) / 10; n > 15 {
			t.Errorf("%.1f questions a minute; want 15 at most", n)
		}
		if err := agent.Client().Agent().ServiceDeregister(r.ID()); err != nil {
			t.Fatal(err)
		}
		within(t, time.Second, "back", func() bool { return whole(t, agent.Client(), r) })
	})
}

// TestSeveralAgentsAreToldOfThoughEachConnectionKeepsToOne is an instance whose calls
// all go to one agent, and whose questions go to another.
func TestSeveralAgentsAreToldOfThoughEachConnectionKeepsToOne(t *testing.T) {
	in(t, func(t *testing.T, first *consultest.Agent, cfg Config) {
		second := first.AddAgent(t, "second")
		log := newLines()
		a, err := NewAgent(AgentConfig{Client: first.Client(), HoldClient: second.Client(), Log: slog.New(log)})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		cfg.Agent, cfg.Client = a, nil
		begun(t, cfg)
		time.Sleep(time.Minute)
		if n := log.count("ERROR Consul's address leads to several agents"); n != 1 {
			t.Errorf("told %d times; want once: %q", n, log.text)
		}
		if n := len(first.Requests(registerPath)) + len(second.Requests(registerPath)); n != 1 {
			t.Errorf("registered %d times; want once", n)
		}
	})
}
