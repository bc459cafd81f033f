package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

var (
	// ErrStale is the error, wrapped, of Latest when the last proof of the set
	// is older than Config.StaleFor.
	ErrStale = errors.New("not proven for too long")

	errForgotten = errors.New("not in use")
)

// Watcher is a catalog.Source over Consul. Use New. Its methods may be called
// by any number of goroutines.
type Watcher struct {
	cfg      Config
	began    time.Time
	blocking *gate  // for blocking queries
	quick    *gate  // for the others
	retries  signal // for queries that wait after a failure
	store    *store // nil: nothing is kept on disk
	start    func(*follower)
	cancel   context.CancelFunc
	running  sync.WaitGroup
	saving   sync.WaitGroup
	saved    context.CancelFunc // ends saving, after a last write

	followers atomic.Pointer[map[string]*follower] // never changed, always replaced

	mu     sync.Mutex // held to replace followers; guards what follows
	closed bool
	room   time.Time // when making room for a name is free again: see makeRoom
}

// follower is what readers see of a service that is followed.
type follower struct {
	service string
	feed    *catalog.Feed
	began   time.Time
	used    atomic.Int64 // when last, in nanoseconds since the Watcher began
	pinned  atomic.Bool
	stop    context.CancelCauseFunc
}

// New returns a Watcher that follows nothing yet; an error means a wrong
// setting. The caller must Close it.
func New(cfg Config) (*Watcher, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watcher{
		cfg:      cfg,
		began:    time.Now(),
		blocking: newGate(cfg.MaxQueries),
		quick:    newGate(maxQuick),
		cancel:   cancel,
	}
	w.start = func(f *follower) {
		var following context.Context
		following, f.stop = context.WithCancelCause(ctx)
		w.running.Go(func() { w.run(following, f) })
	}
	w.followers.Store(&map[string]*follower{})
	saving, saved := context.WithCancel(context.Background())
	w.saved = saved
	if cfg.Dir != "" {
		if w.store, err = openStore(cfg.Dir, cfg.DirMaxAge, cfg.Log); err != nil {
			cancel()
			saved()
			return nil, err
		}
		w.saving.Go(func() { w.store.run(saving) })
	}
	return w, nil
}

// Latest returns the latest snapshot of the service, and follows it from the
// first call on; only KeepAlive and Pin prolong that beyond Config.IdleFor. It
// waits for the first answer until ctx ends; after that it does no I/O, takes no
// lock and allocates nothing. The error wraps ctx's own
// and the last trouble with Consul, ErrStale (see Config.StaleFor),
// catalog.ErrTooManyServices or catalog.ErrClosed.
func (w *Watcher) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	for {
		f := (*w.followers.Load())[service]
		if f == nil {
			var err error
			if f, err = w.follow(service); err != nil {
				return nil, err
			}
		}
		s := f.feed.Current()
		if s == nil {
			var err error
			if s, err = f.feed.Latest(ctx); errors.Is(err, errForgotten) {
				continue // dropped in the moment in which we asked: begin anew
			} else if err != nil {
				return nil, err
			}
		}
		if w.cfg.StaleFor > 0 {
			if err := w.stale(f, s); err != nil {
				return nil, err
			}
		}
		return s, nil
	}
}

// KeepAlive notes that the service is in use, if it is followed. It takes no
// lock and allocates nothing.
func (w *Watcher) KeepAlive(service string) {
	f := (*w.followers.Load())[service]
	if f == nil {
		return
	}
	// A second's grain keeps readers on many processors from passing one cache
	// line around.
	if now := int64(time.Since(w.began)); now-f.used.Load() > int64(time.Second) {
		f.used.Store(now)
	}
}

func (w *Watcher) stale(f *follower, s *catalog.Snapshot) error {
	proven, trouble := s.Freshness()
	if proven.IsZero() {
		proven = f.began
	}
	age := time.Since(proven)
	if age < w.cfg.StaleFor {
		return nil
	}
	err := fmt.Errorf("follow %s: the last proof is %s old, StaleFor is %s: %w", f.service, age.Round(time.Millisecond), w.cfg.StaleFor, ErrStale)
	if trouble != nil && !errors.Is(trouble, ErrStale) {
		err = fmt.Errorf("%w (last trouble: %w)", err, trouble)
	}
	return err
}

