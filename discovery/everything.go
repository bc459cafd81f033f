package discovery

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/internal/consul"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
	"github.com/rollcall-mesh/rollcall/internal/pause"
)

const (
	maxAsked    = 200              // services that FollowCatalog tells of
	askTogether = 4                // of them that are asked about at once
	askLimit    = 10 * time.Second // for each

	// A held question tells late that nobody is there who would answer it. So Consul is
	// asked between whether it is.
	probeEvery = 5 * time.Second
	probeLimit = 3 * time.Second
)

// FollowCatalog tells, until ctx ends, all instances in the catalog with their checks,
// by the names of their services: once at the start, and when anything of that changes,
// once a second at most. It is for pages that show the whole mesh. Nothing is sent by
// it, and no service counts as in use for it. Consul holds two questions for it, is asked
// about a service when its checks change, about each when an instance comes or goes, and
// every five seconds whether it is there. Of more than 200 services it tells the first ones by name.
//
// An error is told with what was told before, which stays the last that is known. The
// map belongs to told. It takes service:read and node:read, and what may not be read is
// left out.
func (m *Mesh) FollowCatalog(ctx context.Context, told func(all map[string][]catalog.Entry, err error)) error {
	client, err := m.asker()
	if err != nil {
		return fmt.Errorf("discovery: follow the catalog: %w", err)
	}
	f := &everything{
		client: client, prefer: m.root.following.PreferAddresses, news: make(chan struct{}, 1),
		entries: map[string][]catalog.Entry{}, stale: map[string]bool{},
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	// Each fails by the end of ctx only.
	asking.Go(func() { _ = consul.Follow(ctx, f.askServices, f.noteServices) })
	asking.Go(func() { _ = consul.Follow(ctx, f.askChecks, f.noteChecks) })
	asking.Go(func() { f.probe(ctx) })
	return f.run(ctx, told)
}

// everything is the catalog as FollowCatalog knows it.
type everything struct {
	client *api.Client
	prefer []string
	news   chan struct{} // has room for one

	entries map[string][]catalog.Entry // run's
	begun   bool                       // run's: something was told

	mu          sync.Mutex // guards what follows
	services    map[string][]string
	registered  uint64 // index of the last change of any service
	servicesErr error
	checks      map[string]fingerprint // by service; "" is what concerns nodes
	checksErr   error
	probeErr    error
	stale       map[string]bool // services to ask for
}

// fingerprint changes with a set of checks: what is written gets a higher index.
type fingerprint struct {
	n    int
	last uint64
}

func (f *everything) note(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

func (f *everything) askServices(q *api.QueryOptions) (map[string][]string, *api.QueryMeta, error) {
	return consul.CatalogServices(f.client, q)
}

func (f *everything) noteServices(services map[string][]string, meta *api.QueryMeta, err error) {
	f.note(func() {
		if f.servicesErr = err; err != nil || f.services != nil && meta.LastIndex == f.registered {
			return
		}
		f.services, f.registered = services, meta.LastIndex
		for service := range services {
			f.stale[service] = true
		}
	})
}

func (f *everything) askChecks(q *api.QueryOptions) (api.HealthChecks, *api.QueryMeta, error) {
	return consul.AllChecks(f.client, q)
}

func (f *everything) noteChecks(all api.HealthChecks, _ *api.QueryMeta, err error) {
	f.note(func() {
		if f.checksErr = err; err != nil {
			return
		}
		now := map[string]fingerprint{}
		for _, c := range all {
			one := now[c.ServiceName]
			now[c.ServiceName] = fingerprint{one.n + 1, max(one.last, c.ModifyIndex)}
		}
		for service := range f.services {
			if now[service] != f.checks[service] || now[""] != f.checks[""] {
				f.stale[service] = true
			}
		}
		f.checks = now
	})
}

// probe asks whether Consul is there, until ctx ends.
func (f *everything) probe(ctx context.Context) {
	for fails := false; pause.For(ctx, probeEvery, nil) == nil; {
		asking, cancel := context.WithTimeout(ctx, probeLimit)
		err := consul.Leader(f.client, (&api.QueryOptions{}).WithContext(asking))
		cancel()
		if err != nil || fails {
			f.note(func() { f.probeErr = err })
		}
		fails = err != nil
	}
}

// run asks for what has changed, and tells.
func (f *everything) run(ctx context.Context, told func(map[string][]catalog.Entry, error)) error {
	var backoff consul.Backoff
	ill := false // an error was told last
	for {
		select {
		case <-f.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		began := time.Now()
		names, news, err := f.take()
		if !news && !ill && err == nil {
			continue
		}
		failed := f.ask(ctx, names)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = failed
		}
		told(maps.Clone(f.entries), err)
		ill = err != nil
		rest := consul.FollowEvery - time.Since(began)
		if failed != nil {
			rest = max(rest, backoff.Next(failed))
			f.note(func() {}) // what it could not learn is asked for again
		} else {
			backoff.Reset()
		}
		if err := pause.For(ctx, rest, nil); err != nil {
			return err
		}
	}
}

// take returns the services to ask for; news says that there are some, that one is
// gone, or that this is the first that is known.
func (f *everything) take() (names []string, news bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := slices.Sorted(maps.Keys(f.services))
	there = there[:min(len(there), maxAsked)]
	for service := range f.entries {
		if !slices.Contains(there, service) {
			delete(f.entries, service)
			news = true
		}
	}
	for _, service := range there {
		if f.stale[service] {
			names = append(names, service)
		}
	}
	clear(f.stale)
	if f.services != nil && !f.begun {
		f.begun, news = true, true
	}
	for _, err = range []error{f.servicesErr, f.checksErr, f.probeErr} {
		if err != nil {
			break
		}
	}
	return names, news || len(names) > 0, err
}

// ask asks for these services, and marks those anew that it could not learn of.
func (f *everything) ask(ctx context.Context, names []string) error {
	entries, errs := make([][]catalog.Entry, len(names)), make([]error, len(names))
	places := make(chan struct{}, askTogether)
	var asking sync.WaitGroup
	for n, name := range names {
		asking.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			entries[n], errs[n] = f.one(ctx, name)
		})
	}
	asking.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed error
	for n, name := range names {
		if errs[n] != nil {
			f.stale[name], failed = true, errs[n]
			continue
		}
		f.entries[name] = entries[n]
	}
	return failed
}

func (f *everything) one(ctx context.Context, service string) ([]catalog.Entry, error) {
	if err := catalog.CheckService(service); err != nil {
		return nil, nil // it has no instance that anybody could ask
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	answer, _, err := consul.Instances(f.client, service, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("the instances of %s: %w", service, err)
	}
	return watch.Entries(service, answer, f.prefer), nil
}
