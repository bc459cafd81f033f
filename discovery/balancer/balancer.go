package balancer

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// Request is what a Policy may know of the request it picks for.
type Request struct {
	// Now is the time. Required.
	Now time.Time
	// Group is the request's: outcome.Safe or outcome.Unsafe, as which anything else
	// counts.
	Group outcome.Group
	// Tried are the endpoints that were tried before for the same request, in
	// order. None is picked again while another is left, even if it has left
	// the snapshots since and come back as another Endpoint.
	Tried []*Endpoint
	// Prefer are the instances that it would rather have. nil means any.
	Prefer *Preference
}

// Policy chooses among the endpoints of a tier, which are as good as each other
// by their health and the registry's word: a policy ranks them by load, latency
// or what else it likes, and keeps none of that word itself. It is called by
// many goroutines at once, for every request.
type Policy interface {
	// Pick returns an endpoint of the tier; nil only when every one was tried.
	Pick(t Tier, q Request) *Endpoint
	// Learn is told of each result.
	Learn(e *Endpoint, r outcome.Result)
}

// expecting is a Policy that knows what an endpoint's latency will be.
type expecting interface {
	// Latency returns that to the header of an answer; 0: it is not known.
	Latency(e *Endpoint, now time.Time) time.Duration
}

// Trace has a function for each thing that happens; nil ones are skipped. They
// are called outside of every lock, by many goroutines, and must be quick.
type Trace struct {
	// Picked is called for each pick; panicking says that a critical one was
	// picked, for no instance was ready or each that was has failed the request.
	Picked func(service string, panicking bool)
	// Ejected is called for each ejection.
	Ejected func(service string, instance catalog.Instance, x outlier.Ejection)
	// Capped is called for each failure that would have been followed by an ejection
	// had not as many been out as may be.
	Capped func(service string, instance catalog.Instance)
}

// Counts are the numbers of instances of a service. Known is the sum of Ready,
// Critical, Draining and Maintenance; a missing instance is known until its
// time is over or it was dropped.
type Counts struct {
	Known, Ready                    int // ready are those that pass, warn, or are missing
	Ejected                         int // among the ready ones, or the critical ones in panic mode: out of use for failing
	Missing                         int // among the others: vanished from the registry, and kept for a while
	Critical, Draining, Maintenance int
	Panic                           bool // none is ready: critical ones are picked
}

// Config is what New needs. Its zero value works.
type Config struct {
	// Policy chooses among the instances of a tier. nil means PeakEWMA.
	Policy Policy
	// Outliers say which instances are ejected for failing. nil means that none
	// is.
	Outliers *outlier.Rules
	// Trace is told of what happens. nil means that nothing listens.
	Trace *Trace
	// Only says which instances of a snapshot there are for this balancer. nil
	// means all. It must always say the same of the same entry.
	Only func(catalog.Instance) bool
}

// Balancer chooses among the instances of one service. Use New.
type Balancer struct {
	service string
	policy  Policy
	rules   *outlier.Rules
	only    func(catalog.Instance) bool                                         // nil: all are
	picked  func(service string, panicking bool)                                // nil: nothing listens
	ejected func(service string, instance catalog.Instance, x outlier.Ejection) // nil: nothing listens
	capped  func(service string, instance catalog.Instance)                     // nil: nothing listens
	clock   atomic.Uint64                                                       // virtual time, see P2C
	set     atomic.Pointer[set]

	mu        sync.Mutex // guards what follows, and the making of sets
	base      time.Time  // of the first Use; spans are counted from it
	endpoints map[catalog.Key]*Endpoint
	outs      outs // those of the newest set that are ejected, and not excused
}

