package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Datacenter is another datacenter.
type Datacenter struct {
	Name   string
	Source catalog.Source
}

// Config is what New needs.
type Config struct {
	// Local is the source of this datacenter's instances. Required.
	Local catalog.Source
	// Others stand in for it, the first that has a ready instance. One at least.
	Others []Datacenter
	// Settle is how long this datacenter must have had a ready instance without a
	// break for the other to go back into reserve. 0 means 10s. Longer is calmer;
	// what is far away is asked for as long.
	Settle time.Duration
	// Trace is called when something happens. nil means that nothing is.
	Trace *Trace
	// Log gets each change of the datacenter in use. nil means that nothing is
	// logged.
	Log *slog.Logger
}

// Trace has a function for each thing that happens; nil ones are skipped. They
// are called outside of every lock, and must be quick.
type Trace struct {
	// Switched is called when a service's instances in use have come to be those of
	// another datacenter, or with "" of this one again.
	Switched func(service, datacenter string)
}

// Source is a catalog.Source. Use New, and Close at the end.
type Source struct {
	cfg     Config
	cancel  context.CancelFunc
	start   func(*follower)
	running sync.WaitGroup

	followers atomic.Pointer[map[string]*follower] // never changed, always replaced

	mu     sync.Mutex // held to replace followers; guards what follows
	closed bool
}

// New returns a Source that follows nothing yet; an error means a wrong setting.
func New(cfg Config) (*Source, error) {
	switch {
	case cfg.Local == nil:
		return nil, errors.New("failover: Local is nil; want a catalog.Source")
	case len(cfg.Others) == 0:
		return nil, errors.New("failover: Others is empty; want a datacenter at least")
	case cfg.Settle < 0:
		return nil, fmt.Errorf("failover: Settle is %s; want 0 or more", cfg.Settle)
	}
	seen := map[string]bool{}
	for n, d := range cfg.Others {
		switch {
		case d.Name == "":
			return nil, fmt.Errorf("failover: Others[%d].Name is empty; want a datacenter's", n)
		case d.Source == nil:
			return nil, fmt.Errorf("failover: Others[%d].Source is nil; want a catalog.Source", n)
		case seen[d.Name]:
			return nil, fmt.Errorf("failover: Others[%d].Name is %q, which is there twice; want it once", n, d.Name)
		}
		seen[d.Name] = true
	}
	cfg.Settle = cmp.Or(cfg.Settle, 10*time.Second)
	cfg.Trace = cmp.Or(cfg.Trace, &Trace{})
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	s := &Source{cfg: cfg, cancel: cancel}
	s.start = func(f *follower) { s.running.Go(func() { s.run(ctx, f) }) }
	s.followers.Store(&map[string]*follower{})
	return s, nil
}

// Latest returns the latest snapshot of the service. It waits for the first answer
// of this datacenter's source, whose errors it returns, and never for another's.
// After that it takes no lock and allocates nothing.
func (s *Source) Latest(ctx context.Context, service string) (*catalog.Snapshot, error) {
	for {
		if _, err := s.cfg.Local.Latest(ctx, service); err != nil {
			return nil, err
		}
		f := (*s.followers.Load())[service]
		if f == nil {
			var err error
			if f, err = s.follow(service); err != nil {
				return nil, err
			}
		}
		if set := f.feed.Current(); set != nil {
			return set, nil
		}
		set, err := f.feed.Latest(ctx)
		if !errors.Is(err, errForgotten) {
			return set, err
		} // else it was dropped in that moment: begin anew
	}
}

// Current returns the snapshot of a service that is followed, nil if it is not or
// had no answer. It begins nothing.
func (s *Source) Current(service string) *catalog.Snapshot {
	if f := (*s.followers.Load())[service]; f != nil {
		return f.feed.Current()
	}
	return nil
}

// KeepAlive passes on that the service is in use.
func (s *Source) KeepAlive(service string) {
	s.cfg.Local.KeepAlive(service)
	for n := range s.cfg.Others {
		s.cfg.Others[n].Source.KeepAlive(service)
	}
}

// Close ends what New and Latest have begun, and waits for it. It may be called
// twice. The other sources are the caller's to close.
func (s *Source) Close() error {
	s.mu.Lock()
	s.closed = true
	s.followers.Store(&map[string]*follower{})
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	return nil
}

func (s *Source) follow(service string) (*follower, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	followers := *s.followers.Load()
	switch f := followers[service]; {
	case f != nil:
		return f, nil
	case s.closed:
		return nil, fmt.Errorf("follow %s: %w", service, catalog.ErrClosed)
	}
	f := &follower{service: service, feed: catalog.NewFeed(service)}
	followers = maps.Clone(followers)
	followers[service] = f
	s.followers.Store(&followers)
	s.start(f)
	return f, nil
}

// forget ends a service that is followed no more.
func (s *Source) forget(f *follower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		followers := maps.Clone(*s.followers.Load())
		delete(followers, f.service)
		s.followers.Store(&followers)
	}
}
