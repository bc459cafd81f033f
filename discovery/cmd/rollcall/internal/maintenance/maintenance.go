// Package maintenance takes one instance out of use by Consul's maintenance mode,
// and puts it back.
//
// Only the agent that an instance is registered with can do that, and an ID is
// unique on its agent only: so it is looked up in the catalog first, and whatever
// leaves a doubt about which instance or which agent is refused, with the names that
// end the doubt. Done means seen: the calls return when the catalog shows what was
// asked for.
package maintenance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
)

// Instance names an instance.
type Instance struct {
	Service, ID string
	// Node that it is registered at. Empty means the only one that has it.
	Node string
}

// Parse reads an instance as it is written on a command line: order/order-web1-8080.
// An ID may have slashes, a service has none.
func Parse(text string) (Instance, error) {
	service, id, ok := strings.Cut(text, "/")
	if !ok || service == "" || id == "" {
		return Instance{}, fmt.Errorf("the instance is %q; want SERVICE/ID, as in order/order-web1-8080", text)
	}
	return Instance{Service: service, ID: id}, nil
}

// String returns the instance as Parse reads it.
func (i Instance) String() string { return i.Service + "/" + i.ID }

// Done is what a call has found, and changed.
type Done struct {
	// Instance with its Node.
	Instance Instance
	// Already says that nothing had to be done. The reason that Consul has then stays.
	Already bool
	// Reason that Consul shows; empty after Disable.
	Reason string
	// NodeReason is that of the node's maintenance mode, which takes out all that is
	// on it whatever its instances say; empty if it has none.
	NodeReason string
}

// MissingError is the error of an instance that the catalog does not have.
type MissingError struct {
	Instance Instance
	// IDs that the service has, sorted.
	IDs []string
}

func (e *MissingError) Error() string {
	const most = 10
	where := ""
	if e.Instance.Node != "" {
		where = " at node " + e.Instance.Node
	}
	switch {
	case len(e.IDs) == 0:
		return fmt.Sprintf("%s is not in the catalog%s, and the service has no instance", e.Instance, where)
	case len(e.IDs) > most:
		return fmt.Sprintf("%s is not in the catalog%s; the service has %s and %d more", e.Instance, where, strings.Join(e.IDs[:most], ", "), len(e.IDs)-most)
	}
	return fmt.Sprintf("%s is not in the catalog%s; the service has %s", e.Instance, where, strings.Join(e.IDs, ", "))
}

// AmbiguousError is the error of an ID that several nodes have.
type AmbiguousError struct {
	Instance Instance
	// At is where they are, as "NODE (ADDRESS)", sorted.
	At []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%s is registered at %d nodes: %s", e.Instance, len(e.At), strings.Join(e.At, ", "))
}

// OwnerError is the error of an instance that is registered with another agent than
// the one that was asked.
type OwnerError struct {
	Instance Instance // with its Node
	Address  string   // of the node
	Asked    string   // the node whose agent was asked; empty: unknown
}

func (e *OwnerError) Error() string {
	asked := "this agent"
	if e.Asked != "" {
		asked = "this agent (node " + e.Asked + ")"
	}
	return fmt.Sprintf("%s is registered with the agent of node %s (%s), and only that one can do it: %s can't", e.Instance, e.Instance.Node, e.Address, asked)
}

// ErrUnseen is the error, wrapped, of a change that the agent took and the catalog does
// not show so far.
var ErrUnseen = errors.New("the agent took the change, and the catalog does not show it so far")

// seenWithin bounds the wait for the catalog to show what the agent took.
const seenWithin = 10 * time.Second

// Enable puts the instance into maintenance mode, with a reason for those who
// wonder. An instance that is in it keeps the reason that it has.
func Enable(ctx context.Context, client *api.Client, i Instance, reason string) (Done, error) {
	return change(ctx, client, i, &reason)
}

// Disable ends the maintenance mode of the instance, which is not its node's.
func Disable(ctx context.Context, client *api.Client, i Instance) (Done, error) {
	return change(ctx, client, i, nil)
}

// change has the instance in maintenance mode for the reason; nil means not at all.
func change(ctx context.Context, client *api.Client, i Instance, reason *string) (Done, error) {
	entry, err := find(ctx, client, i)
	if err != nil {
		return Done{}, err
	}
	i.Node = entry.Node.Node
	if err := owned(ctx, client, entry, i); err != nil {
		return Done{}, err
	}
	done := Done{Instance: i, NodeReason: notesOf(entry, api.NodeMaint)}
	if now, out := maintenance(entry); out == (reason != nil) {
		done.Already, done.Reason = true, now
		return done, nil
	}
	q := (&api.QueryOptions{}).WithContext(ctx)
	if reason != nil {
		done.Reason = *reason
		err = client.Agent().EnableServiceMaintenanceOpts(i.ID, *reason, q)
	} else {
		err = client.Agent().DisableServiceMaintenanceOpts(i.ID, q)
	}
	if err != nil {
		return Done{}, fmt.Errorf("maintenance of %s: %w", i, consul.Clip(err))
	}
	return done, await(ctx, client, i, reason != nil)
}

