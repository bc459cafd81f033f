package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// severalAgents is what the error line of an instance says whose way to Consul leads to more than one agent.
const severalAgents = "several agents"

// host is the address of this machine in the fleet's network.
func (r *trial) host(ctx context.Context) (netip.Addr, error) {
	out, err := r.Docker(ctx, "network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", r.Project+"_default")
	if err != nil {
		return netip.Addr{}, err
	}
	host, err := netip.ParseAddr(strings.TrimSpace(out))
	if err != nil {
		return netip.Addr{}, notMade("the host has no address in the fleet's network: " + err.Error())
	}
	return host, nil
}

// startAgent lays the overlay with a client agent, and starts that. The services ask Consul at an address.
func (r *trial) startAgent(ctx context.Context, consul string) (fleet.Container, error) {
	r.Overlay(overlay("consul")+":"+overlay("second-agent"), "FAULTS_CONSUL="+consul)
	if _, err := r.Compose(ctx, "up", "--detach", "--no-deps", "agent"); err != nil {
		return fleet.Container{}, err
	}
	var agent fleet.Container
	return agent, rig.Until(ctx, patience, "the client agent has a leader", func(ctx context.Context) error {
		cs, err := r.Running(ctx, "agent")
		if err != nil {
			return err
		}
		if len(cs) != 1 {
			return fmt.Errorf("%d containers of agent run; want 1", len(cs))
		}
		agent = cs[0]
		return r.leads(ctx, agent)
	})
}

// leads is an error unless an agent answers and knows a leader.
func (r *trial) leads(ctx context.Context, agent fleet.Container) error {
	var leader string
	if err := r.JSON(ctx, "http://"+consulAt(agent)+"/v1/status/leader", &leader); err != nil {
		return err
	}
	if leader == "" {
		return errors.New("the agent knows no leader")
	}
	return nil
}

const consulPort = "8500"

// consulAt is where an agent in a container is asked.
func consulAt(c fleet.Container) string { return net.JoinHostPort(c.Address, consulPort) }

// behind has the services ask Consul by another way from now on, and waits until all is well.
func (r *trial) behind(ctx context.Context) error {
	if _, err := r.Compose(ctx, "up", "--detach", "--no-deps", "user", "order", "gateway"); err != nil {
		return err
	}
	return rig.Until(ctx, 90*time.Second, "the fleet settles", func(ctx context.Context) error { return r.Serving(ctx, rig.Usual) })
}

// besideAnAgent starts a client agent beside the server. The services ask Consul at a port of ours, which leads to the
// server alone at first.
func besideAnAgent(ctx context.Context, r *trial) error {
	host, err := r.host(ctx)
	if err != nil {
		return err
	}
	server, err := r.consul(ctx)
	if err != nil {
		return err
	}
	if r.fork, err = newFork(context.WithoutCancel(ctx), host, consulAt(server)); err != nil {
		return notMade("the host can't listen in the fleet's network: " + err.Error())
	}
	r.stop = append(r.stop, r.fork.close)
	if r.agent, err = r.startAgent(ctx, r.fork.address); err != nil {
		return err
	}
	return r.behind(ctx)
}

func twoAgents(ctx context.Context, r *trial) error {
	server, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	r.fork.lead(consulAt(server), consulAt(r.agent))
	if err := r.last(ctx, 20*time.Second); err != nil {
		return err
	}
	c, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	if err := r.docker(ctx, "restart", c.ID); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=2"); err != nil {
		return err
	}
	if err := rig.Pause(ctx, time.Minute-steady); err != nil {
		return err
	}
	if err := r.countRewritten(ctx); err != nil {
		return err
	}
	if err := r.countEntries(ctx); err != nil {
		return err
	}
	if err := r.countTold(ctx); err != nil {
		return err
	}
	r.note("%v", r.fork)
	r.fork.lead(consulAt(server))
	r.end()
	two := maps.Clone(rig.Usual)
	two["order"] = 2
	return r.recovered(ctx, "all are registered once", func(ctx context.Context) error { return r.Passing(ctx, two) })
}

// steady is how long entries are watched that have had time to settle.
const steady = 20 * time.Second

// countRewritten notes how many entries there are at the end of that time which were made in it.
func (r *trial) countRewritten(ctx context.Context) error {
	before, err := r.made(ctx)
	if err != nil {
		return err
	}
	if err := rig.Pause(ctx, steady); err != nil {
		return err
	}
	now, err := r.made(ctx)
	if err != nil {
		return err
	}
	r.m.Values[rewritten] = 0
	for key := range now {
		if !before[key] {
			r.m.Values[rewritten]++
		}
	}
	return nil
}

// made names each entry by its node, its ID and the index at which it was made.
func (r *trial) made(ctx context.Context) (map[string]bool, error) {
	all := map[string]bool{}
	for service := range rig.Usual {
		es, err := r.Entries(ctx, service)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			all[fmt.Sprintf("%s/%s/%d", e.Node.Node, e.Service.ID, e.Service.CreateIndex)] = true
		}
	}
	return all, nil
}

// countEntries compares instances and entries for 5 s, and notes the worst.
func (r *trial) countEntries(ctx context.Context) error {
	for range 10 {
		extra, missing, err := r.compare(ctx)
		if err != nil {
			return err
		}
		r.m.Values[tooMany] = max(r.m.Values[tooMany], extra)
		r.m.Values[notThere] = max(r.m.Values[notThere], missing)
		if err := rig.Pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// countTold counts the instances that have logged the error since the fault's start, each since its own start at most.
func (r *trial) countTold(ctx context.Context) error {
	instances := 0
	r.m.Values[told] = 0
	for service := range rig.Usual {
		cs, err := r.Running(ctx, service)
		if err != nil {
			return err
		}
		for _, c := range cs {
			since := r.m.Start
			if c.State.StartedAt.After(since) {
				since = c.State.StartedAt
			}
			lines, err := r.logged(ctx, c, since)
			if err != nil {
				return err
			}
			instances++
			r.addTold(lines)
		}
	}
	r.note("%.0f of %d instances logged %q", r.m.Values[told], instances, severalAgents)
	return nil
}

// addTold adds what one instance has logged.
func (r *trial) addTold(lines []string) {
	n := 0.0
	for _, line := range lines {
		var record struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &record) == nil && record.Level == slog.LevelError.String() && strings.Contains(record.Msg, severalAgents) {
			n++
		}
	}
	if n > 0 {
		r.m.Values[told]++
	}
	r.m.Values[toldMost] = max(r.m.Values[toldMost], n)
}

// behindAnAgent has the services ask Consul at a client agent.
func behindAnAgent(ctx context.Context, r *trial) (err error) {
	if r.agent, err = r.startAgent(ctx, "agent:"+consulPort); err != nil {
		return err
	}
	return r.behind(ctx)
}

// wipeServers ends when the agent has a leader again, which is for Consul to see to.
func wipeServers(ctx context.Context, r *trial) error {
	c, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	if err := r.recreateServer(ctx, c); err != nil {
		return err
	}
	if err := rig.Until(ctx, patience, "the server is back", r.Leader); err != nil {
		return err
	}
	back := time.Now()
	// As a server's retry_join does that names the others.
	if err := r.Consul.Agent().Join(r.agent.Address, false); err != nil {
		return err
	}
	if err := rig.Until(ctx, patience, "the agent has a leader", func(ctx context.Context) error { return r.leads(ctx, r.agent) }); err != nil {
		return err
	}
	r.end()
	r.note("the agent had a leader %v after the server", time.Since(back).Round(time.Millisecond))
	return r.recovered(ctx, "all are registered", r.usual)
}
