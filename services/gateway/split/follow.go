package split

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// Keys is where documents are. A *discovery.Mesh is one.
type Keys interface {
	FollowKey(ctx context.Context, key string, told func(value []byte, index uint64, err error)) error
}

// Follower keeps the last document that could be read. Use NewFollower, and Run. It is a
// prometheus.Collector.
type Follower struct {
	keys  Keys
	key   string
	log   *slog.Logger
	now   atomic.Pointer[Splits]
	wrong atomic.Pointer[string] // nil: nothing
}

// NewFollower returns a Follower of the document under a key of Consul's KV.
func NewFollower(keys Keys, key string, log *slog.Logger) *Follower {
	return &Follower{keys: keys, key: key, log: log}
}

// Splits returns the rules as they are now: nil before the first document.
func (f *Follower) Splits() *Splits { return f.now.Load() }

// Run follows the document until ctx ends. A key that is not there is a document without
// rules; one that can't be read, or Consul's absence, leaves the last rules.
func (f *Follower) Run(ctx context.Context) error {
	var last uint64
	return f.keys.FollowKey(ctx, f.key, func(value []byte, index uint64, err error) {
		var s *Splits
		if err == nil {
			s, err = Parse(value)
		}
		if err != nil {
			why := err.Error()
			if f.wrong.Swap(&why) == nil {
				f.log.WarnContext(ctx, "the splits can't be read: the last good ones hold", "key", f.key, "error", err)
			}
			return
		}
		f.wrong.Store(nil)
		if index != last {
			last = index
			f.log.InfoContext(ctx, "splits are in use", "key", f.key, "index", index, "services", len(s.Services))
		}
		s.inherit(f.now.Load())
		f.now.Store(s)
	})
}

// Status is what a page shows.
type Status struct {
	Services map[string][]Rule `json:"services"`
	Error    string            `json:"error,omitempty"` // of the document that is in Consul now
}

// Status returns the rules in use, and what is wrong with newer ones.
func (f *Follower) Status() Status {
	var s Status
	if now := f.now.Load(); now != nil {
		s.Services = now.Services
	}
	if why := f.wrong.Load(); why != nil {
		s.Error = *why
	}
	return s
}
