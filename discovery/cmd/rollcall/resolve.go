package main

import (
	"context"
	"fmt"
	"strconv"
)

type resolveCmd struct {
	form
	Service  string `arg:"" help:"Service that a client would call."`
	Protocol string `enum:"http,grpc" default:"http" help:"What the client speaks: ${enum}."`
	selecting
}

// Help is shown by --help.
func (*resolveCmd) Help() string {
	return `A request goes to an instance of tier 1, by latency and load, in the long run by weight;
to one of tier 2 once each of tier 1 has failed it; to the others never. So it is before a
client has asked anyone: which instances it has ejected for failing, and how fast each is,
only that client knows (its /debug/discovery).

Exit code 1 says that there is no instance to ask.

Examples:

    rollcall resolve order
    rollcall resolve order --protocol grpc --tag canary`
}

// Run shows which instances a client would use.
func (c *resolveCmd) Run(ctx context.Context, s *session) error {
	selection, err := c.selection(c.Protocol)
	if err != nil {
		return err
	}
	set, err := s.askOne(ctx, c.Service)
	if err != nil {
		return err
	}
	chosen := choose(set, selection, c.TLS)
	if done, err := c.document(s, chosen); err != nil {
		return err
	} else if !done {
		c.print(s, chosen)
	}
	if chosen.count(tierFirst) == 0 {
		return &exitError{code: exitNo} // the summary has said so
	}
	return nil
}

func (c *resolveCmd) print(s *session, chosen choice) {
	header, wide := []string{"TIER", "ID", "ADDRESS", "HEALTH", "WHY"}, c.wide(s)
	if wide {
		header = append(header, "SHARE", "WEIGHT", "NODE", "VERSION", "ZONE", "REASON")
	}
	fmt.Fprintln(s.out, clean(chosen.summary()))
	rows := make([][]string, 0, len(chosen.Uses))
	for _, u := range chosen.Uses {
		tier, share := none, none
		if u.Tier != tierNever {
			tier = strconv.Itoa(u.Tier)
		}
		if u.Tier == tierFirst {
			share = fmt.Sprintf("%.0f %%", 100*u.Share)
		}
		row := []string{tier, u.ID, u.Addr, u.State.String(), u.Why}
		if wide {
			row = append(row, share, strconv.Itoa(u.Weight), u.Node, or(u.Version), or(u.Zone), or(u.Reason))
		}
		rows = append(rows, row)
	}
	table(s, header, rows)
}
