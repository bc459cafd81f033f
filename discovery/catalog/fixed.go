package catalog

import (
	"context"
	"sync"
	"time"
)

// Fixed is a Source whose sets are given, not looked up: for a service outside
// the registry, and for tests. The zero value offers nothing.
type Fixed struct {
	mu    sync.Mutex // guards what follows
	feeds map[string]*Feed
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
	now := time.Now()
	feed := f.feed(service)
	feed.Publish(set, now)
	feed.Confirm(now)
	return nil
}

// Latest returns the service's set, an empty one if none was given.
func (f *Fixed) Latest(ctx context.Context, service string) (*Snapshot, error) {
	return f.feed(service).Latest(ctx)
}

func (f *Fixed) feed(service string) *Feed {
	f.mu.Lock()
	defer f.mu.Unlock()
	feed := f.feeds[service]
	if feed == nil {
		feed = NewFeed(service)
		feed.Publish(nil, time.Now())
		if f.feeds == nil {
			f.feeds = map[string]*Feed{}
		}
		f.feeds[service] = feed
	}
	return feed
}
