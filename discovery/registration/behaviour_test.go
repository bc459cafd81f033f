package registration

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestInstanceLivesInConsul(t *testing.T) {
	t.Parallel()
	behaviours(t, map[string]func(t *testing.T, b backend){
		"goes through every change of the drawing":   goesThroughEveryChange,
		"is registered whole":                        isRegisteredWhole,
		"passes only when ready":                     passesOnlyWhenReady,
		"is seen before it is registered":            isSeenBeforeRegistered,
		"is found at once with a passing probe":      isFoundAtOnce,
		"has a bare IPv6 address":                    hasBareIPv6,
		"comes back after a wipe":                    comesBackAfterWipe,
		"comes back after an operator's deregister":  comesBackAfterDeregister,
		"comes back when the TTL check is lost":      func(t *testing.T, b backend) { comesBackWithCheck(t, b, heartbeatCheck) },
		"comes back when the HTTP check is lost":     func(t *testing.T, b backend) { comesBackWithCheck(t, b, probeCheck) },
		"keeps its maintenance through a mend":       keepsMaintenance,
		"beats without touching the index":           beatsWithoutTouchingIndex,
		"takes over its ID and leaves no old check":  takesOverItsID,
		"tells of another that claims its ID":        tellsOfRivals,
		"warns of a port that another has":           warnsOfTakenPort,
		"drains, then leaves for good":               drainsThenLeaves,
		"drains when it was critical already":        drainsWhenCritical,
		"is registered again as draining in a drain": isMendedAsDraining,
	}, map[string]func(t *testing.T, s *consultest.Server){
		"is back soon with all others when Consul starts empty": isBackSoonAfterEmptyStart,
		"is kept by a Consul that comes back with its data":     isKeptByConsulWithData,
		"comes back with checks that the agent lost":            comesBackWithChecksOfTheAgent,
		"mends soon what somebody else did to its entry":        mendsWhatSomebodyDid,
	})
}

