package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/discovery/balancer"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// setOf is a snapshot of instances at addresses of their own.
func setOf(t *testing.T, instances ...catalog.Instance) *catalog.Snapshot {
	t.Helper()
	for n := range instances {
		instances[n].Host, instances[n].Port = fmt.Sprintf("10.0.0.%d", n+1), 8080
	}
	var source catalog.Fixed
	if err := source.Set("order", instances...); err != nil {
		t.Fatal(err)
	}
	set, err := source.Latest(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestChoiceSaysWhoIsAskedAndWhyNotTheOthers(t *testing.T) {
	tls := map[string]string{catalog.MetaTLS: "true"}
	passing := catalog.Instance{ID: "passing", Weight: 3}
	for _, c := range []struct {
		name      string
		selection catalog.Selection
		tls       bool
		instances []catalog.Instance
		want      string // tier, ID, share and why of each
		panic     bool
	}{
		{name: "by health", instances: []catalog.Instance{
			{ID: "critical", State: catalog.StateCritical},
			{ID: "draining", State: catalog.StateDraining},
			{ID: "maintenance", State: catalog.StateMaintenance},
			passing,
			{ID: "warning", State: catalog.StateWarning},
		}, want: `
1 passing 75 its checks pass
1 warning 25 a check warns
2 critical 0 if tier 1 fails
0 draining 0 it is leaving
0 maintenance 0 taken out by hand`},
		{name: "panic", panic: true, instances: []catalog.Instance{
			{ID: "critical", State: catalog.StateCritical},
			{ID: "draining", State: catalog.StateDraining},
		}, want: `
1 critical 100 none is ready
0 draining 0 it is leaving`},
		{name: "by selection", selection: catalog.Selection{
			Protocol: catalog.HTTP, Tags: []string{"new"}, NotTags: []string{"slow"}, Meta: map[string]string{"version": "2"}, PassingOnly: true,
		}, instances: []catalog.Instance{
			{ID: "a", Tags: []string{"new"}, Meta: map[string]string{"version": "2"}},
			{ID: "b", Kind: "connect-proxy"},
			{ID: "c", Tags: []string{"grpc"}},
			{ID: "d", State: catalog.StateWarning},
			{ID: "e"},
			{ID: "f", Tags: []string{"new", "slow"}},
			{ID: "g", Tags: []string{"new"}, Meta: map[string]string{"version": "1"}},
			{ID: "h", Meta: tls},
		}, want: `
1 a 100 its checks pass
0 b 0 is a connect-proxy
0 c 0 speaks grpc
0 d 0 does not pass
0 e 0 lacks tag new
0 f 0 has tag slow
0 g 0 Meta version is "1"
0 h 0 speaks TLS (--tls)`},
		{name: "TLS", tls: true, instances: []catalog.Instance{{ID: "a", Meta: tls}, {ID: "b"}}, want: `
1 a 100 its checks pass
0 b 0 speaks no TLS`},
	} {
		t.Run(c.name, func(t *testing.T) {
			chosen := choose(setOf(t, c.instances...), c.selection, c.tls)
			var got strings.Builder
			for _, u := range chosen.Uses {
				fmt.Fprintf(&got, "\n%d %s %.0f %s", u.Tier, u.ID, 100*u.Share, u.Why)
			}
			if diff := cmp.Diff(c.want, got.String()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if chosen.Panic != c.panic {
				t.Errorf("got panic %v; want %v", chosen.Panic, c.panic)
			}
		})
	}
}

// What resolve says is what the balancer does.
func TestChoiceIsTheBalancers(t *testing.T) {
	states := catalog.States[:]
	for mask := 1; mask < 1<<len(states); mask++ {
		var instances []catalog.Instance
		for n, state := range states {
			if mask&(1<<n) != 0 {
				instances = append(instances, catalog.Instance{ID: state.String(), State: state})
			}
		}
		set := setOf(t, instances...)
		tiers := map[string]int{}
		for _, u := range choose(set, catalog.Selection{}, false).Uses {
			tiers[u.ID] = u.Tier
		}
		b := balancer.New("order", balancer.Config{})
		b.Use(set, time.Now())
		last := tierFirst
		var tried []*balancer.Endpoint
		for range instances {
			lease, err := b.Pick(balancer.Request{Now: time.Now(), Tried: tried})
			if err != nil {
				break
			}
			e := lease.Endpoint()
			lease.Done(outcome.Result{At: time.Now()})
			if slices.Contains(tried, e) {
				break // every one was tried
			}
			tried = append(tried, e)
			tier := tiers[e.Instance().ID]
			if tier == tierNever || tier < last {
				t.Errorf("of %v the balancer asks %s, after %d others; resolve says tier %d", tiers, e.Instance().ID, len(tried)-1, tier)
			}
			last = tier
		}
		asked := 0
		for _, tier := range tiers {
			if tier != tierNever {
				asked++
			}
		}
		if asked != len(tried) {
			t.Errorf("of %v the balancer asks %d; resolve says %d", tiers, len(tried), asked)
		}
	}
}
