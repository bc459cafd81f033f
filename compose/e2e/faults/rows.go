package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/judge"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/traffic"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// rows of the table, in its order. Those about Consul are in consul.go.
var rows = []row{
	{name: "scale", title: "order scaled from 3 to 6, then to 2", fault: scale},
	{name: "restart-services", title: "every user and order restarted, one by one", fault: restartServices},
	{name: "restart-gateways", title: "two gateways restarted one by one, the client knows both ports", fresh: true, prepare: twoGateways, fault: restartGateways, restore: plain},
	{name: "kill-order", title: "SIGKILL to one of three orders", short: true, fault: killOrder},
	{name: "pause-order", title: "one of three orders paused for 20 s", fault: pauseOrder},
	{name: "errors", title: "one order answers 500 to everything and passes its health check", short: true, fault: serverErrors},
	{name: "slow", title: "one order 100 times slower", fault: slowOrder},
	{name: "hang-posts", title: "one order hangs on POSTs, which have no keys, and answers GETs", unkeyed: true, fault: hangPosts, restore: heal},
	{name: "slow-everywhere", title: "every order takes 1.5 s for each answer, under a tenth of the load", gets: 20, posts: 4, fault: slowEverywhere, restore: heal},
	{name: "open-streams", title: "one order with open streams answers 500, and heals while they stay open", fault: openStreams, restore: heal},
	{name: "lost-syn", title: "3 % of the connections to one order lose their first packet, and each answer closes its connection", fault: lostSyn, restore: loseNoMore},
	{name: "consul-restart", title: "Consul restarted with its data", fault: restartConsul},
	{name: "consul-wipe", title: "Consul recreated without its data", short: true, fault: wipeConsul},
	{name: "consul-pause", title: "Consul paused for 60 s", fault: pauseConsul},
	{name: "consul-away-swap", title: "Consul gone, then an order killed, then another started", prepare: spareOrder, fault: swapWhileAway},
	{name: "consul-away-up", title: "Consul gone, and an order started by hand", prepare: spareOrder, fault: growWhileAway},
	{name: "disconnect", title: "one order off the network for 20 s", fault: disconnect},
	{name: "all-critical", title: "all orders critical in Consul while they serve well", fault: allCritical},
	{name: "maintenance", title: "one order put into maintenance by an operator, and out again", short: true, fault: maintenance},
	{name: "swap", title: "an order and a user swap addresses while Consul is paused", fresh: true, fault: swapAddresses},
	{name: "consul-refuses", title: "Consul's answers refused: 403, 429, 500, for 30 s each", fresh: true, prepare: throughProxy, fault: refuse, restore: plain},
	{name: "rotate-token", title: "every service's ACL token replaced in its file and the old one deleted", fresh: true, prepare: withTokens, fault: rotateToken, restore: plain},
	{name: "two-agents", title: "Consul's address leads each connection to the next of two agents", fresh: true, prepare: besideAnAgent, fault: twoAgents, restore: plain},
	{name: "servers-wiped", title: "the server behind a client agent recreated without its data", fresh: true, prepare: behindAnAgent, fault: wipeServers, restore: plain},
	{name: "users-killed", title: "SIGKILL to every user, started again after 10 s", fault: killUsers},
	{name: "disk-full", title: "the orders' disk full", fresh: true, prepare: smallDisk, fault: fillDisk, restore: plain},
	{name: "overload", title: "3 times the load that one order can take, for 30 s", gets: 100, posts: -1, peak: 100 + overloadExtra, prepare: setCapacity, fault: overload, restore: heal},
	{name: "poison", title: "50 bad entries for order in the catalog", fault: poison, restore: unpoison},
	{name: "clock", title: "the clock of one order 1 hour off", fault: clock, restore: heal},
	{name: "scale-grpc", title: "user scaled from 2 to 4, then to 2, and order asks it by gRPC", prepare: overGRPC, fault: byGRPC(scaleUsers), restore: overHTTP},
	{name: "restart-services-grpc", title: "every user and order restarted, one by one, and order asks user by gRPC", prepare: overGRPC, fault: byGRPC(restartServices), restore: overHTTP},
	{name: "kill-user-grpc", title: "SIGKILL to one of two users, and order asks it by gRPC", short: true, prepare: overGRPC, fault: byGRPC(killUser), restore: overHTTP},
	{name: "pause-user-grpc", title: "one of two users paused for 20 s, and order asks it by gRPC", prepare: overGRPC, fault: byGRPC(pauseUser), restore: overHTTP},
	{name: "consul-wipe-grpc", title: "Consul recreated without its data, and order asks user by gRPC", prepare: overGRPC, fault: byGRPC(wipeConsul), restore: overHTTP},
	{name: "exactly-once", title: "1,000 orders posted while instances are killed, paused, scaled and crash after a commit, and Consul is restarted", gets: 50, posts: -1, fault: exactlyOnce, restore: heal},
}

