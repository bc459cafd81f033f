package consul

import (
	"errors"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// The reading of answers. An answer that can't be read is an error: one that makes
// the API client panic, and one that has null where something must be. So what
// these functions return without an error can be read without a look for nil.
// Errors are clipped.

var errNull = errors.New("the answer can't be read: it has null in place of an entry")

// readable turns a panic of the API client into an error. Defer it.
func readable(err *error) {
	// consul/api v1.34.5 dereferences nil when a check has "Definition": null
	// (found by watch's FuzzAnswer). No answer may end the process.
	if p := recover(); p != nil {
		*err = fmt.Errorf("the answer can't be read: it made consul/api panic: %v", p)
	}
	*err = Clip(*err)
}

// Instances asks the catalog for all instances of a service, whatever their
// health.
func Instances(client *api.Client, service string, q *api.QueryOptions) (entries []*api.ServiceEntry, meta *api.QueryMeta, err error) {
	return tagged(client, service, "", q)
}

// noTag is a tag that no instance has. One that has it costs some bytes.
const noTag = "~"

// Index asks for the index of a service and for none of its instances. Consul
// compares the tags of each, and makes nothing of what it does not return: at
// 5,000 instances that is 1 ms of a server's time, where a filter takes 40. What
// was not made is not filtered either: the answer never says that rights lack.
func Index(client *api.Client, service string, q *api.QueryOptions) (*api.QueryMeta, error) {
	_, meta, err := tagged(client, service, noTag, q)
	return meta, err
}

func tagged(client *api.Client, service, tag string, q *api.QueryOptions) (entries []*api.ServiceEntry, meta *api.QueryMeta, err error) {
	defer readable(&err)
	if entries, meta, err = client.Health().Service(service, tag, false, q); err != nil {
		return nil, nil, err
	}
	if entries == nil {
		return nil, nil, errNull
	}
	for _, e := range entries {
		if e == nil {
			return nil, nil, errNull
		}
		for _, c := range e.Checks {
			if c == nil {
				return nil, nil, errNull
			}
		}
	}
	return entries, meta, nil
}

// Service asks the agent for its own entry of that ID; Unknown tells whether an
// error means that there is none. With q.WaitHash the answer waits for a change.
func Service(client *api.Client, id string, q *api.QueryOptions) (entry *api.AgentService, meta *api.QueryMeta, err error) {
	defer readable(&err)
	if entry, meta, err = client.Agent().Service(id, q); err != nil {
		return nil, nil, err
	}
	if entry == nil {
		return nil, nil, errNull
	}
	return entry, meta, nil
}

// Services asks the agent for its own entries that match the filter, by ID.
func Services(client *api.Client, filter string, q *api.QueryOptions) (all map[string]*api.AgentService, err error) {
	defer readable(&err)
	if all, err = client.Agent().ServicesWithFilterOpts(filter, q); err != nil {
		return nil, err
	}
	if err = noNull(all); err != nil {
		return nil, err
	}
	return all, nil
}

// Checks asks the agent for its own checks that match the filter, by ID.
func Checks(client *api.Client, filter string, q *api.QueryOptions) (all map[string]*api.AgentCheck, err error) {
	defer readable(&err)
	if all, err = client.Agent().ChecksWithFilterOpts(filter, q); err != nil {
		return nil, err
	}
	if err = noNull(all); err != nil {
		return nil, err
	}
	return all, nil
}

func noNull[T any](all map[string]*T) error {
	if all == nil {
		return errNull
	}
	for _, one := range all {
		if one == nil {
			return errNull
		}
	}
	return nil
}

// NodeServices asks the catalog for the services of a node; Node is nil if it does
// not know the node, or may not be read.
func NodeServices(client *api.Client, node string, q *api.QueryOptions) (list *api.CatalogNodeServiceList, meta *api.QueryMeta, err error) {
	defer readable(&err)
	if list, meta, err = client.Catalog().NodeServiceList(node, q); err != nil {
		return nil, nil, err
	}
	if list == nil {
		return nil, nil, errNull
	}
	for _, s := range list.Services {
		if s == nil {
			return nil, nil, errNull
		}
	}
	return list, meta, nil
}

// NodeChecks asks the catalog for the checks of a node.
func NodeChecks(client *api.Client, node string, q *api.QueryOptions) (all api.HealthChecks, meta *api.QueryMeta, err error) {
	defer readable(&err)
	if all, meta, err = client.Health().Node(node, q); err != nil {
		return nil, nil, err
	}
	if all == nil {
		return nil, nil, errNull
	}
	for _, c := range all {
		if c == nil {
			return nil, nil, errNull
		}
	}
	return all, meta, nil
}

// Self asks the agent for its node's name and the address that others know it by.
func Self(client *api.Client, q *api.QueryOptions) (node, address string, err error) {
	defer readable(&err)
	var self map[string]map[string]any
	if _, err = client.Raw().Query("/v1/agent/self", &self, q); err != nil { // Agent().Self takes no context
		return "", "", err
	}
	node, _ = self["Config"]["NodeName"].(string)
	address, _ = self["Member"]["Addr"].(string)
	if node == "" {
		return "", "", errors.New("the answer can't be read: the agent's own Config has no NodeName")
	}
	return node, address, nil
}
