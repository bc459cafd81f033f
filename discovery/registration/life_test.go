package registration

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// in runs a test in a bubble with a fake agent and the settings for it.
func in(t *testing.T, f func(t *testing.T, agent *consultest.Agent, cfg Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		agent := consultest.New(t)
		f(t, agent, settings(t, agent))
	})
}

const (
	updatePath   = "/v1/agent/check/update/"
	registerPath = "/v1/agent/service/register"
)

func TestDefaultIDNamesServiceHostAndPort(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	in(t, func(t *testing.T, _ *consultest.Agent, cfg Config) {
		cfg.Service = "order"
		if got, want := start(t, cfg).ID(), "order-"+host+"-4000"; got != want {
			t.Errorf("ID is %q; want %q", got, want)
		}
	})
}

func TestAdvertisesTheLocalAddressOfTheWayToConsul(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		cfg.Host, cfg.ConsulAddr = "", "http://"+consultest.Address
		r := begun(t, cfg)
		if got := seen(t, agent.Client(), r).Service.Address; got != "127.0.0.1" {
			t.Errorf("address is %q; want 127.0.0.1", got)
		}
	})
}

func TestChangedAddressIsRegisteredAnew(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		var net cable
		net.plug("10.0.0.7")
		cfg.Host, cfg.ConsulAddr, cfg.network = "", "consul:8500", &net
		r := begun(t, cfg)
		net.plug("")
		inState(t, r, StateRecovering)
		if why := r.Status().Why; !strings.Contains(why, "10.0.0.7") && !strings.Contains(why, "unreachable") {
			t.Errorf("recovering because %q; want the address or the network named", why)
		}
		net.plug("10.0.1.9")
		inState(t, r, StateRegistered)
		if got := seen(t, c, r).Service.Address; got != "10.0.1.9" {
			t.Errorf("address is %q; want 10.0.1.9", got)
		}
	})
}

func TestAnotherWayToConsulIsNoChangedAddress(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		net := &twoHomed{}
		cfg.Host, cfg.ConsulAddr, cfg.network = "", "consul:8500", net
		r := begun(t, cfg)
		time.Sleep(time.Minute)
		if n := len(agent.Requests(registerPath)); n != 1 || r.Status().State != StateRegistered {
			t.Errorf("registered %d times, state %v; want once", n, r.Status().State)
		}
	})
}

func TestWipedServersBehindTheAgentAreMended(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		if err := c.Agent().EnableServiceMaintenance(r.ID(), "new disk"); err != nil {
			t.Fatal(err)
		}
		agent.LoseLeader() // servers that start anew have none at first
		time.Sleep(1200 * time.Millisecond)
		agent.WipeServers()
		agent.ElectLeader()
		within(t, 12*time.Second, "back after the servers had a leader", func() bool { return status(t, c, r) == api.HealthPassing })
		e := seen(t, c, r)
		if check(e, probeCheck(r.ID())) == nil {
			t.Error("came back without its HTTP check")
		}
		if m := check(e, api.ServiceMaintPrefix+r.ID()); m == nil || m.Notes != "new disk" {
			t.Errorf("maintenance is %+v; want it back, since the agent remembers it", m)
		}
	})
}

func TestMaintenanceOutlivesAMendThatFailsInTheMiddle(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		if err := c.Agent().EnableServiceMaintenance(r.ID(), "new disk"); err != nil {
			t.Fatal(err)
		}
		agent.Break(registerPath, consultest.Fail(http.StatusInternalServerError, "no"))
		agent.WipeServers()
		time.Sleep(20 * time.Second)
		agent.Mend()
		inState(t, r, StateRegistered)
		if m := check(seen(t, c, r), api.ServiceMaintPrefix+r.ID()); m == nil || m.Notes != "new disk" {
			t.Errorf("maintenance is %+v; want it back", m)
		}
	})
}

func TestMaintenanceOfTheNodeStays(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		if err := c.Agent().EnableNodeMaintenance("rack move"); err != nil {
			t.Fatal(err)
		}
		if err := c.Agent().ServiceDeregister(r.ID()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "back", func() bool { return status(t, c, r) == api.HealthPassing })
		if check(seen(t, c, r), api.NodeMaint) == nil {
			t.Error("the node's maintenance was ended")
		}
	})
}

func TestBeatsEveryTenSecondsWithOneConstantOutput(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		begun(t, cfg)
		before, index := len(agent.Requests(updatePath)), agent.Index()
		time.Sleep(101 * time.Second)
		if n := len(agent.Requests(updatePath)) - before; n != 10 {
			t.Errorf("%d beats in 101s; want 10", n)
		}
		if got := agent.Index(); got != index {
			t.Errorf("ten beats moved the index from %d to %d", index, got)
		}
		if n := len(agent.Requests("/v1/health/service/")); n != 0 {
			t.Errorf("%d looks at the service in 101s; want none: each costs Consul a read of the whole service", n)
		}
	})
}