func scale(ctx context.Context, r *trial) error {
	old, err := r.Entries(ctx, "order")
	if err != nil {
		return err
	}
	r.start()
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=6"); err != nil {
		return err
	}
	six := maps.Clone(rig.Usual)
	six["order"] = 6
	if err := rig.Until(ctx, patience, "six orders are there", func(ctx context.Context) error { return r.Passing(ctx, six) }); err != nil {
		return err
	}
	there := time.Now()
	now, err := r.Entries(ctx, "order")
	if err != nil {
		return err
	}
	var newcomers []string
	for _, e := range now {
		if !slices.ContainsFunc(old, func(o *entry) bool { return o.Service.ID == e.Service.ID }) {
			newcomers = append(newcomers, e.Service.ID)
		}
	}
	if len(newcomers) != 3 {
		return fmt.Errorf("%d newcomers among the orders; want 3", len(newcomers))
	}
	if err := rig.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	r.m.Values[share] = judge.Share(r.load.Samples(), there.Add(5*time.Second), there.Add(10*time.Second), newcomers...)
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=2"); err != nil {
		return err
	}
	r.end()
	two := maps.Clone(rig.Usual)
	two["order"] = 2
	return r.recovered(ctx, "two orders in the catalog", func(ctx context.Context) error { return r.Passing(ctx, two) })
}

func restartServices(ctx context.Context, r *trial) error {
	r.start()
	for _, service := range []string{"user", "order"} {
		cs, err := r.Running(ctx, service)
		if err != nil {
			return err
		}
		for _, c := range cs {
			if err := r.docker(ctx, "restart", c.ID); err != nil {
				return err
			}
			if err := rig.Until(ctx, patience, c.Name+" is back", r.usual); err != nil {
				return err
			}
		}
	}
	r.end()
	return r.recovered(ctx, "all are registered", r.usual)
}

// plain takes the overlay away.
func plain(_ context.Context, r *trial) error {
	r.Overlay("")
	return nil
}

func overlay(name string) string { return "compose/e2e/faults/overlay/" + name + ".yaml" }

// gone is true once the gateway does not use so many orders of three, which have an entry for each protocol.
func gone(m rig.Metrics) bool {
	return m.Sum("rollcall_instances_ejected", `peer="order"`) >= 1 || m.Sum("rollcall_instances", `peer="order"`, `state="passing"`) < 6
}

// outOfUse waits until one of three orders is.
func (r *trial) outOfUse(ctx context.Context) error {
	return r.noticed(ctx, "the gateway has ejected it, or Consul told", gone)
}

// ejected waits until the gateway has ejected an order.
func (r *trial) ejected(ctx context.Context) error {
	return r.noticed(ctx, "the gateway has ejected it", func(m rig.Metrics) bool {
		return m.Sum("rollcall_instances_ejected", `peer="order"`) >= 1
	})
}

// nobodyOut notes how many orders the gateway ejected from the fault's start on.
func (r *trial) nobodyOut() {
	r.m.Values[ejections] = r.grown("rollcall_ejections_total", `peer="order"`)
}

// last waits until the fault has lasted for as long.
func (r *trial) last(ctx context.Context, d time.Duration) error {
	return rig.Pause(ctx, time.Until(r.m.Start.Add(d)))
}

func killOrder(ctx context.Context, r *trial) error {
	c, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "kill", "--signal", "KILL", c.ID); err != nil {
		return err
	}
	if err := r.outOfUse(ctx); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 15*time.Second); err != nil {
		return err
	}
	for _, outcome := range []string{"stalled", "unreachable"} {
		r.m.Values[failedDials] += r.grown("rollcall_client_tries_total", `peer="order"`, `outcome="`+outcome+`"`)
	}
	if err := r.docker(ctx, "start", c.ID); err != nil {
		return err
	}
	r.end()
	return r.back(ctx, c)
}

// back waits until an order serves that was away, under whatever ID it comes back.
func (r *trial) back(ctx context.Context, c fleet.Container) error {
	since := r.m.End
	return r.recovered(ctx, "it serves", func(ctx context.Context) error {
		again, err := r.Inspect(ctx, c.ID)
		if err != nil {
			return err
		}
		id, err := r.ID(ctx, again)
		if err != nil {
			return err
		}
		return r.serves(id, since)(ctx)
	})
}

