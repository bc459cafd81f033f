package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

// services asks for the names of all services, sorted. One that no client can ask for is
// left out, with a warning.
func (s *session) services(ctx context.Context) ([]string, error) {
	limited, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	all, _, err := consul.CatalogServices(s.consul, (&api.QueryOptions{}).WithContext(limited))
	if err != nil {
		return nil, s.cannotAsk(ctx, err)
	}
	names := make([]string, 0, len(all))
	for name := range all {
		if err := catalog.CheckService(name); err != nil {
			s.warn("a service is left out: %v", err)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// ask asks for the instances of services, of whatever kind, and judges them as a client
// does. An entry that a client can't use is left out, with a warning. It is an error if a
// question fails, or if no answer comes for as long as the timeout.
func (s *session) ask(ctx context.Context, services ...string) ([]*catalog.Snapshot, error) {
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(s.timeout, func() { cancel(fmt.Errorf("no answer within %v", s.timeout)) })
	defer silence.Stop()
	var mu sync.Mutex
	var refused []string
	watcher, err := watch.New(watch.Config{ //nolint:contextcheck // what it begins ends with Close
		Client: s.consul, MaxServices: max(len(services), 1), Log: s.details(ctx),
		Trace: &watch.Trace{
			Changed: func(*catalog.Snapshot) { silence.Reset(s.timeout) },
			Failed:  func(service string, err error) { cancel(fmt.Errorf("%s: %w", service, err)) }, // it would try again
			Refused: func(service string, err *catalog.InvalidError) {
				mu.Lock()
				defer mu.Unlock()
				refused = append(refused, fmt.Sprintf("%s: %v", service, err))
			},
		},
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = watcher.Close() }()
	if err := watcher.Pin(services...); err != nil {
		return nil, &exitError{exitUsage, err}
	}
	sets := make([]*catalog.Snapshot, 0, len(services))
	for _, service := range services {
		set, err := watcher.Latest(asking, service)
		if err != nil {
			return nil, s.cannotAsk(ctx, cmp.Or(context.Cause(asking), err))
		}
		sets = append(sets, set)
	}
	if err := watcher.Close(); err != nil { // Refused is called no more
		return nil, err
	}
	slices.Sort(refused)
	for _, problem := range refused {
		s.warn("an entry is left out, as by every client: %s", problem)
	}
	return sets, nil
}

// askOne is ask for one service that must be there.
func (s *session) askOne(ctx context.Context, service string) (*catalog.Snapshot, error) {
	sets, err := s.ask(ctx, service)
	if err != nil {
		return nil, err
	}
	if sets[0].Len() == 0 {
		return nil, &exitError{exitNo, fmt.Errorf("%w of %s is in the catalog, or none that the token may see; rollcall ls lists the services", errNothing, service)}
	}
	return sets[0], nil
}

var errNothing = errors.New("no instance")

// warn tells what is left out of an answer.
func (s *session) warn(format string, args ...any) {
	fmt.Fprintln(s.errs, "rollcall: "+clean(fmt.Sprintf(format, args...)))
}

// instance is what the commands print of one, with the names of discovery.Status.
type instance struct {
	ID       string            `json:"id"`
	Node     string            `json:"node,omitempty"`
	Addr     string            `json:"addr"`
	State    catalog.State     `json:"state"`
	Reason   string            `json:"reason,omitempty"`
	Weight   int               `json:"weight"`
	Version  string            `json:"version,omitempty"`
	Region   string            `json:"region,omitempty"`
	Zone     string            `json:"zone,omitempty"`
	Protocol string            `json:"protocol"`
	TLS      bool              `json:"tls,omitempty"`
	Kind     string            `json:"kind,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Meta     map[string]string `json:"meta,omitempty"`
}

func instanceOf(i catalog.Instance) instance {
	return instance{
		ID: i.ID, Node: i.Node, Addr: i.Addr(), State: i.State, Reason: strings.TrimSpace(i.Reason), Weight: i.Weight,
		Version: i.Meta["version"], Region: i.Region, Zone: i.Zone, Protocol: i.Protocol(), TLS: i.TLS(),
		Kind: i.Kind, Tags: i.Tags, Meta: i.Meta,
	}
}

// speaks is the protocol as tables show it.
func (i instance) speaks() string {
	if i.TLS {
		return i.Protocol + " by TLS"
	}
	return i.Protocol
}