func TestOneMissedBeatIsNoFlap(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		var d diary
		cfg.Trace = d.trace()
		r := begun(t, cfg)
		index, before := agent.Index(), len(agent.Requests(updatePath))
		agent.Break(updatePath, consultest.Silent())
		eventually(t, "one beat swallowed", func() bool { return len(agent.Requests(updatePath)) == before+1 })
		agent.Mend()
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]string{"starting to registered"}, d.all()); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		if got := status(t, c, r); got != api.HealthPassing || agent.Index() != index {
			t.Errorf("the check is %s, the index went from %d to %d; want no change", got, index, agent.Index())
		}
	})
}

func TestConsulMayComeLater(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		log := newLines()
		cfg.Log = slog.New(log)
		agent.Break("", consultest.Refuse())
		r := start(t, cfg)
		time.Sleep(10 * time.Minute)
		if s := r.Status(); s.State != StateStarting || !strings.Contains(s.Why, "does not answer") {
			t.Errorf("status is %+v; want starting, because Consul does not answer", s)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Wait(short); err == nil || !strings.Contains(err.Error(), "refused") || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait says %v; want the refused connection, and the context's end", err)
		}
		agent.Mend()
		came := time.Now()
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(came); took > time.Second {
			t.Errorf("seen %v after Consul came; want 1s at most", took)
		}
		if n := log.count("WARN"); n != 1 {
			t.Errorf("%d warnings in one outage; want 1: %q", n, log.text)
		}
	})
}

func TestConsulThatComesBackIsLookedAtAtOnce(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		log := newLines()
		cfg.Log = slog.New(log)
		r := begun(t, cfg)
		for range 2 {
			agent.Break("", consultest.Refuse())
			inState(t, r, StateRecovering)
			time.Sleep(5 * time.Minute)
			agent.Wipe()
			agent.Mend()
			came := time.Now()
			inState(t, r, StateRegistered)
			if took := time.Since(came); took > time.Second {
				t.Errorf("registered %v after Consul came; want 1s at most", took)
			}
			if got := status(t, c, r); got != api.HealthPassing {
				t.Errorf("the check is %q; want passing", got)
			}
		}
		if n := log.count("WARN"); n != 2 {
			t.Errorf("%d warnings in two outages; want 2: %q", n, log.text)
		}
	})
}

func TestTriesAreSpacedByWhatWentWrong(t *testing.T) {
	for _, c := range []struct {
		name     string
		path     string
		fault    consultest.Fault
		min, max int // requests, or attempts, in a minute of a long outage
	}{
		// Full jitter up to 500ms means about 4 tries a second: everybody is to be
		// back within a second of Consul's return.
		{"no connection", "", consultest.Refuse(), 150, 330},
		{"429", "", consultest.Fail(http.StatusTooManyRequests, "too many connections"), 4, 30},
		{"403", "", consultest.Fail(http.StatusForbidden, "Permission denied"), 4, 30},
		{"500", "", consultest.Fail(http.StatusInternalServerError, "No cluster leader"), 4, 30},
		// A look is three reads here: the leader, who the agent is, and whose our checks are.
		{"403 of the agent", "/v1/agent/", consultest.Fail(http.StatusForbidden, "Permission denied"), 4, 75},
		// The entry that is there is watched meanwhile: two answers each 750ms.
		{"403 to register", registerPath, consultest.Fail(http.StatusForbidden, "Permission denied"), 0, 200},
		{"HTML", "", consultest.HTML(), 4, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, begin := range []string{"before it begins", "later"} {
				t.Run(begin, func(t *testing.T) {
					in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
						var d diary
						cfg.Trace = d.trace()
						if begin == "later" {
							begun(t, cfg)
							agent.Break(c.path, c.fault)
						} else {
							agent.Break(c.path, c.fault)
							start(t, cfg)
						}
						time.Sleep(2 * time.Minute)
						attempts := func() int {
							return d.count(opHeartbeat) + d.count(opRegister) + d.count(opDeregister) + d.count(opRead)
						}
						before := attempts()
						time.Sleep(4 * time.Minute)
						if n := (attempts() - before) / 4; n < c.min || n > c.max {
							t.Errorf("%d attempts a minute; want %d to %d", n, c.min, c.max)
						}
					})
				})
			}
		})
	}
}

func TestReadersTroubleDoesNotStopBeats(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		for _, fault := range []consultest.Fault{
			consultest.Fail(http.StatusInternalServerError, "No cluster leader"), consultest.Silent(), consultest.Filtered(),
		} {
			agent.Break("/v1/health/", fault)
			time.Sleep(holdChecks + holdSlack) // a held question that is swallowed is found no sooner
			inState(t, r, StateRecovering)
			time.Sleep(3 * time.Minute)
			if n := len(agent.Requests(registerPath)); n != 1 {
				t.Fatalf("registered %d times because the catalog can't be read; want once", n)
			}
			agent.Mend()
			if got := status(t, c, r); got != api.HealthPassing {
				t.Errorf("the check is %q after 3 minutes without a readable catalog; want passing", got)
			}
			inState(t, r, StateRegistered)
		}
	})
}

