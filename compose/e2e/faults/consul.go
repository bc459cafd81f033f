package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

type entry = api.ServiceEntry

func lower(a, b string) bool {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	return errX == nil && errY == nil && x.Less(y)
}

func (r *trial) consul(ctx context.Context) (fleet.Container, error) {
	cs, err := r.Containers(ctx, "consul")
	if err == nil && len(cs) != 1 {
		err = fmt.Errorf("there are %d containers of consul; want 1", len(cs))
	}
	if err != nil {
		return fleet.Container{}, err
	}
	return cs[0], nil
}

// returns waits until Consul answers with a leader: that is the fault's end.
func (r *trial) returns(ctx context.Context) error {
	if err := rig.Until(ctx, patience, "Consul is back", r.Leader); err != nil {
		return err
	}
	r.end()
	return nil
}

func restartConsul(ctx context.Context, r *trial) error {
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "restart", c.ID); err != nil {
		return err
	}
	if err := r.returns(ctx); err != nil {
		return err
	}
	return r.recovered(ctx, "all are registered", r.usual)
}

func wipeConsul(ctx context.Context, r *trial) error {
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	if err := r.recreateServer(ctx, c); err != nil {
		return err
	}
	if err := r.returnsEmpty(ctx); err != nil {
		return err
	}
	return r.recovered(ctx, "all are registered", r.usual)
}

// returnsEmpty waits until a Consul without its data takes entries: until its catalog has the one that its agent was
// configured with.
//
// Its agent's first synchronisation holds the agent's lock until it got through to the leader, which it tries again
// after growing pauses (SyncChanges in agent/local/state.go and forwardRequestToLeader in agent/consul/rpc.go of Consul
// 1.22.3): until then every call that registers waits.
func (r *trial) returnsEmpty(ctx context.Context) error {
	if err := r.returns(ctx); err != nil {
		return err
	}
	leader := time.Now()
	if err := rig.Until(ctx, patience, "Consul's own entry is in its catalog", r.Configured); err != nil {
		return err
	}
	r.end()
	r.note("Consul had its own entry in the catalog %v after it had a leader", time.Since(leader).Round(time.Millisecond))
	return nil
}

// recreateServer removes Consul's server and its data, and makes a new one.
func (r *trial) recreateServer(ctx context.Context, c fleet.Container) error {
	if err := r.docker(ctx, "rm", "--force", c.ID); err != nil {
		return err
	}
	if err := r.docker(ctx, "volume", "rm", r.Project+"_consul-data"); err != nil {
		return err
	}
	_, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--no-deps", "consul")
	return err
}

func pauseConsul(ctx context.Context, r *trial) error {
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "pause", c.ID); err != nil {
		return err
	}
	if err := r.noticed(ctx, "the gateway says that Consul gives no answer", func(m rig.Metrics) bool {
		return m.Sum("rollcall_snapshot_failing", `peer="order"`) == 1
	}); err != nil {
		return err
	}
	if err := r.last(ctx, time.Minute); err != nil {
		return err
	}
	r.m.Values[age] = r.most("rollcall_snapshot_age_seconds", `peer="order"`)
	if err := r.docker(ctx, "unpause", c.ID); err != nil {
		return err
	}
	if err := r.returns(ctx); err != nil {
		return err
	}
	return r.recovered(ctx, "all are registered", r.usual)
}

// spareOrder makes a fourth order and stops it, so that it can be started while Consul is away.
func spareOrder(ctx context.Context, r *trial) error {
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=4"); err != nil {
		return err
	}
	four := maps.Clone(rig.Usual)
	four["order"] = 4
	if err := rig.Until(ctx, patience, "four orders are there", func(ctx context.Context) error { return r.Passing(ctx, four) }); err != nil {
		return err
	}
	cs, err := r.Running(ctx, "order")
	if err != nil {
		return err
	}
	if err := r.docker(ctx, "stop", cs[3].ID); err != nil {
		return err
	}
	return rig.Until(ctx, patience, "three orders are left", r.usual)
}

// spare is the order that spareOrder has stopped.
func (r *trial) spare(ctx context.Context) (fleet.Container, error) {
	cs, err := r.Containers(ctx, "order")
	if err != nil {
		return fleet.Container{}, err
	}
	for _, c := range cs {
		if c.State.Status == "exited" {
			return c, nil
		}
	}
	return fleet.Container{}, errors.New("no order is stopped")
}

