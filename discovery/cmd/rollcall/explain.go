package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

type explainCmd struct {
	Instance string `arg:"" help:"Instance, as service/ID."`
	Output   string `short:"o" enum:"table,json,yaml" default:"table" help:"Form: ${enum}."`
}

// Help is shown by --help.
func (*explainCmd) Help() string {
	return `Where resolve shows all instances of a service, this tells of one all that Consul has: each
check in Consul's own words, and what to do about what keeps it out. It is judged as by a
client that speaks what the instance speaks.

Exit code 1 says that a client would not ask it first.

Example:

    rollcall explain order/order-1f2e3d4c5b6a-8080`
}

// explained is what there is to say of an instance at one node.
type explained struct {
	Service string `json:"service"`
	use
	Checks []check `json:"checks"`
	Do     string  `json:"do,omitempty"`
}

// check is one of Consul's, in its words.
type check struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Output string `json:"output"`
}

// Run explains an instance.
func (c *explainCmd) Run(ctx context.Context, s *session) error {
	service, id, whole := strings.Cut(c.Instance, "/")
	if !whole || service == "" || id == "" {
		return &exitError{exitUsage, fmt.Errorf("the instance is %q; want service/ID, as rollcall ls %s lists them", c.Instance, or(service))}
	}
	set, err := s.askOne(ctx, service)
	if err != nil {
		return err
	}
	checks, err := s.checks(ctx, service)
	if err != nil {
		return err
	}
	var found []explained
	for i := range set.All() {
		if i.ID != id {
			continue
		}
		e := explained{Service: set.Service(), use: ownUse(set, i), Checks: checks[place{i.Node, i.ID}]}
		e.Do = e.advice()
		found = append(found, e)
	}
	if len(found) == 0 {
		return &exitError{exitNo, fmt.Errorf("%s has no instance %s, or one that no client can use; rollcall ls %s lists them", service, id, service)}
	}
	if done, err := (form{c.Output}).document(s, found); err != nil {
		return err
	} else if !done {
		for _, e := range found {
			e.print(s)
		}
	}
	for _, e := range found {
		if e.Tier != tierFirst {
			return &exitError{code: exitNo} // the text has said so
		}
	}
	return nil
}

// place is where an entry is.
type place struct{ node, id string }

// checks asks for the checks of a service's entries, those of their nodes included.
func (s *session) checks(ctx context.Context, service string) (map[place][]check, error) {
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	entries, _, err := consul.Instances(s.consul, service, (&api.QueryOptions{}).WithContext(limited))
	if err != nil {
		return nil, s.cannotAsk(ctx, err)
	}
	all := map[place][]check{}
	for _, e := range entries {
		if e.Node == nil || e.Service == nil {
			continue // it is none of the set either
		}
		at := place{e.Node.Node, e.Service.ID}
		for _, c := range e.Checks {
			output := c.Output
			if output == "" {
				output = c.Notes // where an operator's reason is
			}
			all[at] = append(all[at], check{ID: c.CheckID, Name: c.Name, Status: c.Status, Output: strings.TrimSpace(output)})
		}
		// Consul gives them in no order.
		slices.SortFunc(all[at], func(a, b check) int { return strings.Compare(a.ID, b.ID) })
	}
	return all, nil
}

// ownUse is the use that a client makes of an instance which speaks what it speaks.
func ownUse(set *catalog.Snapshot, i catalog.Instance) use {
	selection := catalog.Selection{Kind: i.Kind, Protocol: catalog.HTTP}
	if !i.Speaks(catalog.HTTP) {
		selection.Protocol = catalog.GRPC
	}
	key := instanceOf(i)
	for _, u := range choose(set, selection, i.TLS()).Uses {
		if u.ID == key.ID && u.Addr == key.Addr && u.Node == key.Node {
			return u
		}
	}
	return use{instance: key}
}

// advice says what to do about what keeps the instance out; empty if nothing does.
func (e explained) advice() string {
	switch e.State {
	case catalog.StateCritical:
		for _, c := range e.Checks {
			if c.Status == api.HealthCritical {
				return fmt.Sprintf("see why the check %q fails; it is used again as soon as that passes", c.ID)
			}
		}
		return "see why its check fails; it is used again as soon as that passes"
	case catalog.StateWarning:
		return "see why a check warns; until then it has its weight for warnings"
	case catalog.StateDraining:
		return "nothing: it ends by itself. If it does not, look into its log"
	case catalog.StateMaintenance:
		return "when the reason is over: rollcall undrain " + quoted(e.Service+"/"+e.ID) + " at the agent of node " + e.Node
	}
	return ""
}

func (e explained) print(s *session) {
	line := func(format string, args ...any) { fmt.Fprintln(s.out, clean(fmt.Sprintf(format, args...))) }
	line("%s/%s at %s on node %s", e.Service, e.ID, e.Addr, e.Node)
	switch e.Tier {
	case tierFirst:
		line("  is asked, with %.0f %% of the requests in the long run: %s", 100*e.Share, e.Why)
	case tierInNeed:
		line("  is asked in need, when each instance that is ready has failed a request: it is %s", e.State)
	default:
		line("  is not asked: %s", e.Why)
	}
	if e.Do != "" {
		line("  to do: %s", e.Do)
	}
	line("  speaks %s, weight %d, version %s, zone %s, tags %s", e.speaks(), e.Weight, or(e.Version), or(e.Zone), join(e.Tags))
	rows := make([][]string, 0, len(e.Checks))
	for _, c := range e.Checks {
		rows = append(rows, []string{c.ID, c.Status, or(c.Output)})
	}
	table(s, []string{"CHECK", "STATUS", "OUTPUT"}, rows)
}
