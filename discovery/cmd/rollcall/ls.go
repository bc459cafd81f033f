package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

type lsCmd struct {
	form
	Service string `arg:"" optional:"" help:"Service whose instances are listed. None: list the services."`
}

// Help is shown by --help.
func (*lsCmd) Help() string {
	return `Health is that of Consul's checks: passing, warning, critical, draining (it said that it is
leaving) or maintenance (an operator took it out). READY counts those that pass or warn. The
version is the entry's Meta "version". Consul keeps no time of registration, so no age is
shown.

Examples:

    rollcall ls
    rollcall ls order -o wide`
}

// Run lists the services, or the instances of one.
func (c *lsCmd) Run(ctx context.Context, s *session) error {
	if c.Service != "" {
		return c.instances(ctx, s)
	}
	names, err := s.services(ctx)
	if err != nil {
		return err
	}
	sets, err := s.ask(ctx, names...)
	if err != nil {
		return err
	}
	services := make([]listed, 0, len(sets))
	for _, set := range sets {
		services = append(services, list(set))
	}
	if done, err := c.document(s, services); done {
		return err
	}
	header, wide := []string{"SERVICE", "READY", "HEALTH", "VERSIONS", "ZONES"}, c.wide(s)
	if wide {
		header = append(header, "PROTOCOLS", "NODES")
	}
	rows := make([][]string, 0, len(services))
	for _, l := range services {
		row := []string{l.Service, fmt.Sprintf("%d/%d", l.Ready, l.Instances), l.health(), join(l.Versions), join(l.Zones)}
		if wide {
			row = append(row, join(l.Protocols), strconv.Itoa(len(l.Nodes)))
		}
		rows = append(rows, row)
	}
	if !wide {
		header, rows = compact(header, rows)
	}
	table(s, header, rows)
	return nil
}

// instances lists those of a service.
func (c *lsCmd) instances(ctx context.Context, s *session) error {
	set, err := s.askOne(ctx, c.Service)
	if err != nil {
		return err
	}
	all := make([]instance, 0, set.Len())
	for i := range set.All() {
		all = append(all, instanceOf(i))
	}
	if done, err := c.document(s, all); done {
		return err
	}
	header, wide := []string{"ID", "NODE", "ADDRESS", "HEALTH", "VERSION", "ZONE", "PROTOCOL"}, c.wide(s)
	if wide {
		header = append(header, "WEIGHT", "KIND", "TAGS", "REASON")
	}
	rows := make([][]string, 0, len(all))
	for _, i := range all {
		row := []string{i.ID, i.Node, i.Addr, i.State.String(), or(i.Version), or(i.Zone), i.speaks()}
		if wide {
			row = append(row, strconv.Itoa(i.Weight), or(i.Kind), join(i.Tags), or(i.Reason))
		}
		rows = append(rows, row)
	}
	if !wide {
		header, rows = compact(header, rows)
	}
	table(s, header, rows)
	return nil
}

// listed is a service in short.
type listed struct {
	Service   string         `json:"service"`
	Instances int            `json:"instances"`
	Ready     int            `json:"ready"`
	States    map[string]int `json:"states"`
	Versions  []string       `json:"versions"`
	Zones     []string       `json:"zones"`
	Protocols []string       `json:"protocols"`
	Nodes     []string       `json:"nodes"`
}

func list(set *catalog.Snapshot) listed {
	l := listed{Service: set.Service(), Instances: set.Len(), States: map[string]int{}}
	versions, zones, protocols, nodes := words{}, words{}, words{}, words{}
	for one := range set.All() {
		i := instanceOf(one)
		l.States[i.State.String()]++
		if i.State.Ready() {
			l.Ready++
		}
		versions.add(i.Version)
		zones.add(i.Zone)
		protocols.add(i.speaks())
		nodes.add(i.Node)
	}
	l.Versions, l.Zones, l.Protocols, l.Nodes = versions.sorted(), zones.sorted(), protocols.sorted(), nodes.sorted()
	return l
}

// health is how many instances are in which state, what is in trouble first; one word
// where all are in one.
func (l listed) health() string {
	var parts []string
	for _, state := range [...]catalog.State{
		catalog.StateCritical, catalog.StateWarning, catalog.StateDraining, catalog.StateMaintenance, catalog.StatePassing,
	} {
		if n := l.States[state.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(parts) == 1 {
		_, state, _ := strings.Cut(parts[0], " ")
		return state
	}
	return join(parts)
}

// words are different ones, without the empty one.
type words map[string]struct{}

func (w words) add(word string) {
	if word != "" {
		w[word] = struct{}{}
	}
}

// sorted returns them; none is an empty list in JSON.
func (w words) sorted() []string {
	all := slices.AppendSeq(make([]string, 0, len(w)), maps.Keys(w))
	slices.Sort(all)
	return all
}

// none stands in a table's cell for what is not there.
const none = "-"

func or(cell string) string {
	if cell == "" {
		return none
	}
	return cell
}

func join(cells []string) string { return or(strings.Join(cells, ", ")) }