func swapWhileAway(ctx context.Context, r *trial) error {
	newcomer, err := r.spare(ctx)
	if err != nil {
		return err
	}
	victim, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	for _, step := range [][]string{{"stop", c.ID}, {"kill", "--signal", "KILL", victim.ID}, {"start", newcomer.ID}} {
		if err := r.docker(ctx, step...); err != nil {
			return err
		}
		if err := rig.Pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
	if err := r.docker(ctx, "start", c.ID); err != nil {
		return err
	}
	if err := r.returns(ctx); err != nil {
		return err
	}
	return r.back(ctx, newcomer)
}

func growWhileAway(ctx context.Context, r *trial) error {
	newcomer, err := r.spare(ctx)
	if err != nil {
		return err
	}
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "stop", c.ID); err != nil {
		return err
	}
	if err := r.docker(ctx, "start", newcomer.ID); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := r.docker(ctx, "start", c.ID); err != nil {
		return err
	}
	if err := r.returns(ctx); err != nil {
		return err
	}
	return r.back(ctx, newcomer)
}

func allCritical(ctx context.Context, r *trial) error {
	es, err := r.Entries(ctx, "order")
	if err != nil {
		return err
	}
	agent := r.Consul.Agent()
	r.start()
	for _, e := range es {
		if err := agent.CheckRegister(&api.AgentCheckRegistration{
			ID: "operator:" + e.Service.ID, Name: "an operator's", ServiceID: e.Service.ID,
			AgentServiceCheck: api.AgentServiceCheck{TTL: "1h", Status: api.HealthCritical},
		}); err != nil {
			return err
		}
	}
	if err := r.noticed(ctx, "the gateway sees all of them critical", func(m rig.Metrics) bool {
		return m.Sum("rollcall_instances", `peer="order"`, `state="critical"`) == float64(len(es))
	}); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 15*time.Second); err != nil {
		return err
	}
	r.m.Values[panics] = r.grown("rollcall_picks_total", `peer="order"`, `mode="panic"`)
	for _, e := range es {
		if err := agent.CheckDeregister("operator:" + e.Service.ID); err != nil {
			return err
		}
	}
	r.end()
	return r.recovered(ctx, "all pass", r.usual)
}

func maintenance(ctx context.Context, r *trial) error {
	_, id, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	r.start()
	if err := r.Consul.Agent().EnableServiceMaintenance(id, "an operator looks at it"); err != nil {
		return err
	}
	if err := r.noticed(ctx, "the gateway knows", func(m rig.Metrics) bool {
		return m.Sum("rollcall_instances", `peer="order"`, `state="maintenance"`) == 1
	}); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 20*time.Second); err != nil {
		return err
	}
	r.m.Values[late] = float64(r.load.Count(func(s *traffic.Sample) bool {
		return s.ServedBy == id && s.At.After(r.m.Start.Add(time.Second))
	}))
	es, err := r.Entries(ctx, "order")
	if err != nil {
		return err
	}
	r.m.Values[left] = 0
	for _, e := range es {
		if e.Service.ID == id && e.Checks.AggregatedStatus() == api.HealthMaint {
			r.m.Values[left] = 1
		}
	}
	if err := r.Consul.Agent().DisableServiceMaintenance(id); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "it serves", r.serves(id, r.m.End))
}

// throughProxy puts a proxy of ours between the services and Consul.
func throughProxy(ctx context.Context, r *trial) error {
	host, err := r.host(ctx)
	if err != nil {
		return err
	}
	p, err := newProxy(ctx, host, r.ConsulURL())
	if err != nil {
		return notMade("the host can't listen in the fleet's network: " + err.Error())
	}
	r.stop = append(r.stop, p.close)
	r.proxy = p
	r.Overlay(overlay("consul"), "FAULTS_CONSUL="+p.address)
	if _, err := r.Compose(ctx, "up", "--detach", "--no-deps", "user", "order", "gateway"); err != nil {
		return err
	}
	return rig.Until(ctx, patience, "the fleet settles behind the proxy", func(ctx context.Context) error { return r.Serving(ctx, rig.Usual) })
}

func refuse(ctx context.Context, r *trial) error {
	if r.proxy.asked.Load() == 0 {
		return errors.New("nobody asked Consul through the proxy")
	}
	r.start()
	for _, status := range []int32{http.StatusForbidden, http.StatusTooManyRequests, http.StatusInternalServerError} {
		r.proxy.refuse.Store(status)
		r.proxy.cut() // blocking queries that wait are asked anew
		if err := rig.Pause(ctx, 30*time.Second); err != nil {
			return err
		}
	}
	r.m.Values[failing] = r.most("rollcall_snapshot_failing", `peer="order"`)
	r.note("%d questions were refused", r.proxy.refused.Load())
	r.proxy.refuse.Store(0)
	r.end()
	return r.recovered(ctx, "all pass, and the gateway is well informed", func(ctx context.Context) error {
		m, err := r.Metrics(ctx, r.GatewayAdmin())
		if err != nil {
			return err
		}
		if m.Sum("rollcall_snapshot_failing", `peer="order"`) != 0 {
			return errors.New("the gateway still can't ask")
		}
		return r.usual(ctx)
	})
}

