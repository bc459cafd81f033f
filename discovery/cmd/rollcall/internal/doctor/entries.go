package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// What can be judged by the entries alone.

// serfHealth is the check by which the servers say that a node's agent is alive.
const serfHealth = "serfHealth"

// host is where others connect to, by the entry.
func host(e *api.ServiceEntry) string { return cmp.Or(e.Service.Address, e.Node.Address) }

// address is host and port.
func address(e *api.ServiceEntry) string {
	return net.JoinHostPort(host(e), strconv.Itoa(e.Service.DefaultPort()))
}

// at is an entry's node, for people.
func at(e *api.ServiceEntry) string { return e.Node.Node + " (" + e.Node.Address + ")" }

// checkOf is the entry's check of that ID; nil: there is none.
func checkOf(e *api.ServiceEntry, id string) *api.HealthCheck {
	i := slices.IndexFunc(e.Checks, func(c *api.HealthCheck) bool { return c.CheckID == id })
	if i < 0 {
		return nil
	}
	return e.Checks[i]
}

// dead reports whether the entry's node has no agent any more, as the servers see it.
func dead(e *api.ServiceEntry) bool {
	c := checkOf(e, serfHealth)
	return c != nil && c.Status == api.HealthCritical
}

// ranOut reports whether the entry's heartbeat has run out.
func ranOut(e *api.ServiceEntry) bool {
	return slices.ContainsFunc(e.Checks, func(c *api.HealthCheck) bool {
		return c.ServiceID != "" && c.Status == api.HealthCritical && strings.HasPrefix(c.Output, "TTL expired")
	})
}

// groups returns the entries that have the same key, where there are several, in the
// order of their keys.
func groups(entries []*api.ServiceEntry, key func(e *api.ServiceEntry) string) [][]*api.ServiceEntry {
	by := map[string][]*api.ServiceEntry{}
	for _, e := range entries {
		by[key(e)] = append(by[key(e)], e)
	}
	var several [][]*api.ServiceEntry
	for _, k := range slices.Sorted(maps.Keys(by)) {
		if len(by[k]) > 1 {
			several = append(several, by[k])
		}
	}
	return several
}

// list joins what f makes of the entries, each thing once.
func list(entries []*api.ServiceEntry, f func(e *api.ServiceEntry) string) string {
	const most = 10
	var all []string
	for _, e := range entries {
		if one := f(e); !slices.Contains(all, one) {
			all = append(all, one)
		}
	}
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

// name is an entry with its service.
func name(e *api.ServiceEntry) string { return e.Service.Service + "/" + e.Service.ID }

// judgeIDs looks for an ID at several nodes, and for an address under several IDs.
func (x *examination) judgeIDs() {
	for _, same := range groups(x.entries, name) {
		x.found(Failure, checkIDs, howToPart(same), "%s is registered at %d nodes: %s", name(same[0]), len(same), list(same, at))
	}
	for _, same := range groups(x.entries, whereabouts) {
		if ids := list(same, name); ids != name(same[0]) {
			level := Failure
			if list(same, func(e *api.ServiceEntry) string { return e.Service.Service }) != same[0].Service.Service {
				level = Warning // one program that is two services may be meant so
			}
			x.found(level, checkIDs, "one program has one entry for each service: one that an earlier life left goes by itself within minutes if its heartbeat has run out; else `consul services deregister -id=ID` at its node, and give each instance a port of its own",
				"%s is registered as %s, at %s", address(same[0]), ids, list(same, at))
		}
	}
	x.well(checkIDs, "each ID is at one node, and each address under one ID")
}

// whereabouts is an address and its protocol, as far as an address can be told apart: a
// loopback is each node's own.
func whereabouts(e *api.ServiceEntry) string {
	key := address(e)
	if loopback(host(e)) {
		key += " " + e.Node.Node
	}
	if slices.Contains(e.Service.Tags, catalog.GRPC) {
		key += " " + catalog.GRPC // may share a port with HTTP
	}
	return key
}

// howToPart is the remedy of an ID at several nodes.
func howToPart(same []*api.ServiceEntry) string {
	if i := slices.IndexFunc(same, dead); i >= 0 {
		return howToBury(same[i].Node.Node)
	}
	if list(same, address) == address(same[0]) {
		return fmt.Sprintf("they are one program, which was registered with one agent and then with another: `consul services deregister -id=%s` at the one that it does not use any more", same[0].Service.ID)
	}
	return "give each instance an ID of its own (registration.Config.ID, `rollcall register --id`): logs and drains can't tell them apart"
}

func howToBury(node string) string {
	return "if the node does not come back: `consul force-leave -prune " + node + "`, else Consul keeps its entries for 72 hours"
}

// judgeGhosts looks for entries that nobody stands behind.
func (x *examination) judgeGhosts() {
	nodes := map[string][]*api.ServiceEntry{}
	for _, e := range x.entries {
		if dead(e) {
			nodes[e.Node.Node] = append(nodes[e.Node.Node], e)
		}
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		left := nodes[node]
		x.found(Failure, checkGhosts, howToBury(node), "the agent of node %s is gone (%s), and its entries are still there: %s",
			at(left[0]), oneLine(checkOf(left[0], serfHealth).Output), list(left, name))
	}
	for _, e := range x.entries {
		if ranOut(e) && !dead(e) {
			x.found(Warning, checkGhosts, fmt.Sprintf("see whether the program runs, at node %s, and reaches its agent; if it has ended, Consul removes the entry a minute or two after, unless it was told never to: then `consul services deregister -id=%s` there", e.Node.Node, e.Service.ID),
				"the heartbeat of %s has run out", name(e))
		}
	}
	x.well(checkGhosts, "each entry has a live agent, and its heartbeat if it has one")
}

// judgeLoopback looks for addresses that only their own machine can reach.
func (x *examination) judgeLoopback() {
	for _, e := range x.entries {
		if loopback(host(e)) && !loopback(e.Node.Address) {
			x.found(Failure, checkLoopback, "register an address that others can connect to: registration.Config.Host, ROLLCALL_ADVERTISE_HOST of the fleet's services, `rollcall register --host`; or give the agent one (advertise_addr), which is taken over",
				"%s is registered at %s: only its own machine, %s, can reach that", name(e), address(e), at(e))
		}
	}
	x.well(checkLoopback, "no address is one that only its own machine can reach")
}

// judgeVersions tells of services whose instances are of several versions.
func (x *examination) judgeVersions() {
	for _, service := range x.services {
		versions := map[string]int{}
		for _, e := range x.entries {
			if v := e.Service.Meta["version"]; isOf(e, service) && v != "" {
				versions[v]++
			}
		}
		if len(versions) < 2 {
			continue
		}
		var shares []string
		for _, v := range slices.Sorted(maps.Keys(versions)) {
			shares = append(shares, fmt.Sprintf("%s (%d)", v, versions[v]))
		}
		x.found(Note, checkVersions, "during a rollout that is as it should be", "%s runs in %d versions: %s", service, len(versions), strings.Join(shares, ", "))
	}
}

// speaksTLS reports whether the entry says that its port speaks TLS.
func speaksTLS(e *api.ServiceEntry) bool { return e.Service.Meta[catalog.MetaTLS] == "true" }

// oneLine is text of others as it fits into a line.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
