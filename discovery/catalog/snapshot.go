package catalog

import (
	"context"
	"errors"
	"iter"
	"sync/atomic"
	"time"
)

// Source gives the instances of services. Its snapshots are whole sets. Any number
// of goroutines may call its methods.
type Source interface {
	// Latest returns the latest snapshot of the service. It begins to watch a
	// service that is not watched, and waits for the first answer about it or
	// until ctx ends; after that it returns at once and does no I/O.
	Latest(ctx context.Context, service string) (*Snapshot, error)
	// KeepAlive notes that the service is in use. A source may end the watch of a
	// service that is not; Latest alone does not keep it alive, so that a page or
	// a metric can read without changing what is watched. It does not wait, and
	// begins no watch.
	KeepAlive(service string)
}

var (
	// ErrNoInstance is the error, wrapped, of a call that needs an instance of a
	// service without one. A registry can't tell a service that is
	// unknown from one that has no instance.
	ErrNoInstance = errors.New("no instance")
	// ErrTooManyServices is the error, wrapped, of a source that follows as
	// many services as it may and is asked for one more.
	ErrTooManyServices = errors.New("too many services are followed")
	// ErrFromDisk is the trouble, wrapped, that Snapshot.Freshness tells of a set
	// that was read from disk at the start, for want of an answer of the
	// registry. It ends with the first answer.
	ErrFromDisk = errors.New("the set is from disk: the registry has not answered since the start")
	// ErrClosed is the error, wrapped, of a source that was closed.
	ErrClosed = errors.New("closed")
)

// Snapshot is the set of instances of one service at one time. It never
// changes, except that it learns when it was last proven true. The zero value is
// the empty set of no service, which nothing ever supersedes.
type Snapshot struct {
	service    string
	instances  []Instance
	at         time.Time
	superseded chan struct{}
	origin     origin // where newer ones come from; nil: nowhere
	deselected int
	views      atomic.Pointer[view] // selections made of it
}

// origin is what a snapshot came from.
type origin interface {
	newest(service string) *Snapshot
	freshness() (time.Time, error)
}

// Service returns the name of the service.
func (s *Snapshot) Service() string { return s.service }

// Len returns the number of instances, whatever their state.
func (s *Snapshot) Len() int { return len(s.instances) }

// Deselected returns the number of instances that a selection has left out; see
// Select.
func (s *Snapshot) Deselected() int { return s.deselected }

// All ranges over the instances, whatever their state, in the order of their
// IDs.
func (s *Snapshot) All() iter.Seq[Instance] {
	return func(yield func(Instance) bool) {
		for _, i := range s.instances {
			if !yield(i) {
				return
			}
		}
	}
}

// At returns the time at which the set came to be what it is.
func (s *Snapshot) At() time.Time { return s.at }

// Superseded is closed when a newer snapshot of the service can be had, or
// when the source has stopped following the service.
func (s *Snapshot) Superseded() <-chan struct{} { return s.superseded }

// Newest returns the service's snapshot as it is now, s itself if that is the one;
// nil when the source has stopped following the service. Unlike Latest it begins
// no watch.
func (s *Snapshot) Newest() *Snapshot {
	if s.origin == nil {
		return nil
	}
	return s.origin.newest(s.service)
}

// Freshness returns the time of the last answer that proves the set, and the
// trouble that the source has had with the registry since then: nil if none.
func (s *Snapshot) Freshness() (time.Time, error) {
	if s.origin == nil {
		return time.Time{}, nil
	}
	return s.origin.freshness()
}
