package failover

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

var errForgotten = errors.New("not in use")

// askAgain is how long after an error of another datacenter's source it is asked
// again. It answers from memory.
const askAgain = time.Second

// follower is what readers see of a service.
type follower struct {
	service string
	feed    *catalog.Feed
}

// news is what a source has said: nil if nothing that counts.
type news struct {
	from int // in Config.Others; -1 for the local one
	set  *catalog.Snapshot
}

// state is what one service's goroutine knows.
type state struct {
	local *catalog.Snapshot
	sets  []*catalog.Snapshot // of the others; nil: none
	away  string              // the one that is in use beside or in place of this one; "" for none
	since time.Time           // from when on this one has had a ready instance without a break, while away
}

// run follows a service until its local source follows it no more, or ctx ends.
func (s *Source) run(ctx context.Context, f *follower) {
	ctx, cancel := context.WithCancelCause(ctx)
	heard := make(chan news)
	var reading sync.WaitGroup
	read := func(from int, source catalog.Source) {
		reading.Go(func() { s.read(ctx, f, from, source, heard, cancel) })
	}
	read(-1, s.cfg.Local)
	for n := range s.cfg.Others {
		read(n, s.cfg.Others[n].Source)
	}
	st := state{sets: make([]*catalog.Snapshot, len(s.cfg.Others))}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		select {
		case n := <-heard:
			if n.from < 0 {
				st.local = n.set
			} else {
				st.sets[n.from] = n.set
			}
		case <-timer.C:
		case <-ctx.Done():
		}
		if st.local != nil && ctx.Err() == nil {
			if left := s.judge(f, &st, time.Now()); left > 0 {
				timer.Reset(left)
			}
		}
	}
	cancel(nil)
	reading.Wait()
	s.forget(f)
	if cause := context.Cause(ctx); errors.Is(cause, errForgotten) {
		f.feed.Close(cause)
	}
	f.feed.Close(catalog.ErrClosed)
}

// read tells what a source says of the service. It ends all when the local one
// has nothing more to say.
func (s *Source) read(ctx context.Context, f *follower, from int, source catalog.Source, heard chan<- news, end context.CancelCauseFunc) {
	for ctx.Err() == nil {
		set, err := source.Latest(ctx, f.service)
		if err != nil {
			set = nil
		}
		if from >= 0 || set != nil { // what this datacenter has said holds until it says more
			select {
			case heard <- news{from, set}:
			case <-ctx.Done():
				return
			}
		}
		wait(ctx, set)
		if from < 0 && set != nil && set.Newest() == nil {
			end(errForgotten) // does nothing if ctx has ended
		}
	}
}

// wait returns when there may be more to hear than the set.
func wait(ctx context.Context, set *catalog.Snapshot) {
	if set != nil {
		select {
		case <-set.Superseded():
		case <-ctx.Done():
		}
		return
	}
	timer := time.NewTimer(askAgain)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// judge publishes the set as it is to be now, and returns after what time to look
// again; 0 if news will tell.
func (s *Source) judge(f *follower, st *state, now time.Time) (left time.Duration) {
	ready := hasReady(st.local)
	other, name := st.nearest(s.cfg.Others)
	before := st.away
	switch {
	case !ready:
		st.away, st.since = name, time.Time{}
	case st.away != "" && st.since.IsZero():
		st.since = now
	}
	if ready && st.away != "" {
		if left = s.cfg.Settle - now.Sub(st.since); left <= 0 {
			st.away, left = "", 0
		}
	}
	set := make([]catalog.Instance, 0, st.local.Len())
	for i := range st.local.All() {
		set = append(set, i)
	}
	if other != nil {
		for i := range other.All() {
			if i.State.Ready() {
				i.Datacenter, i.Reserve = name, st.away == ""
				set = append(set, i)
			}
		}
	}
	f.feed.PublishFrom(st.local, set, now)
	if before != st.away {
		s.tell(f.service, st.away, ready)
	}
	return left
}

func (s *Source) tell(service, away string, ready bool) {
	switch {
	case away != "":
		s.cfg.Log.Warn("no instance is ready in this datacenter: another one's are asked", "service", service, "datacenter", away)
	case ready:
		s.cfg.Log.Info("this datacenter alone is asked again", "service", service)
	default:
		s.cfg.Log.Warn("no instance is ready in any datacenter", "service", service)
	}
	if s.cfg.Trace.Switched != nil {
		s.cfg.Trace.Switched(service, away)
	}
}

// nearest returns the set of the first datacenter with a ready instance.
func (st *state) nearest(others []Datacenter) (*catalog.Snapshot, string) {
	n := slices.IndexFunc(st.sets, hasReady)
	if n < 0 {
		return nil, ""
	}
	return st.sets[n], others[n].Name
}

func hasReady(s *catalog.Snapshot) bool {
	if s == nil {
		return false
	}
	for i := range s.All() {
		if i.State.Ready() {
			return true
		}
	}
	return false
}
