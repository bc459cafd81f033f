package app

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

const (
	updatePath     = "/v1/agent/check/update/"
	deregisterPath = "/v1/agent/service/deregister/"
)

// reachable is a Consul in memory, at an address. entry is the status of the
// service's entry in its catalog; "" if there is none.
func reachable(t *testing.T) (agent *consultest.Agent, addr string, entry func() string) {
	t.Helper()
	agent = consultest.New(t)
	addr, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	c := agent.Client()
	return agent, addr, func() string {
		t.Helper()
		entries, _, err := c.Health().Service("user", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return ""
		}
		return entries[0].Checks.AggregatedStatus()
	}
}

// registered waits until the entry passes and the service has seen that.
func (p *program) registered(entry func() string) {
	p.t.Helper()
	p.eventually("registered", func() bool {
		_, body, err := p.get(p.admin + "/metrics")
		return err == nil && strings.Contains(body, `rollcall_registration_state{service="user",state="registered"} 1`) && entry() == "passing"
	})
}

// holding is a handler that holds requests for /held until it is released.
type holding struct {
	inside, release chan struct{}
}

func (h holding) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/held" {
		close(h.inside)
		select {
		case <-h.release:
		case <-r.Context().Done():
		}
	}
	fmt.Fprint(w, "served")
}

func newHolding() holding { return holding{make(chan struct{}), make(chan struct{})} }

// TestDrainTakesItsStepsInOrder holds each step up, sees that the next one has not
// begun, and lets it go.
func TestDrainTakesItsStepsInOrder(t *testing.T) {
	t.Parallel()
	agent, addr, entry := reachable(t)
	h := newHolding()
	p := begin(t, addr, h, "--settle=1s", "--settle-max=30s", "--drain-timeout=1m")
	p.registered(entry)
	held := make(chan string, 1)
	go func() {
		code, body, err := p.get(p.traffic + "/held")
		held <- fmt.Sprint(code, " ", body, " ", err)
	}()
	wait(t, h.inside)
	serves := func() {
		t.Helper()
		if code, body, err := p.get(p.traffic + "/"); code != 200 || body != "served" {
			t.Errorf("a new request got %d %q %v; want it served", code, body, err)
		}
	}

	// Not ready first, while Consul still knows nothing of it.
	agent.Break(updatePath, consultest.Paused())
	p.signals <- syscall.SIGTERM
	p.eventually("readiness says draining", func() bool {
		code, body, err := p.get(p.admin + "/readyz")
		return err == nil && code == 503 && strings.Contains(body, `"draining"`)
	})
	if entry() != "passing" {
		t.Error("the entry does not pass any more; want readiness to turn first")
	}
	serves()

	// Then told, and served until that is seen, and a settle time longer.
	agent.Break("/v1/health/node/", consultest.Paused())
	agent.Mend(updatePath)
	p.eventually("critical in the catalog", func() bool { return entry() == "critical" })
	serves()
	agent.Mend("/v1/health/node/")
	// New requests prolong the settle time: they come for three of it.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(30 * time.Millisecond) {
		serves()
	}

	// None comes any more: the listener closes, and what is in flight goes on.
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	p.eventually("the listener is closed", func() bool {
		time.Sleep(1200 * time.Millisecond) // longer than a settle time
		resp, err := fresh.Get(p.traffic + "/")
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	if e := entry(); e != "critical" || len(agent.Requests(deregisterPath)) != 0 {
		t.Errorf("with a request in flight the entry is %q; want it critical, and not deregistered", e)
	}
	agent.Break(deregisterPath, consultest.Paused())
	close(h.release)
	if got := wait(t, held); got != "200 served <nil>" {
		t.Errorf("the request in flight got %s; want it served", got)
	}

	// Deregistered then, and only after that the store and the admin port close.
	p.eventually("deregistering", func() bool { return len(agent.Requests(deregisterPath)) == 1 })
	if len(p.closed) != 0 {
		t.Error("the store is closed before the entry is gone")
	}
	if code, body, err := p.get(p.admin + "/metrics"); code != 200 || !strings.Contains(body, `rollcall_registration_transitions_total{from="registered",service="user",to="draining"} 1`) {
		t.Errorf("/metrics while it deregisters: %d, %v; want it to tell of the drain to the end:\n%s", code, err, about(body, "rollcall_registration"))
	}
	agent.Mend()
	p.exit(ExitDrained)
	if e := entry(); e != "" {
		t.Errorf("after the exit the entry is %q; want none", e)
	}
	if _, _, err := p.get(p.admin + "/livez"); err == nil || len(p.closed) != 2 {
		t.Errorf("after the exit %d of 2 parts are closed, and the admin port says %v", len(p.closed), err)
	}
}

func TestRequestsThatNeverEndComingDoNotProlongADrainForEver(t *testing.T) {
	t.Parallel()
	_, addr, entry := reachable(t)
	p := begin(t, addr, hello, "--settle=200ms", "--settle-max=1s", "--drain-timeout=1m")
	p.registered(entry)
	var stop atomic.Bool
	defer stop.Store(true)
	go func() {
		for !stop.Load() {
			_, _, _ = p.get(p.traffic + "/") // until it closes
			time.Sleep(10 * time.Millisecond)
		}
	}()
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}

func TestSecondSignalCutsAnyStepOfADrainShort(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		hold string // a path of Consul's that is held up
		held bool   // a request in flight
	}{
		"told to Consul":   {hold: updatePath},
		"seen":             {hold: "/v1/health/"},
		"settling":         {args: []string{"--settle=1m", "--settle-max=5m"}},
		"in flight":        {held: true},
		"deregistered":     {hold: deregisterPath},
		"without a Consul": {hold: "/v1/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent, addr, entry := reachable(t)
			h := newHolding()
			p := begin(t, addr, h, append(c.args, "--drain-timeout=1h")...)
			p.registered(entry)
			if c.held {
				go func() { _, _, _ = p.get(p.traffic + "/held") }()
				wait(t, h.inside)
			}
			if c.hold != "" {
				agent.Break(c.hold, consultest.Paused())
			}
			p.signals <- syscall.SIGTERM
			p.eventually("it drains", func() bool { return strings.Contains(p.log.String(), `"msg":"draining"`) })
			if c.hold == deregisterPath {
				p.eventually("it deregisters", func() bool { return len(agent.Requests(deregisterPath)) > 0 })
			}
			p.signals <- syscall.SIGTERM
			p.exit(ExitCut) // within the limit of a test, far below the drain's own
			if _, _, err := p.get(p.admin + "/livez"); err == nil {
				t.Error("the admin port still answers")
			}
		})
	}
}

