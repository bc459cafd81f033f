package balancer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Request is what a Policy may know of the request it picks for.
type Request struct {
	// Now is the time. Required.
	Now time.Time
	// Tried are the endpoints that were tried before for the same request, in
	// order. None is picked again while another is left, even if it has left
	// the snapshots since and come back as another Endpoint.
	Tried []*Endpoint
}

// Policy chooses one endpoint of a set: nil only when every one was tried. It
// is called by many goroutines at once, for every request.
type Policy interface {
	Pick(ready Ready, q Request) *Endpoint
}

// Trace has a function for each thing that happens; nil ones are skipped. They
// are called outside of every lock, by many goroutines, and must be quick.
type Trace struct {
	// Picked is called for each pick; panicking says that a critical one was
	// picked, for no instance was ready or each that was has failed the request.
	Picked func(service string, panicking bool)
	// Ejected is called for each ejection.
	Ejected func(service string, instance catalog.Instance, x Ejection)
}

// Counts are the numbers of instances of a service. Known is the sum of Ready,
// Critical, Draining and Maintenance; a missing instance is known until its
// time is over or it was dropped.
type Counts struct {
	Known, Ready                    int
	Ejected                         int // among the ready ones, or the critical ones in panic mode: out of use for failing
	Missing                         int // among the others: vanished from the registry, and kept for a while
	Critical, Draining, Maintenance int
	Panic                           bool // none is ready: critical ones are picked
}

// Balancer chooses among the instances of one service. Use New.
type Balancer struct {
	service string
	policy  Policy
	learner learner                                                     // the policy, if it learns
	judge   Judge                                                       // nil: nobody is ejected
	picked  func(service string, panicking bool)                        // nil: nobody listens
	ejected func(service string, instance catalog.Instance, x Ejection) // nil: nobody listens
	clock   atomic.Uint64                                               // virtual time, see P2C
	set     atomic.Pointer[set]

	mu        sync.Mutex // guards what follows, and the making of sets
	endpoints map[catalog.Key]*Endpoint
}

// set is what is picked from. It never changes.
type set struct {
	snapshot *catalog.Snapshot // nil before the first Use
	known    []*Endpoint       // in the order of the snapshot, whatever their state
	ready    Ready
	spares   []*Endpoint // ejected or critical: for a request that everybody else has failed
	counts   Counts
	expires  time.Time // when a missing instance's time or an ejection is over next; zero: never
}

// New returns a balancer without instances. A nil policy means PeakEWMA, a nil
// trace that nobody listens. Nobody is ejected.
func New(service string, policy Policy, trace *Trace) *Balancer {
	return NewJudged(service, policy, nil, trace)
}

// NewJudged is New with a judge, who may eject; nil means that nobody does.
func NewJudged(service string, policy Policy, judge Judge, trace *Trace) *Balancer {
	b := &Balancer{service: service, policy: policy, judge: judge}
	if policy == nil {
		b.policy = PeakEWMA{}
	}
	b.learner, _ = b.policy.(learner)
	if trace != nil {
		b.picked, b.ejected = trace.Picked, trace.Ejected
	}
	b.set.Store(&set{ready: newReady(nil, &b.clock)})
	return b
}