func pauseOrder(ctx context.Context, r *trial) error {
	c, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "pause", c.ID); err != nil {
		return err
	}
	if err := r.outOfUse(ctx); err != nil {
		return err
	}
	if err := r.last(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := r.docker(ctx, "unpause", c.ID); err != nil {
		return err
	}
	r.end()
	locked := r.load.Count(func(s *traffic.Sample) bool { return s.Method == http.MethodPost && s.Failed() })
	if locked > 0 {
		r.note("it was frozen in the middle of a commit and held SQLite's lock: %d POSTs failed", locked)
	}
	return r.back(ctx, c)
}

func serverErrors(ctx context.Context, r *trial) error {
	c, id, err := r.one(ctx, "order", 1)
	if err != nil {
		return err
	}
	r.start()
	if err := r.Fault(ctx, c, rig.Setting{Status: 500}); err != nil {
		return err
	}
	if err := r.ejected(ctx); err != nil {
		return err
	}
	if err := r.last(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{}); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "it serves", r.serves(id, r.m.End))
}

func slowOrder(ctx context.Context, r *trial) error {
	c, id, err := r.one(ctx, "order", 1)
	if err != nil {
		return err
	}
	usual := judge.Over(r.load.Samples(), r.m.Began.Add(2*time.Second), time.Now()).P50
	delay := max(100*usual, 100*time.Millisecond)
	r.note("p50 was %v, so each answer was delayed by %v", judge.Round(usual), delay.Round(time.Millisecond))
	r.start()
	if err := r.Fault(ctx, c, rig.Setting{Delay: delay.Round(time.Millisecond).String()}); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 20*time.Second); err != nil {
		return err
	}
	r.m.Values[shareSlow] = judge.Share(r.load.Samples(), r.m.Start.Add(5*time.Second), time.Now().Add(-delay), id)
	if err := r.Fault(ctx, c, rig.Setting{}); err != nil {
		return err
	}
	r.end()
	return r.recovered(ctx, "it has a fifth of the answers in a second", r.hasShare(id))
}

func disconnect(ctx context.Context, r *trial) error {
	c, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	network := r.Project + "_default"
	r.start()
	if err := r.docker(ctx, "network", "disconnect", network, c.ID); err != nil {
		return err
	}
	if err := r.outOfUse(ctx); err != nil {
		return err
	}
	if err := r.last(ctx, 20*time.Second); err != nil {
		return err
	}
	if err := r.docker(ctx, "network", "connect", network, c.ID); err != nil {
		return err
	}
	r.end()
	return r.back(ctx, c)
}

// swapAddresses swaps them while Consul is paused: then no news can come before the gateway has met the one at the
// other's address.
func swapAddresses(ctx context.Context, r *trial) error {
	order, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	user, _, err := r.one(ctx, "user", 0)
	if err != nil {
		return err
	}
	consul, err := r.consul(ctx)
	if err != nil {
		return err
	}
	r.start()
	if err := r.docker(ctx, "pause", consul.ID); err != nil {
		return err
	}
	if err := r.swap(ctx, order, user); err != nil {
		return err
	}
	if err := rig.Until(ctx, 20*time.Second, "the gateway meets another service", func(context.Context) error {
		if r.grown("rollcall_client_tries_total", `outcome="misdirected"`) == 0 {
			return errors.New("it has not")
		}
		return nil
	}); err != nil {
		r.note("%v", err)
	}
	if err := r.docker(ctx, "unpause", consul.ID); err != nil {
		return err
	}
	if err := r.returns(ctx); err != nil {
		return err
	}
	if err := r.recovered(ctx, "all are registered", r.usual); err != nil {
		return err
	}
	r.m.Values[misdirected] = r.grown("rollcall_client_tries_total", `outcome="misdirected"`)
	return nil
}

// swap kills an order and a user, and starts each at the other's address.
func (r *trial) swap(ctx context.Context, order, user fleet.Container) error {
	// The engine gives the lowest free address to who starts first.
	first, second := order, user
	if lower(order.Address, user.Address) {
		first, second = user, order
	}
	if err := r.docker(ctx, "kill", "--signal", "KILL", order.ID, user.ID); err != nil {
		return err
	}
	if err := r.docker(ctx, "start", first.ID); err != nil {
		return err
	}
	if err := r.docker(ctx, "start", second.ID); err != nil {
		return err
	}
	a, err := r.Inspect(ctx, order.ID)
	if err != nil {
		return err
	}
	b, err := r.Inspect(ctx, user.ID)
	if err != nil {
		return err
	}
	if a.Address != user.Address || b.Address != order.Address {
		return fmt.Errorf("order is at %s and user at %s; want %s and %s", a.Address, b.Address, user.Address, order.Address)
	}
	return nil
}

