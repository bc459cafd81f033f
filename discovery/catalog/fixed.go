package catalog

import (
	"context"
	"sync"
	"time"
)

// Fixed is a Source whose sets are given, not looked up: for a service outside
// the registry, and for tests. The zero value offers nothing. It keeps what was
// Set, and nothing for other names that are asked for.
type Fixed struct {
	mu    sync.Mutex // guards what follows
	feeds map[string]*Feed
	grown chan struct{} // closed when feeds has a new name; nil before it is needed
}

// Set replaces the set of a service's instances. The instances' Service is
// filled in; a State or Weight of zero means StatePassing and 1. An instance
// that can't be used is an error, and nothing is changed.
func (f *Fixed) Set(service string, instances ...Instance) error {
	set := make([]Instance, 0, len(instances))
	for _, i := range instances {
		i.Service = service
		if i.State == StateUnknown {
			i.State = StatePassing
		}
		if i.Weight == 0 {
			i.Weight = 1
		}
		if err := i.Validate(); err != nil {
			return err
		}
		set = append(set, i)
	}
	f.publish(service, set)
	return nil
}

// Latest returns the service's set, an empty one if none was given.
func (f *Fixed) Latest(ctx context.Context, service string) (*Snapshot, error) {
	f.mu.Lock()
	feed := f.feeds[service]
	f.mu.Unlock()
	if feed == nil {
		return f.newest(service), nil
	}
	return feed.Latest(ctx)
}

// KeepAlive does nothing: no set is ever given up.
func (f *Fixed) KeepAlive(string) {}

// newest returns the service's snapshot. That of a name without a set is empty,
// and superseded when any name has its first set. Only names with a set are kept.
func (f *Fixed) newest(service string) *Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if feed := f.feeds[service]; feed != nil {
		return feed.Current()
	}
	if f.grown == nil {
		f.grown = make(chan struct{})
	}
	return &Snapshot{service: service, at: time.Now(), superseded: f.grown, origin: f}
}

func (f *Fixed) freshness() (time.Time, error) { return time.Time{}, nil }

func (f *Fixed) publish(service string, set []Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	feed := f.feeds[service]
	if feed == nil {
		feed = NewFeed(service)
		if f.feeds == nil {
			f.feeds = map[string]*Feed{}
		}
		f.feeds[service] = feed
		if f.grown != nil {
			defer close(f.grown) // after there is something to find
			f.grown = nil
		}
	}
	feed.Publish(set, now)
	feed.Confirm(now)
}