// set is what is picked from. Only what it says of ejections changes.
type set struct {
	snapshot *catalog.Snapshot // nil before the first Use
	clock    *atomic.Uint64    // the balancer's virtual time
	base     time.Time
	known    []*Endpoint // in the order of the snapshot, whatever their state
	all      []*Endpoint // those that may be sent to: those in use first, then the reserve, then the critical ones
	use      int         // how many of all are in use: the ready ones, or the reserve, or in panic mode the critical ones
	spares   int         // from which on all are critical ones behind others
	sums     []uint64    // sums[i] is the weight of all up to i, i included; nil when all weights are equal
	slack    uint64      // how far behind the clock an endpoint may be
	counts   Counts      // but for Ejected

	ejected atomic.Int64 // how many of those in use are ejected
	back    atomic.Int64 // when the first of them is back, from base
	parts   atomic.Pointer[part]
}

// New returns a balancer without instances: until Use has given it some, Pick
// fails.
func New(service string, cfg Config) *Balancer {
	b := &Balancer{service: service, policy: cfg.Policy, rules: cfg.Outliers, only: cfg.Only}
	if b.policy == nil {
		b.policy = PeakEWMA{}
	}
	if b.rules == nil {
		b.rules = new(outlier.Rules)
	}
	if cfg.Trace != nil {
		b.picked, b.ejected, b.capped = cfg.Trace.Picked, cfg.Trace.Ejected, cfg.Trace.Capped
	}
	b.set.Store(new(set))
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
	if b.base.IsZero() {
		b.base = now
	}
	instances := make([]catalog.Instance, 0, s.Len())
	known := make([]*Endpoint, 0, s.Len())
	endpoints := make(map[catalog.Key]*Endpoint, s.Len())
	for i := range s.All() {
		key := i.Key()
		if endpoints[key] != nil || b.only != nil && !b.only(i) {
			continue // twice the same entry, or another balancer's
		}
		e := b.endpoints[key]
		if e == nil {
			e = &Endpoint{key: key, estimate: estimate{base: b.base}}
			e.health.Begin(b.rules, b.base)
		}
		instances = append(instances, i)
		e.instance.Store(&instances[len(instances)-1])
		e.weight.Store(uint32(min(max(i.Weight, 1), catalog.MaxWeight)))
		e.snapshot = s
		endpoints[key] = e
		known = append(known, e)
	}
	b.endpoints = endpoints
	b.build(s, known, now)
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

// build sorts the endpoints into a new set. Call it with the mutex held: it also
// notes in the endpoints where they stand.
func (b *Balancer) build(s *catalog.Snapshot, known []*Endpoint, now time.Time) {
	next := &set{snapshot: s, clock: &b.clock, base: b.base, known: known, all: make([]*Endpoint, 0, len(known))}
	c := &next.counts
	var reserve, critical []*Endpoint
	for _, e := range known {
		i := e.instance.Load()
		if i.State == catalog.StateUnknown || e.gone() {
			continue
		}
		if i.Missing() {
			c.Missing++
		}
		c.Known++
		switch {
		case i.State.Ready() && i.Reserve:
			reserve = append(reserve, e)
		case i.State.Ready():
			next.all = append(next.all, e)
		case i.State == catalog.StateCritical:
			critical = append(critical, e)
		case i.State == catalog.StateDraining:
			c.Draining++
		case i.State == catalog.StateMaintenance:
			c.Maintenance++
		}
	}
	c.Ready, c.Critical = len(next.all)+len(reserve), len(critical)
	c.Panic = c.Ready == 0 && c.Critical > 0
	for _, next.use = range []int{len(next.all), len(reserve), len(critical)} {
		if next.use > 0 {
			break
		}
	}
	next.all = append(next.all, reserve...)
	next.spares = max(next.use, len(next.all))
	next.all = append(next.all, critical...)
	for i, e := range next.all {
		e.slot.Store(int32(i))
	}
	next.weigh()
	b.admit(next)
	b.cap(next, now)
	b.set.Store(next)
}

// admit starts those that come into use, for the first time or again, at the
// present virtual time.
func (b *Balancer) admit(s *set) {
	now := b.clock.Load()
	for _, e := range s.all[:s.use] {
		if !e.inUse && !earlier(now, e.pass.Load()) {
			e.pass.Store(now)
		}
	}
	for _, e := range s.known {
		e.inUse = false
	}
	for i, e := range s.all {
		e.inUse = i < s.use
		e.reserve.Store(i >= s.use && i < s.spares)
		e.spare.Store(i >= s.spares)
	}
}

// drop takes a missing endpoint out of use for the rest of its absence, unless
// none would be left.
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
			b.build(s.snapshot, s.known, now)
			return
		}
	}
}