// Use makes the snapshot the one to pick from. It costs a comparison of
// pointers if it already is, so it is called before each pick. A snapshot that
// comes late, after a newer one was used, is ignored.
func (b *Balancer) Use(s *catalog.Snapshot, now time.Time) {
	if b.set.Load().snapshot == s {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.set.Load().snapshot; last == s || last != nil && late(s, last) {
		return
	}
	instances := make([]catalog.Instance, 0, s.Len())
	known := make([]*Endpoint, 0, s.Len())
	endpoints := make(map[catalog.Key]*Endpoint, s.Len())
	for i := range s.All() {
		key := i.Key()
		if endpoints[key] != nil {
			continue // twice the same entry
		}
		e := b.endpoints[key]
		if e == nil {
			e = &Endpoint{key: key}
			if b.judge != nil {
				e.record = b.judge.Record()
			}
		}
		instances = append(instances, i)
		e.instance.Store(&instances[len(instances)-1])
		e.weight.Store(uint32(min(max(i.Weight, 1), catalog.MaxWeight)))
		e.snapshot = s
		endpoints[key] = e
		known = append(known, e)
	}
	b.endpoints = endpoints
	b.set.Store(b.build(s, known, now))
}

// late reports whether s is an older snapshot than last. Superseded alone says
// it when last is the newest there is; when neither is, their times do.
func late(s, last *catalog.Snapshot) bool {
	return superseded(s) && (!superseded(last) || s.At().Before(last.At()))
}

func superseded(s *catalog.Snapshot) bool {
	select {
	case <-s.Superseded():
		return true
	default:
		return false
	}
}

// build sorts the endpoints into a set. Call it with the mutex held, and store
// what it returns: it also notes in the endpoints where they stand.
func (b *Balancer) build(s *catalog.Snapshot, known []*Endpoint, now time.Time) *set {
	next := &set{snapshot: s, known: known}
	var ready, critical []*Endpoint
	for _, e := range known {
		i := e.instance.Load()
		if i.State == catalog.StateUnknown || e.gone() {
			continue
		}
		if i.Missing() {
			next.counts.Missing++
		}
		next.counts.Known++
		switch {
		case i.State.Ready():
			ready = append(ready, e)
		case i.State == catalog.StateCritical:
			critical = append(critical, e)
		case i.State == catalog.StateDraining:
			next.counts.Draining++
		case i.State == catalog.StateMaintenance:
			next.counts.Maintenance++
		}
	}
	next.counts.Ready, next.counts.Critical = len(ready), len(critical)
	next.counts.Panic = len(ready) == 0 && len(critical) > 0
	use := ready
	if next.counts.Panic {
		use = critical
	}
	left, back := b.sift(use, now)
	next.spares = without(use, left)
	next.counts.Ejected = len(next.spares)
	if !next.counts.Panic {
		next.spares = append(next.spares, critical...)
	}
	next.expire(back)
	b.admit(known, left)
	next.ready = newReady(left, &b.clock)
	return next
}

// without returns those of all that are not in some, a part of it in its order.
func without(all, some []*Endpoint) (rest []*Endpoint) {
	if len(all) == len(some) {
		return nil
	}
	for _, e := range all {
		if len(some) > 0 && some[0] == e {
			some = some[1:]
			continue
		}
		rest = append(rest, e)
	}
	return rest
}

// expire says that the set is to be built anew at a time; zero means nothing.
func (s *set) expire(at time.Time) {
	if !at.IsZero() && (s.expires.IsZero() || at.Before(s.expires)) {
		s.expires = at
	}
}

// admit starts those who come into use, for the first time or again, at the
// present virtual time.
func (b *Balancer) admit(known, use []*Endpoint) {
	now := b.clock.Load()
	for _, e := range use {
		if !e.inUse && !earlier(now, e.pass.Load()) {
			e.pass.Store(now)
		}
	}
	for _, e := range known {
		e.inUse = false
	}
	for _, e := range use {
		e.inUse = true
	}
}

// current returns the set as it is at a time: ejected instances come back.
func (b *Balancer) current(now time.Time) *set {
	s := b.set.Load()
	if s.expires.IsZero() || now.Before(s.expires) {
		return s
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s = b.set.Load(); s.expires.IsZero() || now.Before(s.expires) {
		return s
	}
	s = b.build(s.snapshot, s.known, now)
	b.set.Store(s)
	return s
}

// drop takes a missing endpoint out of use for the rest of its absence, unless
// nobody would be left.
func (b *Balancer) drop(e *Endpoint, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, i := b.set.Load(), e.instance.Load()
	if e.snapshot != s.snapshot || !i.Missing() || e.gone() {
		return
	}
	for _, other := range s.known {
		if state := other.instance.Load().State; other != e && !other.gone() && (state.Ready() || state == catalog.StateCritical) {
			e.dropped = i.MissingUntil
			b.set.Store(b.build(s.snapshot, s.known, now))
			return
		}
	}
}

// Pick chooses an endpoint. When every one was tried it chooses an ejected or a
// critical one that was not, for it may be well; then any but the latest, or the
// only one there is. The error wraps catalog.ErrNoInstance and says the counts. It
// is the caller who calls Use before.
func (b *Balancer) Pick(q Request) (Lease, error) {
	s := b.current(q.Now)
	if s.ready.Len() == 0 {
		return Lease{}, b.none(s.counts)
	}
	e := b.policy.Pick(s.ready, q)
	if e == nil {
		e = s.ready.last(q)
	}
	panicking := s.counts.Panic
	if len(s.spares) > 0 && slices.ContainsFunc(q.Tried, e.same) {
		if spare := s.spare(nil, q.Tried); spare != nil {
			e = spare
			panicking = panicking || !e.instance.Load().State.Ready()
		}
	}
	e.inFlight.Add(1)
	e.serve(s.ready.clock, s.ready.slack)
	if b.picked != nil {
		b.picked(b.service, panicking)
	}
	return Lease{balancer: b, endpoint: e, another: s.ready.another(e, q.Tried), spare: s.spare(e, q.Tried) != nil}, nil
}

// spare returns an ejected or critical endpoint besides e and the tried ones, any
// of them; nil if there is none.
func (s *set) spare(e *Endpoint, tried []*Endpoint) *Endpoint {
	n := len(s.spares)
	if n == 0 {
		return nil
	}
	from := rand.IntN(n)
	for k := range n {
		if o := s.spares[(from+k)%n]; o != e && !slices.ContainsFunc(tried, o.same) {
			return o
		}
	}
	return nil
}

// last chooses when the policy found nobody. The set is not empty.
func (r Ready) last(q Request) *Endpoint {
	if e := r.Sample(q, nil); e != nil {
		return e
	}
	if n := len(q.Tried); n > 1 {
		q.Tried = q.Tried[n-1:]
		if e := r.Sample(q, nil); e != nil {
			return e
		}
	}
	q.Tried = nil
	return r.Sample(q, nil)
}

func (b *Balancer) none(c Counts) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%d known", c.Known)
	for _, part := range []struct {
		count int
		name  string
	}{{c.Draining, "draining"}, {c.Maintenance, "in maintenance"}} {
		if part.count > 0 {
			fmt.Fprintf(&text, ", %d %s", part.count, part.name)
		}
	}
	return fmt.Errorf("pick %s: no instance ready (%s): %w", b.service, &text, catalog.ErrNoInstance)
}

// Counts returns the numbers of instances at a time.
func (b *Balancer) Counts(now time.Time) Counts { return b.current(now).counts }

// Endpoints returns the endpoints of the snapshot in use, whatever their state,
// in its order. The slice is shared: do not change it.
func (b *Balancer) Endpoints() []*Endpoint { return b.set.Load().known }