func TestLostLeaderIsNoRegistration(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		agent.LoseLeader()
		r := start(t, cfg)
		time.Sleep(time.Minute)
		if s := r.Status(); s.State != StateStarting || !strings.Contains(s.Why, "no leader") {
			t.Errorf("status is %+v while nobody can see the entry; want starting, for want of a leader", s)
		}
		// A registration would wait inside of Consul, beyond the election.
		if n := len(agent.Requests(registerPath)); n != 0 {
			t.Errorf("registered %d times with a cluster that has no leader; want 0", n)
		}
		if n := len(agent.Requests("/v1/status/leader")); n < 150 || n > 330 {
			t.Errorf("asked for the leader %d times in a minute; want 150 to 330", n)
		}
		agent.ElectLeader()
		elected := time.Now()
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(elected); took > time.Second {
			t.Errorf("seen %v after the election; want 1s at most", took)
		}
	})
}

func TestRunOutTTLIsRevivedAtOnce(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		c := agent.Client()
		r := begun(t, cfg)
		agent.Break(updatePath, consultest.Silent())
		time.Sleep(40 * time.Second)
		if got := status(t, c, r); got != api.HealthCritical {
			t.Fatalf("the check is %q after 40s without a beat; want critical, run out", got)
		}
		agent.Mend()
		mended := time.Now()
		eventually(t, "passing again", func() bool { return status(t, c, r) == api.HealthPassing })
		if took := time.Since(mended); took > 7*time.Second {
			t.Errorf("passing %v after Consul went on; want a call's limit and a retry", took)
		}
	})
}

func TestReasonOfAnInstanceThatIsNotReadyIsClipped(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		cfg.Ready = func() error { return errors.New(strings.Repeat("ä", 5000) + "\xff") }
		r := begun(t, cfg)
		k := check(seen(t, agent.Client(), r), heartbeatCheck(r.ID()))
		if len(k.Output) > maxReasonBytes+len(notReadyPrefix) || !strings.HasPrefix(k.Output, "not ready: ää") {
			t.Errorf("output is %d bytes: %q", len(k.Output), k.Output)
		}
	})
}

func TestReadinessThatChangesItsWordsBeatsNoFaster(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		cfg.Ready = func() error { return errors.New("for " + time.Now().String()) }
		begun(t, cfg)
		before := len(agent.Requests(updatePath))
		time.Sleep(51 * time.Second)
		if n := len(agent.Requests(updatePath)) - before; n > 6 {
			t.Errorf("%d beats in 51s; want about 5", n)
		}
	})
}

// TestNeverMoreThanOneCallInFlightBesideTheTwoQuestions holds for every phase of a
// life.
func TestNeverMoreThanOneCallInFlightBesideTheTwoQuestions(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		rng := rand.New(rand.NewPCG(3, 4))
		c := agent.Client()
		var line wire
		cfg.Client = line.client(t, agent)
		r := begun(t, cfg)
		for range 300 {
			switch rng.IntN(8) {
			case 0:
				agent.Break("", consultest.Paused())
			case 1:
				agent.Mend()
			case 2:
				r.Refresh()
			case 3:
				agent.WipeServers()
			case 4:
				r.agent.Look()
			case 5:
				agent.Wipe()
			case 6:
				agent.LoseLeader()
			case 7:
				agent.ElectLeader()
			}
			time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond)
		}
		agent.Mend()
		agent.ElectLeader()
		inState(t, r, StateRegistered)
		eventually(t, "passing", func() bool { return status(t, c, r) == api.HealthPassing })
		calls, held := line.most()
		if calls > 3 || held > 2 {
			t.Errorf("at most %d calls and %d held questions were in flight; want one call beside the two questions", calls, held)
		}
	})
}

// TestHeartbeatThatHangsWithoutALeaderHoldsUpNothing is what Consul does with one that
// comes before the election: it answers seconds after it.
func TestHeartbeatThatHangsWithoutALeaderHoldsUpNothing(t *testing.T) {
	in(t, func(t *testing.T, agent *consultest.Agent, cfg Config) {
		r := begun(t, cfg)
		time.Sleep(9500 * time.Millisecond) // the next heartbeat is near
		agent.Break("", consultest.Refuse())
		agent.LoseLeader()
		inState(t, r, StateRecovering)
		agent.Mend()
		agent.Break(updatePath, consultest.Paused())
		time.Sleep(1200 * time.Millisecond)
		agent.ElectLeader()
		within(t, time.Second, "registered", func() bool { return r.Status().State == StateRegistered })
		time.Sleep(2 * time.Second)
		agent.Mend()
		eventually(t, "beating", func() bool { return status(t, agent.Client(), r) == api.HealthPassing })
		inState(t, r, StateRegistered)
	})
}