// Pick chooses an endpoint that was not tried: a healthy one, else a suspect one,
// else one on trial, else an ejected or a critical one, for it may be well. When
// every one was tried it chooses any but the latest, or the only one there is. The
// error wraps catalog.ErrNoInstance and says the counts. The
// caller calls Use before.
func (b *Balancer) Pick(q Request) (Lease, error) {
	s := b.set.Load()
	if s.use == 0 {
		return Lease{}, b.none(s)
	}
	q.Group = min(q.Group, outcome.Unsafe)
	e := b.choose(s, q)
	e.load.Add(moving + waiting<<(q.Group*bits))
	e.serve(&b.clock, s.slack)
	if b.picked != nil {
		b.picked(b.service, e.spare.Load() || s.counts.Panic)
	}
	return Lease{balancer: b, endpoint: e, group: q.Group}, nil
}

func (b *Balancer) choose(s *set, q Request) *Endpoint {
	if e := b.preferred(s, q); e != nil {
		return e
	}
	t := Tier{set: s}
	for ; t.rank < ranks; t.rank++ {
		if e := b.policy.Pick(t, q); e != nil {
			return e
		}
	}
	// Every one was tried, unless the policy has missed one.
	if e := s.any(q); e != nil {
		return e
	}
	if n := len(q.Tried); n > 1 {
		q.Tried = q.Tried[n-1:]
		if e := s.any(q); e != nil {
			return e
		}
	}
	q.Tried = nil
	return s.any(q)
}

// any draws from the best rank that has an endpoint which was not tried; nil if
// none has.
func (s *set) any(q Request) *Endpoint {
	for t := (Tier{set: s}); t.rank < ranks; t.rank++ {
		if e := t.Sample(q, nil); e != nil {
			return e
		}
	}
	return nil
}

// Left reports whether Pick would choose an endpoint that was not tried, and
// whether that is one in use: neither ejected nor critical.
func (b *Balancer) Left(q Request) (inUse, found bool) {
	r, found := b.set.Load().left(q)
	return found && r < rankOut, found
}

func (b *Balancer) none(s *set) error {
	c, deselected := s.counts, 0
	if s.snapshot != nil {
		deselected = s.snapshot.Deselected()
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d known", c.Known)
	for _, part := range []struct {
		count int
		name  string
	}{{c.Draining, "draining"}, {c.Maintenance, "in maintenance"}, {deselected, "not selected"}} {
		if part.count > 0 {
			fmt.Fprintf(&text, ", %d %s", part.count, part.name)
		}
	}
	return fmt.Errorf("pick %s: no instance ready (%s): %w", b.service, &text, catalog.ErrNoInstance)
}

// Counts returns the numbers of instances at a time.
func (b *Balancer) Counts(now time.Time) Counts {
	s := b.set.Load()
	c := s.counts
	if s.ejected.Load() == 0 {
		return c
	}
	if int64(now.Sub(s.base)) >= s.back.Load() {
		b.mu.Lock()
		defer b.mu.Unlock()
		s = b.set.Load()
		b.release(s, now)
	}
	c.Ejected = int(s.ejected.Load())
	return c
}

// Latency returns how long the endpoint's next answer is expected to take, to its
// header, by what the policy has learned; 0: it has learned nothing, or too long ago,
// or does not go by latency.
func (b *Balancer) Latency(e *Endpoint, now time.Time) time.Duration {
	if p, ok := b.policy.(expecting); ok {
		return p.Latency(e, now)
	}
	return 0
}

// Endpoints returns the endpoints of the snapshot in use, whatever their state,
// in its order. The slice is shared: do not change it.
func (b *Balancer) Endpoints() []*Endpoint { return b.set.Load().known }