// find returns the instance's entry in the catalog.
func find(ctx context.Context, client *api.Client, i Instance) (*api.ServiceEntry, error) {
	entries, meta, err := consul.Instances(client, i.Service, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", i, err)
	}
	var found []*api.ServiceEntry
	var ids []string
	for _, e := range entries {
		if e.Node == nil || e.Service == nil {
			continue // the answer is of something else than Consul
		}
		ids = append(ids, e.Service.ID)
		if e.Service.ID == i.ID && (i.Node == "" || e.Node.Node == i.Node) {
			found = append(found, e)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		several := &AmbiguousError{Instance: i}
		for _, e := range found {
			several.At = append(several.At, e.Node.Node+" ("+e.Node.Address+")")
		}
		slices.Sort(several.At)
		return nil, several
	case meta.ResultsFilteredByACLs:
		return nil, fmt.Errorf("look up %s: Consul left out what the token may not read: want service:read for %s, and node:read", i, strconv.Quote(i.Service))
	}
	slices.Sort(ids)
	return nil, &MissingError{Instance: i, IDs: slices.Compact(ids)}
}

// owned returns nil if the agent that answers is the one that has the entry.
func owned(ctx context.Context, client *api.Client, entry *api.ServiceEntry, i Instance) error {
	q := (&api.QueryOptions{}).WithContext(ctx)
	node, _, err := consul.Self(client, q)
	if consul.Denied(err) {
		// Without agent:read an agent still tells of the services that the token may
		// read, and their checks name the node.
		node, err = nodeOf(client, i.ID, q)
	}
	if err != nil {
		return fmt.Errorf("ask the agent who it is: %w", consul.Clip(err))
	}
	_, _, err = consul.Service(client, i.ID, q)
	switch {
	case consul.Unknown(err) && node == i.Node:
		return fmt.Errorf("%s is in the catalog at node %s, whose agent does not have it: the entry was left over, or the agent has lost it and will not say so to the servers for some minutes", i, node)
	case consul.Unknown(err), err == nil && node != "" && node != i.Node:
		return &OwnerError{Instance: i, Address: entry.Node.Address, Asked: node}
	case err != nil:
		return fmt.Errorf("ask the agent for %s: %w", i, err)
	}
	return nil
}

// nodeOf is the node that the agent's checks of the instance are at; empty if it has
// none.
func nodeOf(client *api.Client, id string, q *api.QueryOptions) (node string, err error) {
	checks, err := consul.Checks(client, "ServiceID == "+strconv.Quote(id), q)
	for _, c := range checks {
		node = c.Node
	}
	return node, err
}

// await waits until the catalog shows the instance in maintenance mode, or out of it.
func await(ctx context.Context, client *api.Client, i Instance, out bool) error {
	ctx, cancel := context.WithTimeout(ctx, seenWithin)
	defer cancel()
	var index uint64
	for {
		q := &api.QueryOptions{WaitIndex: index, WaitTime: seenWithin}
		entries, meta, err := consul.Instances(client, i.Service, q.WithContext(ctx))
		if err != nil {
			return fmt.Errorf("maintenance of %s: %w (%w)", i, ErrUnseen, err)
		}
		for _, e := range entries {
			if e.Node == nil || e.Service == nil || e.Service.ID != i.ID || e.Node.Node != i.Node {
				continue
			}
			if _, now := maintenance(e); now == out {
				return nil
			}
		}
		if index = meta.LastIndex; index == 0 {
			return fmt.Errorf("maintenance of %s: %w (its answer has no index to wait for)", i, ErrUnseen)
		}
	}
}

// maintenance returns the reason of the instance's own maintenance mode, and whether
// it is in it.
func maintenance(e *api.ServiceEntry) (reason string, out bool) {
	for _, c := range e.Checks {
		if c.CheckID == api.ServiceMaintPrefix+e.Service.ID {
			return c.Notes, true
		}
	}
	return "", false
}

func notesOf(e *api.ServiceEntry, checkID string) string {
	for _, c := range e.Checks {
		if c.CheckID == checkID {
			return c.Notes
		}
	}
	return ""
}

// IsRefusal reports whether an error says that the instance is not the one meant,
// or not this agent's, rather than that Consul could not be asked.
func IsRefusal(err error) bool {
	_, missing := errors.AsType[*MissingError](err)
	_, several := errors.AsType[*AmbiguousError](err)
	_, elsewhere := errors.AsType[*OwnerError](err)
	return missing || several || elsewhere
}
