package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Feed is the writing end of one service's snapshots: what a Source is made
// of. One goroutine writes, any number read. Use NewFeed.
type Feed struct {
	service string
	latest  atomic.Pointer[Snapshot]
	fresh   atomic.Pointer[freshness]
	first   chan struct{} // closed with the first snapshot, or by Close

	mu     sync.Mutex // guards what follows
	closed error
}

type freshness struct {
	proven time.Time
	err    error
}

// NewFeed returns a feed without an answer so far.
func NewFeed(service string) *Feed {
	f := &Feed{service: service, first: make(chan struct{})}
	f.fresh.Store(&freshness{})
	return f
}

// Publish makes a new snapshot of the instances, which the feed keeps: the
// caller must not change them any more. at is the time of the answer; it does
// not count as proof (see Confirm). After Close it does nothing.
func (f *Feed) Publish(instances []Instance, at time.Time) { f.publish(instances, at, f, 0) }

// PublishFrom is Publish for a set that was made from another source's snapshot: it
// is as fresh as that one is, whatever the feed was told.
func (f *Feed) PublishFrom(s *Snapshot, instances []Instance, at time.Time) {
	f.publish(instances, at, made{f, s}, s.deselected)
}

// made is the origin of a snapshot that was made from another.
type made struct {
	feed *Feed
	from *Snapshot
}

func (m made) newest(string) *Snapshot       { return m.feed.Current() }
func (m made) freshness() (time.Time, error) { return m.from.Freshness() }

func (f *Feed) publish(instances []Instance, at time.Time, from origin, deselected int) {
	slices.SortFunc(instances, func(a, b Instance) int {
		if c := strings.Compare(a.ID, b.ID); c != 0 {
			return c
		}
		return strings.Compare(a.Node, b.Node)
	})
	next := &Snapshot{service: f.service, instances: instances, at: at, superseded: make(chan struct{}), origin: from, deselected: deselected}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		return
	}
	last := f.latest.Swap(next)
	if last == nil {
		close(f.first)
		return
	}
	close(last.superseded)
}

// Confirm notes that the latest snapshot was proven true at the given time,
// and that the trouble noted by Fail is over.
func (f *Feed) Confirm(at time.Time) { f.fresh.Store(&freshness{proven: at}) }

// Fail notes trouble with the registry; the snapshot and the time of its last
// proof stay.
func (f *Feed) Fail(err error) {
	f.fresh.Store(&freshness{proven: f.fresh.Load().proven, err: err})
}

// Close ends the feed: calls of Latest that wait, and later ones, return an
// error that wraps reason (nil means ErrClosed), and the last snapshot counts
// as superseded. Closing again does nothing.
func (f *Feed) Close(reason error) {
	if reason == nil {
		reason = ErrClosed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed != nil {
		return
	}
	f.closed = reason
	if last := f.latest.Swap(nil); last != nil {
		close(last.superseded)
		return
	}
	close(f.first)
}

// Current returns the latest snapshot: nil before the first one and after
// Close.
func (f *Feed) Current() *Snapshot { return f.latest.Load() }

// Latest returns the latest snapshot; it waits for the first one until ctx
// ends. A snapshot that is there wins over a context that has ended.
func (f *Feed) Latest(ctx context.Context) (*Snapshot, error) {
	if s := f.latest.Load(); s != nil {
		return s, nil
	}
	select {
	case <-f.first:
	case <-ctx.Done():
		select {
		case <-f.first:
		default:
			if _, err := f.freshness(); err != nil {
				return nil, fmt.Errorf("wait for the first answer about %s: %w (last trouble: %w)", f.service, context.Cause(ctx), err)
			}
			return nil, fmt.Errorf("wait for the first answer about %s: %w", f.service, context.Cause(ctx))
		}
	}
	if s := f.latest.Load(); s != nil {
		return s, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return nil, fmt.Errorf("follow %s: %w", f.service, f.closed)
}

func (f *Feed) newest(string) *Snapshot { return f.Current() }

func (f *Feed) freshness() (time.Time, error) {
	now := f.fresh.Load()
	return now.proven, now.err
}