// Pin follows the services from now on and never drops them. The error is
// about a name that can't be one, catalog.ErrTooManyServices or
// catalog.ErrClosed; the services before it are pinned.
func (w *Watcher) Pin(services ...string) error {
	for _, service := range services {
		for {
			f, err := w.follow(service)
			if err != nil {
				return err
			}
			f.pinned.Store(true)
			if (*w.followers.Load())[service] == f {
				break
			} // else it was dropped in that moment
		}
	}
	return nil
}

// Retry has every watch that waits after a failure ask Consul again within 70 ms:
// call it when there is reason to believe that Consul answers again. A watch that
// finds Consul back does so by itself for all others. It does not wait, and may be
// called often.
func (w *Watcher) Retry() { w.retries.fire() }

// Following returns the names of the services followed, sorted.
func (w *Watcher) Following() []string {
	return slices.Sorted(maps.Keys(*w.followers.Load()))
}

// Snapshots returns the latest snapshot of each service that is followed and
// had an answer, in the order of their names. It is for metrics and pages: it
// begins no watch, and minds no StaleFor.
func (w *Watcher) Snapshots() []*catalog.Snapshot {
	followers := *w.followers.Load()
	all := make([]*catalog.Snapshot, 0, len(followers))
	for _, service := range slices.Sorted(maps.Keys(followers)) {
		if s := followers[service].feed.Current(); s != nil {
			all = append(all, s)
		}
	}
	return all
}

// Close stops following: it ends the queries in flight, writes to Config.Dir
// what is not there yet, waits for every goroutine, and ends calls of Latest that
// wait with catalog.ErrClosed. It may be called twice. The client is the caller's to close.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	w.followers.Store(&map[string]*follower{})
	w.mu.Unlock()
	w.cancel()
	w.running.Wait()
	// Only now has each follower said what it knew last.
	w.saved()
	w.saving.Wait()
	return nil
}

func (w *Watcher) follow(service string) (*follower, error) {
	if err := catalog.CheckService(service); err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	followers := *w.followers.Load()
	switch f := followers[service]; {
	case f != nil:
		return f, nil
	case w.closed:
		return nil, fmt.Errorf("follow %s: %w", service, catalog.ErrClosed)
	}
	var out *follower
	if len(followers) >= w.cfg.MaxServices {
		if out = w.makeRoom(followers); out == nil {
			return nil, fmt.Errorf("follow %s: %w (%d already)", service, catalog.ErrTooManyServices, len(followers))
		}
	}
	f := &follower{service: service, feed: catalog.NewFeed(service), began: time.Now()}
	f.used.Store(int64(time.Since(w.began)))
	followers = maps.Clone(followers)
	if out != nil {
		delete(followers, out.service)
		out.stop(errForgotten)
	}
	followers[service] = f
	w.followers.Store(&followers)
	w.start(f)
	return f, nil
}

// A name costs Consul a question or two. So that names from requests can't become
// a flood of them, room is made roomBurst times at once and then every roomEvery.
const (
	roomEvery = 100 * time.Millisecond
	roomBurst = 10
)

// makeRoom returns the follower that is to go for another's sake: of the names
// without an instance, the one that was in use longest ago; nil if there is
// none, or if room was made too often of late. The caller holds mu.
func (w *Watcher) makeRoom(followers map[string]*follower) *follower {
	now := time.Now()
	if w.room.Sub(now) > (roomBurst-1)*roomEvery {
		return nil
	}
	var out *follower
	for _, f := range followers {
		if s := f.feed.Current(); s == nil || s.Len() > 0 || f.pinned.Load() {
			continue
		}
		if out == nil || f.used.Load() < out.used.Load() {
			out = f
		}
	}
	if out != nil {
		if w.room.Before(now) {
			w.room = now
		}
		w.room = w.room.Add(roomEvery)
	}
	return out
}

// idleAt returns when the service will have been out of use for too long.
func (w *Watcher) idleAt(f *follower) time.Time {
	return w.began.Add(time.Duration(f.used.Load())).Add(w.cfg.IdleFor)
}

// forget drops a service that is not in use, and ends its loop.
func (w *Watcher) forget(f *follower) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.pinned.Load() || time.Now().Before(w.idleAt(f)) || w.closed {
		return
	}
	followers := maps.Clone(*w.followers.Load())
	delete(followers, f.service)
	w.followers.Store(&followers)
	f.stop(errForgotten)
}