func smallDisk(ctx context.Context, r *trial) error {
	if err := r.Clear(ctx); err != nil {
		return err
	}
	r.Overlay(overlay("small-disk"))
	if _, err := r.Compose(ctx, "up", "--detach"); err != nil {
		return err
	}
	return rig.Until(ctx, 90*time.Second, "a fleet with a small disk settles", func(ctx context.Context) error { return r.Serving(ctx, rig.Usual) })
}

func fillDisk(ctx context.Context, r *trial) error {
	mount, err := r.Docker(ctx, "volume", "inspect", "--format", "{{.Mountpoint}}", r.Project+"_order-data")
	if err != nil {
		return err
	}
	ballast := filepath.Join(strings.TrimSpace(mount), "ballast")
	r.start()
	f, err := os.Create(ballast)
	if err != nil {
		return notMade("the orders' disk can't be reached from here: " + err.Error())
	}
	full := false
	for range 64 { // at most 64 MiB
		if _, err := f.Write(make([]byte, 1<<20)); err != nil {
			full = true
			break
		}
	}
	for full { // the last pages
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	_ = f.Close()
	defer func() { _ = os.Remove(ballast) }()
	if !full {
		return errors.New("64 MiB fit onto the disk; want one of 8 MiB")
	}
	if err := rig.Pause(ctx, 15*time.Second); err != nil {
		return err
	}
	r.note("%d POSTs were refused", r.load.Count(func(s *traffic.Sample) bool { return s.Method == http.MethodPost && s.Failed() }))
	if err := os.Remove(ballast); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "an order is taken", func(context.Context) error {
		if r.load.Count(func(s *traffic.Sample) bool { return s.Method == http.MethodPost && s.At.After(r.m.End) && !s.Failed() }) == 0 {
			return errors.New("none is")
		}
		return nil
	})
}

const poisonNode = "poison"

// poison puts entries into the catalog as no agent would: the catalog takes what an agent refuses.
func poison(ctx context.Context, r *trial) error {
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	unusable, dead, not := 0, 0, 0
	r.start()
	for n := range 50 {
		s := map[string]any{"ID": fmt.Sprintf("poison-%d", n), "Service": "order", "Address": c.Address, "Port": 9}
		bad := true // it can't be used, and is to be refused by the watch
		switch n % 6 {
		case 0:
			s["Address"] = "no address at all"
		case 1:
			s["Port"] = 0
		case 2:
			s["Port"] = 99999
		case 3:
			bad = false // nobody listens on it
		case 4:
			s["Weights"] = map[string]int{"Passing": -1, "Warning": -1}
			s["Port"] = 0
		case 5:
			s["Meta"] = map[string]string{"garbage": strings.Repeat("x", 100<<10)}
			bad = false // it is only large, and nobody listens on it
		}
		a, err := r.Do(ctx, http.MethodPut, r.ConsulURL()+"/v1/catalog/register", map[string]any{
			"Node": poisonNode, "Address": c.Address, "Service": s,
			"Check": map[string]any{"CheckID": fmt.Sprintf("poison-%d", n), "Name": "poison", "Status": "passing", "ServiceID": s["ID"]},
		})
		switch {
		case err != nil:
			return err
		case a.Status != http.StatusOK:
			not++
		case bad:
			unusable++
		default:
			dead++
		}
	}
	if err := rig.Pause(ctx, 20*time.Second); err != nil {
		return err
	}
	counted := map[string]float64{}
	total := 0.0
	scrapes := r.scrapes()
	if len(scrapes) > 0 {
		for _, s := range scrapes[len(scrapes)-1].Metrics {
			if s.Name == "rollcall_watch_refused_entries_total" && strings.Contains(s.Labels, `peer="order"`) {
				counted[s.Label("field")] += s.Value
			}
		}
		total = r.grown("rollcall_watch_refused_entries_total", `peer="order"`)
	}
	by, _ := json.Marshal(counted) //nolint:errchkjson // numbers by name
	r.note("%d entries can't be used, %d lead to nobody, %d were refused by Consul itself; refused by field: %s", unusable, dead, not, by)
	r.m.Values[refused] = total / float64(max(unusable, 1))
	if err := unpoison(ctx, r); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "only good ones are left", r.usual)
}

func unpoison(ctx context.Context, r *trial) error {
	_, err := r.Want(ctx, http.MethodPut, r.ConsulURL()+"/v1/catalog/deregister", map[string]string{"Node": poisonNode})
	return err
}