func TestReadinessAndMetricsTellEachStateOfTheRegistration(t *testing.T) {
	t.Parallel()
	agent, addr, _ := reachable(t)
	agent.Break("", consultest.Fail(http.StatusInternalServerError, "No cluster leader"))
	h := newHolding()
	p := begin(t, addr, h, "--drain-timeout=1m", "--settle=100ms")
	tells := func(word string) {
		t.Helper()
		last := ""
		defer func() {
			if t.Failed() {
				t.Log(last)
			}
		}()
		p.eventually("/readyz says "+word, func() bool {
			_, body, err := p.get(p.admin + "/readyz")
			last = body
			return err == nil && strings.Contains(body, `"why": "`+word)
		})
	}
	tells("starting: Consul refuses: ")
	if _, body, err := p.get(p.admin + "/metrics"); err != nil || !strings.Contains(body, `rollcall_registration_state{service="user",state="starting"} 1`) {
		t.Errorf("/metrics does not say starting (%v):\n%s", err, about(body, "rollcall_registration"))
	}
	agent.Mend()
	p.eventually("/readyz says nothing against the registration", func() bool {
		_, body, err := p.get(p.admin + "/readyz")
		return err == nil && !strings.Contains(body, "starting") && !strings.Contains(body, "recovering")
	})
	agent.Break("", consultest.Refuse())
	tells("recovering: Consul does not answer: ")
	agent.Mend()
	p.eventually("registered again", func() bool {
		_, body, err := p.get(p.admin + "/metrics")
		return err == nil && strings.Contains(body, `rollcall_registration_transitions_total{from="recovering",service="user",to="registered"} 1`)
	})
	go func() { _, _, _ = p.get(p.traffic + "/held") }()
	wait(t, h.inside)
	p.signals <- syscall.SIGTERM
	tells("draining: ")
	_, body, err := p.get(p.admin + "/metrics")
	for _, want := range []string{
		`rollcall_registration_transitions_total{from="starting",service="user",to="registered"} 1`,
		`rollcall_registration_transitions_total{from="registered",service="user",to="recovering"} 1`,
		`rollcall_registration_transitions_total{from="registered",service="user",to="draining"} 1`,
		`rollcall_registration_state{service="user",state="draining"} 1`,
	} {
		if err != nil || !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s (%v):\n%s", want, err, about(body, "rollcall_registration"))
		}
	}
	close(h.release)
	p.exit(ExitDrained)
	if n := strings.Count(p.log.String(), `"msg":"registration changed"`); n != 5 {
		t.Errorf("%d changes in the log; want 5, to gone:\n%s", n, p.log)
	}
}

func TestReadinessThatAProbeFindsChangedIsInTheCatalogBeforeTheNextHeartbeat(t *testing.T) {
	t.Parallel()
	_, addr, entry := reachable(t)
	p := begin(t, addr, hello)
	p.registered(entry)
	for _, step := range []struct {
		broken bool
		code   int
		status string
	}{{true, 503, "critical"}, {false, 200, "passing"}} {
		p.broken.Store(step.broken)
		p.eventually("a probe has seen it", func() bool {
			code, _, err := p.get(p.admin + "/readyz")
			return err == nil && code == step.code
		})
		began := time.Now()
		p.eventually(step.status+" in the catalog", func() bool { return entry() == step.status })
		// A heartbeat comes every 10 s, and one has just been sent.
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s was in the catalog after %v; want within a second, and long before the next heartbeat", step.status, took)
		}
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}

// about is the lines of a page that begin with a word.
func about(page, word string) string {
	var found []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, word) {
			found = append(found, line)
		}
	}
	return strings.Join(found, "")
}
