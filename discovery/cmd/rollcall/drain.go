package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/maintenance"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// drained says which instance is taken out or put back.
type drained struct {
	Instance string `arg:"" help:"Instance, as service/ID."`
	Node     string `placeholder:"NAME" help:"Node that it is registered at, where several have the ID."`
}

func (d *drained) instance() (maintenance.Instance, error) {
	i, err := maintenance.Parse(d.Instance)
	if err != nil {
		return i, &exitError{exitUsage, err}
	}
	i.Node = d.Node
	return i, nil
}

type drainCmd struct {
	drained
	Reason string `required:"" placeholder:"TEXT" help:"Why, for those who wonder: Consul and each client show it."`
}

// Help is shown by --help.
func (*drainCmd) Help() string {
	return `Takes the instance out of use, without stopping it, by Consul's maintenance mode. No client
sends it anything more, not even when nothing else is left; what is in flight is finished.
It is done when the catalog shows it. --timeout is for all of it.

Only the agent that the instance is registered with can do it. Another one is refused, with
exit code 1 and the command to run there, as is an ID that several nodes have.

Example:

    rollcall drain order/order-1f2e3d4c5b6a-8080 --reason 'looking at its disk'`
}

// Run takes an instance out.
func (c *drainCmd) Run(ctx context.Context, s *session) error {
	i, err := c.instance()
	if err != nil {
		return err
	}
	if strings.TrimSpace(c.Reason) == "" {
		return &exitError{exitUsage, errors.New("--reason is empty; want some words for those who wonder")}
	}
	asking, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	done, err := maintenance.Enable(asking, s.consul, i, c.Reason)
	if err != nil {
		return s.notChanged(ctx, err, "rollcall drain "+quoted(i.String())+" --reason "+quoted(c.Reason))
	}
	if done.Already {
		fmt.Fprintf(s.out, "%s is out already: %s\n", clean(i.String()), clean(done.Reason))
		return nil
	}
	fmt.Fprintf(s.out, "%s is out: no client sends it anything more\n", clean(i.String()))
	return nil
}

type undrainCmd struct{ drained }

// Help is shown by --help.
func (*undrainCmd) Help() string {
	return `Ends the maintenance mode of an instance, by the agent that it is registered with, as drain
began it. One that is leaving by itself, or whose node is in maintenance mode, stays out.

Example:

    rollcall undrain order/order-1f2e3d4c5b6a-8080`
}

// Run puts an instance back.
func (c *undrainCmd) Run(ctx context.Context, s *session) error {
	i, err := c.instance()
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	done, err := maintenance.Disable(asking, s.consul, i)
	if err != nil {
		return s.notChanged(ctx, err, "rollcall undrain "+quoted(i.String()))
	}
	said := "is in no maintenance mode any more"
	if done.Already {
		said = "is in no maintenance mode of its own"
	}
	fmt.Fprintf(s.out, "%s %s\n", clean(i.String()), said)
	if done.NodeReason != "" {
		fmt.Fprintf(s.out, "all of node %s is (%s): consul maint -disable there ends that\n", clean(done.Instance.Node), clean(done.NodeReason))
	}
	return nil
}

// notChanged is the error of an instance that was not taken out or put back; again is
// the command.
func (s *session) notChanged(ctx context.Context, err error, again string) error {
	if owner, ok := errors.AsType[*maintenance.OwnerError](err); ok {
		return &exitError{exitNo, fmt.Errorf("%w\nrun there: %s\nor here, if that agent can be reached: CONSUL_HTTP_ADDR=%s %s",
			err, again, net.JoinHostPort(owner.Address, "8500"), again)}
	}
	if _, ok := errors.AsType[*maintenance.AmbiguousError](err); ok {
		return &exitError{exitNo, fmt.Errorf("%w; say which one is meant: %s --node NAME", err, again)}
	}
	switch {
	case maintenance.IsRefusal(err), errors.Is(err, maintenance.ErrUnseen):
		return &exitError{exitNo, err}
	case consul.Denied(err):
		return &exitError{exitNoConsul, fmt.Errorf("%w; set CONSUL_HTTP_TOKEN_FILE or CONSUL_HTTP_TOKEN to a token with service:write for it, service:read and node:read", err)}
	}
	return s.cannotAsk(ctx, err)
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:", r)
	}
	if word != "" && strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