func killUsers(ctx context.Context, r *trial) error {
	cs, err := r.Running(ctx, "user")
	if err != nil {
		return err
	}
	args := []string{"kill", "--signal", "KILL"}
	for _, c := range cs {
		args = append(args, c.ID)
	}
	r.start()
	if err := r.docker(ctx, args...); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	for _, c := range cs {
		if err := r.docker(ctx, "start", c.ID); err != nil {
			return err
		}
		if r.m.End.IsZero() { // the first one's return is when it says that it is ready
			if err := rig.Until(ctx, patience, c.Name+" is ready", func(ctx context.Context) error {
				again, err := r.Inspect(ctx, c.ID)
				if err != nil {
					return err
				}
				_, err = r.Want(ctx, http.MethodGet, rig.Admin(again)+"/readyz", nil)
				return err
			}); err != nil {
				return err
			}
			r.end()
		}
	}
	r.note("%d answers about orders were given without asking user", r.load.Count(func(s *traffic.Sample) bool { return s.Degraded }))
	return r.recovered(ctx, "user serves", func(context.Context) error {
		if r.load.Count(func(s *traffic.Sample) bool {
			return s.Path == traffic.UsersPath && s.End().After(r.m.End) && !s.Failed()
		}) == 0 {
			return errors.New("it does not")
		}
		return nil
	})
}

func setCapacity(ctx context.Context, r *trial) error {
	if _, err := r.Compose(ctx, "up", "--detach", "--no-recreate", "--scale", "order=1"); err != nil {
		return err
	}
	want := maps.Clone(rig.Usual)
	want["order"] = 1
	if err := rig.Until(ctx, patience, "one order is left", func(ctx context.Context) error { return r.Serving(ctx, want) }); err != nil {
		return err
	}
	c, _, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	return r.Fault(ctx, c, rig.Setting{Slots: slots, Hold: r.work().String()})
}

const (
	// An order works on four requests at once in overload, and for 20 ms on each where the load is whole.
	slots = 4
	hold  = 20 * time.Millisecond
	// Three times what it can do is asked of it. Of the steady hundred, 75 are about orders.
	overloadExtra = 3*int(slots*time.Second/hold) - 75
)

// work is how long an order works on a request in overload: longer where the load is smaller.
func (r *trial) work() time.Duration {
	return time.Duration(float64(hold) / r.share).Round(time.Millisecond)
}

func overload(ctx context.Context, r *trial) error {
	const lasts = 30 * time.Second
	capacity := float64(slots) / r.work().Seconds()
	r.start()
	r.load.Extra(scaled(overloadExtra, r.share), lasts)
	if err := rig.Pause(ctx, lasts); err != nil {
		return err
	}
	r.end()
	if err := rig.Pause(ctx, 4*time.Second); err != nil {
		return err
	}
	last, right := r.m.End, 0
	var accepted, unloaded []time.Duration
	samples := r.load.Samples()
	for i := range samples {
		s := &samples[i]
		switch {
		case s.Path != traffic.OrdersPath:
		case s.Failed():
			if s.End().After(last) {
				last = s.End()
			}
		case s.At.Before(r.m.Start):
			unloaded = append(unloaded, s.Took)
		case s.At.After(r.m.Start.Add(2*time.Second)) && s.At.Before(r.m.End):
			right++
			accepted = append(accepted, s.Took)
		}
	}
	slices.Sort(accepted)
	slices.Sort(unloaded)
	r.m.Values[goodput] = float64(right) / (lasts - 2*time.Second).Seconds() / capacity
	before, during := judge.Percentile(unloaded, 99), judge.Percentile(accepted, 99)
	r.m.Values[slowdown] = float64(during) / float64(before)
	r.m.RecoverBy = "the last request that was shed"
	r.recoveredAt(last)
	r.note("capacity %.0f a second; p99 of the accepted %v, unloaded %v", capacity, judge.Round(during), judge.Round(before))
	return nil
}

func heal(ctx context.Context, r *trial) error {
	cs, err := r.Running(ctx, "order")
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range cs {
		errs = append(errs, r.Fault(ctx, c, rig.Setting{}))
	}
	return errors.Join(errs...)
}

func clock(ctx context.Context, r *trial) error {
	c, id, err := r.one(ctx, "order", 0)
	if err != nil {
		return err
	}
	r.start()
	if err := r.Fault(ctx, c, rig.Setting{Clock: "1h"}); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{Clock: "-1h"}); err != nil {
		return err
	}
	if err := rig.Pause(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{}); err != nil {
		return err
	}
	r.end()
	r.note("1 hour ahead for 10 s, then 1 hour behind for 10 s")
	return r.recovered(ctx, "it serves", r.serves(id, r.m.End))
}
