package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/faults/rig"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// lossRule drops the first packet of 3 % of the connections to the traffic port. The hash of address and port lets
// through what comes again, after a second, as it would be after a loss on the way: a packet that is the second one of
// its connection in a minute is not asked for.
var lossRule = []string{
	"INPUT", "--protocol", "tcp", "--syn", "--dport", strconv.Itoa(rig.TrafficPort),
	"--match", "hashlimit", "--hashlimit-name", "rollcall", "--hashlimit-mode", "srcip,srcport", "--hashlimit-upto", "1/minute", "--hashlimit-burst", "1",
	"--match", "statistic", "--mode", "random", "--probability", "0.03",
	"--jump", "DROP",
}

// lostSyn loses first packets in the network of one order, which closes its connection after each answer so that
// there are many.
func lostSyn(ctx context.Context, r *trial) error {
	c, id, err := r.one(ctx, "order", 1)
	if err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{Renew: true}); err != nil {
		return err
	}
	r.start()
	if err := r.lose(ctx, c); err != nil {
		return err
	}
	if err := r.last(ctx, 30*time.Second); err != nil {
		return err
	}
	if r.m.Values[lostPackets], err = r.lost(ctx, c); err != nil {
		return err
	}
	if err := r.Fault(ctx, c, rig.Setting{}); err != nil {
		return err
	}
	r.end()
	err = r.recovered(ctx, "it has a fifth of the answers in a second", r.hasShare(id))
	r.nobodyOut()
	return err
}

// lose begins to lose packets.
func (r *trial) lose(ctx context.Context, c fleet.Container) error {
	for _, tool := range []string{"nsenter", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			return notMade("it needs nsenter and iptables: " + err.Error())
		}
	}
	if os.Geteuid() != 0 {
		return notMade("it needs root, for the network of a container")
	}
	if _, err := r.iptables(ctx, c, append([]string{"--insert"}, lossRule...)...); err != nil {
		return notMade("packets can't be dropped here: " + err.Error())
	}
	return nil
}

// loseNoMore heals, and takes the rule away where the row did not come so far.
func loseNoMore(ctx context.Context, r *trial) error {
	cs, err := r.Running(ctx, "order")
	if err != nil {
		return err
	}
	for _, c := range cs {
		_, _ = r.iptables(ctx, c, append([]string{"--delete"}, lossRule...)...) // as a rule there is none
	}
	return heal(ctx, r)
}

// lost ends that, and returns how many were lost.
func (r *trial) lost(ctx context.Context, c fleet.Container) (float64, error) {
	rule, err := r.iptables(ctx, c, "--list", "INPUT", "1", "--verbose", "--numeric", "--exact")
	if err != nil {
		return 0, err
	}
	if _, err := r.iptables(ctx, c, append([]string{"--delete"}, lossRule...)...); err != nil {
		return 0, err
	}
	fields := strings.Fields(rule)
	if len(fields) == 0 {
		return 0, errors.New("iptables lists no rule")
	}
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		return 0, fmt.Errorf("count the lost packets: %w in %q", err, rule)
	}
	return float64(n), nil
}

// iptables runs it in the network of a container.
func (r *trial) iptables(ctx context.Context, c fleet.Container, args ...string) (string, error) {
	args = append([]string{"--target", strconv.Itoa(c.State.Pid), "--net", "iptables", "--wait"}, args...)
	out, err := r.Run(ctx, "nsenter", args...)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("iptables: exit code %d: %s", out.Code, strings.TrimSpace(out.Stderr))
	}
	return out.Stdout, err
}