func isRegisteredWhole(t *testing.T, b backend) {
	cfg := settings(t, b)
	cfg.Tags = []string{"prometheus", "v1"}
	cfg.Meta = map[string]string{"version": "1.2.3", "prometheus_path": "/metrics"}
	cfg.Weight = 3
	cfg.Region, cfg.Zone = "eu", "eu-1"
	r := begun(t, cfg)
	e := seen(t, b.Client(), r)
	got := []any{e.Service.ID, e.Service.Address, e.Service.Port, e.Service.Tags, userMeta(e), e.Service.Weights, e.Service.Locality}
	want := []any{r.ID(), "127.0.0.1", 4000, cfg.Tags, cfg.Meta, api.AgentWeights{Passing: 3, Warning: 1}, &api.Locality{Region: "eu", Zone: "eu-1"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
	if check(e, r.ID()+":rollcall") == nil || check(e, r.ID()+":probe") == nil {
		t.Errorf("checks are %v; want the heartbeat and the probe", e.Checks)
	}
}

func passesOnlyWhenReady(t *testing.T, b backend) {
	c := b.Client()
	var store switchable
	store.set(errors.New("the store is not open"))
	cfg := settings(t, b)
	cfg.Ready = store.ready
	r := begun(t, cfg)
	eventually(t, "critical with the reason", func() bool {
		k := check(seen(t, c, r), r.ID()+":rollcall")
		return k != nil && k.Status == api.HealthCritical && k.Output == "not ready: the store is not open"
	})
	if k := check(seen(t, c, r), r.ID()+":probe"); k == nil || k.Status == api.HealthPassing {
		// A real Consul may have run it by now, but it began as critical.
		if k == nil || k.Output == "" {
			t.Errorf("the probe of an instance that is not ready is %+v; want critical until its first run", k)
		}
	}

	store.set(nil)
	r.Refresh()
	eventually(t, "passing after Refresh", func() bool { return status(t, c, r) == api.HealthPassing })

	store.set(errors.New("the disk is full"))
	eventually(t, "critical without Refresh", func() bool { return status(t, c, r) == api.HealthCritical })
	if k := check(seen(t, c, r), r.ID()+":rollcall"); k.Output != "not ready: the disk is full" {
		t.Errorf("output is %q; want the reason", k.Output)
	}
}

func isSeenBeforeRegistered(t *testing.T, b backend) {
	c := b.Client()
	cfg := settings(t, b)
	found := make(chan bool, 10)
	var r *Registration
	made := make(chan struct{})
	cfg.Trace = &Trace{Changed: func(_, _ string, _, to State, _ string) {
		if to == StateRegistered {
			<-made
			entries, _, err := c.Health().Service(cfg.Service, "", false, nil)
			found <- err == nil && len(entries) == 1 && check(entries[0], r.ID()+":rollcall") != nil && check(entries[0], r.ID()+":probe") != nil
		}
	}}
	r = start(t, cfg)
	close(made)
	if !<-found {
		t.Error("registered before the entry and its checks are in the catalog")
	}
	if err := r.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func isFoundAtOnce(t *testing.T, b backend) {
	c := b.Client()
	r := begun(t, settings(t, b))
	entries, _, err := c.Health().Service(r.cfg.Service, "", true, nil)
	if err != nil || len(entries) != 1 {
		t.Fatalf("found %d passing instances (%v); want 1, before the first run of its probe", len(entries), err)
	}
}

func hasBareIPv6(t *testing.T, b backend) {
	cfg := settings(t, b)
	cfg.Host = ""
	cfg.ConsulAddr = "[fd00::1]:8500"
	var net cable
	net.plug("fd00::7")
	cfg.network = &net
	r := begun(t, cfg)
	if e := seen(t, b.Client(), r); e.Service.Address != "fd00::7" {
		t.Errorf("address is %q; want fd00::7", e.Service.Address)
	}
}

func comesBackAfterWipe(t *testing.T, b backend) {
	c := b.Client()
	r := begun(t, settings(t, b))
	b.Wipe() // a real one returns when it has a leader
	wiped := time.Now()
	eventually(t, "back after the wipe", func() bool { return status(t, c, r) == api.HealthPassing })
	if took := time.Since(wiped); took > 5*time.Second {
		t.Errorf("back %v after the wipe; want at most 5s", took)
	}
	if check(seen(t, c, r), r.ID()+":probe") == nil {
		t.Error("came back without its HTTP check")
	}
	inState(t, r, StateRegistered)
}

func comesBackAfterDeregister(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := settings(t, b)
	cfg.Trace = d.trace()
	r := begun(t, cfg)
	if err := c.Agent().ServiceDeregister(r.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back after the deregister", func() bool { return status(t, c, r) == api.HealthPassing && len(d.all()) == 3 })
	if diff := cmp.Diff([]string{"starting to registered", "registered to recovering", "recovering to registered"}, d.all()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func comesBackWithCheck(t *testing.T, b backend, id func(string) string) {
	c := b.Client()
	r := begun(t, settings(t, b))
	e := seen(t, c, r)
	lost := id(r.ID())
	if _, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: e.Node.Node, CheckID: lost}, nil); err != nil {
		t.Fatal(err)
	}
	if check(seen(t, c, r), lost) != nil {
		t.Fatal("the check was not lost")
	}
	eventually(t, "check back", func() bool { return check(seen(t, c, r), lost) != nil && status(t, c, r) == api.HealthPassing })
}

func keepsMaintenance(t *testing.T, b backend) {
	c := b.Client()
	r := begun(t, settings(t, b))
	const why = "replacing the disk & the fan"
	if err := c.Agent().EnableServiceMaintenance(r.ID(), why); err != nil {
		t.Fatal(err)
	}
	e := seen(t, c, r)
	lost := r.ID() + ":probe"
	if _, err := c.Catalog().Deregister(&api.CatalogDeregistration{Node: e.Node.Node, CheckID: lost}, nil); err != nil {
		t.Fatal(err)
	}
	was := e.Service.CreateIndex
	eventually(t, "mended", func() bool {
		e := seen(t, c, r)
		if e != nil && e.Checks.AggregatedStatus() == api.HealthPassing {
			t.Fatal("passing and out of maintenance in the middle of a mend")
		}
		return e != nil && e.Service.CreateIndex > was && check(e, lost) != nil && check(e, api.ServiceMaintPrefix+r.ID()) != nil
	})
	if m := check(seen(t, c, r), api.ServiceMaintPrefix+r.ID()); m.Notes != why {
		t.Errorf("maintenance says %q; want %q", m.Notes, why)
	}
	eventually(t, "beating behind the maintenance", func() bool { return status(t, c, r) == api.HealthPassing })
	if err := c.Agent().DisableServiceMaintenance(r.ID()); err != nil {
		t.Fatal(err)
	}
	if check(seen(t, c, r), api.ServiceMaintPrefix+r.ID()) != nil {
		t.Error("the operator can't end the maintenance")
	}
}

func beatsWithoutTouchingIndex(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := settings(t, b)
	cfg.Trace = d.trace()
	cfg.HeartbeatInterval = 100 * time.Millisecond
	cfg.Checks[0].Interval = time.Minute // its first run changes the probe's output
	r := begun(t, cfg)
	index := func() uint64 {
		_, meta, err := c.Health().Service(r.cfg.Service, "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		return meta.LastIndex
	}
	before, beats := index(), d.count(opHeartbeat)
	eventually(t, "ten beats", func() bool { return d.count(opHeartbeat) >= beats+10 })
	if after := index(); after != before {
		t.Errorf("ten beats moved the index from %d to %d", before, after)
	}
}

func takesOverItsID(t *testing.T, b backend) {
	c := b.Client()
	cfg := settings(t, b)
	cfg.ID = cfg.Service + "-1"
	cfg.Checks = nil
	log := newLines()
	cfg.Log = slog.New(log)
	err := c.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: cfg.ID, Name: cfg.Service, Address: "127.0.0.9", Port: 9999,
		Checks: api.AgentServiceChecks{
			{CheckID: heartbeatCheck(cfg.ID), TTL: "30s", Status: api.HealthPassing},
			{CheckID: cfg.ID + ":old", TTL: "30s", Status: api.HealthPassing},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := begun(t, cfg)
	eventually(t, "the old entry replaced", func() bool {
		e := seen(t, c, r)
		return e != nil && e.Service.Address == "127.0.0.1" && e.Service.Port == 4000 && check(e, cfg.ID+":old") == nil
	})
	if n := log.count("WARN taking over"); n != 1 {
		t.Errorf("warned %d times of an entry that passed elsewhere; want once", n)
	}
}

func drainsThenLeaves(t *testing.T, b backend) {
	c := b.Client()
	var d diary
	cfg := settings(t, b)
	cfg.Settle = 200 * time.Millisecond
	cfg.Trace = d.trace()
	r := begun(t, cfg)
	began := time.Now()
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < cfg.Settle {
		t.Errorf("drained within %v; want a settle time of %v at least", took, cfg.Settle)
	}
	k := check(seen(t, c, r), r.ID()+":rollcall")
	if k == nil || k.Status != api.HealthCritical || !strings.HasPrefix(k.Output, "draining") {
		t.Errorf("after the drain the check is %+v; want critical and draining", k)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "gone", func() bool { return seen(t, c, r) == nil })
	if diff := cmp.Diff([]string{"starting to registered", "registered to draining", "draining to deregistered"}, d.all()); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
}

func drainsWhenCritical(t *testing.T, b backend) {
	cfg := settings(t, b)
	cfg.Ready = func() error { return errors.New("no disk") }
	cfg.Settle = 10 * time.Millisecond
	cfg.ConsulTimeout = 20 * time.Second
	r := begun(t, cfg)
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.exhausted.Load() {
		t.Error("a drain of a critical instance was not seen; want it to be seen as critical")
	}
}

func isMendedAsDraining(t *testing.T, b backend) {
	c := b.Client()
	cfg := settings(t, b)
	cfg.Settle, cfg.SettleMax = 10*time.Millisecond, 10*time.Millisecond
	r := begun(t, cfg)
	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Agent().ServiceDeregister(r.ID()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "back as draining", func() bool {
		e := seen(t, c, r)
		if e != nil && e.Checks.AggregatedStatus() != api.HealthCritical {
			t.Fatalf("an instance in a drain is %s", e.Checks.AggregatedStatus())
		}
		k := check(e, r.ID()+":rollcall")
		return k != nil && k.Status == api.HealthCritical && strings.HasPrefix(k.Output, "draining")
	})
}
