package balancer

import (
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/outlier"
)

// Endpoint is an instance as this client knows it. It outlives snapshots: the
// same [catalog.Key] is the same Endpoint for as long as snapshots hold it.
type Endpoint struct {
	// What each pick reads, side by side.
	load     load
	pass     atomic.Uint64 // virtual time of its next turn, see P2C
	estimate estimate      // PeakEWMA's
	weight   atomic.Uint32
	slot     atomic.Int32 // its index in the newest set; a hint, to be checked
	dialing  atomic.Int32 // connections being made
	stalled  atomic.Int32 // those of them that take too long
	reserve  atomic.Bool  // of another datacenter, while one here is ready
	spare    atomic.Bool  // critical while others are ready
	excused  atomic.Bool  // ejected, and in use for the cap
	// The latest answer to each group, or silence: in the upper half how many
	// microseconds it took, in the lower half when, as millis says; 0: none.
	answers [outcome.Groups]atomic.Uint64
	health  outlier.Health

	instance atomic.Pointer[catalog.Instance]
	key      catalog.Key // never changes

	// What follows is guarded by the Balancer's mutex.
	snapshot *catalog.Snapshot // the last one that held it
	dropped  time.Time         // MissingUntil of the absence it was dropped for
	inUse    bool              // it is among those the newest set uses
}

// Instance returns what the newest snapshot said of it.
func (e *Endpoint) Instance() catalog.Instance { return *e.instance.Load() }

// InFlight returns the number of requests that count as its load: those without
// an answer, and those whose answer's body moves.
func (e *Endpoint) InFlight() int { return int(e.load.inFlight()) }

// State returns how it stands by the outcomes of its requests, whatever the
// registry says of it.
func (e *Endpoint) State(now time.Time) outlier.State {
	switch s := e.health.State(now); {
	case s == outlier.Ejected && e.excused.Load():
		return outlier.OnTrial
	case s == outlier.Healthy && e.stalled.Load() > 0:
		return outlier.Suspect
	default:
		return s
	}
}

// Ejection returns the endpoint's latest ejection, the zero value if it never
// was. If the set has shrunk the endpoint may be in use before it is over, see
// outlier.Rules.Most.
func (e *Endpoint) Ejection() outlier.Ejection { return e.health.Ejection() }

// same reports whether both are the same instance at the same address.
func (e *Endpoint) same(other *Endpoint) bool { return e == other || e.key == other.key }

// gone reports whether it is missing and was dropped. When its time is over is
// not ours to judge: it stays until a snapshot lacks it. Call with the
// Balancer's mutex held.
func (e *Endpoint) gone() bool {
	i := e.instance.Load()
	return i.Missing() && e.dropped.Equal(i.MissingUntil)
}

// Lease is the right to send one request to an endpoint, whose load it is until
// Done, or Answered and the end of the Body. It is a value; its copies are the
// same lease.
type Lease struct {
	balancer *Balancer
	endpoint *Endpoint
	group    outcome.Group
}

// Endpoint returns the endpoint that was picked.
func (l Lease) Endpoint() *Endpoint { return l.endpoint }

// Done ends the lease. It or Answered must be called exactly once, whatever
// became of the request: never means a load that stays for ever, twice means
// one that is negative. The zero Lease has nothing to end.
func (l Lease) Done(r outcome.Result) {
	if l.endpoint == nil {
		return
	}
	l.endpoint.load.Add(-(moving + waiting<<(l.group*bits)))
	l.balancer.Note(l.endpoint, r)
}

// Answered says that the headers of an answer have come, which ends a trial. Its
// body is a load until Body.Done. It is not for the zero Lease.
func (l Lease) Answered(r outcome.Result) Body {
	l.endpoint.load.Add(-(waiting << (l.group * bits)))
	l.balancer.Note(l.endpoint, r)
	return Body(l)
}

// Body is the load of an answer's body.
type Body Lease

// Rest says that the body moves no byte for now, and is no load until Resume.
func (b Body) Rest() { b.endpoint.load.Add(-moving) }

// Resume ends what Rest began.
func (b Body) Resume() { b.endpoint.load.Add(moving) }

// Done ends a body that is not at rest: call Resume before on one that is. The
// Result's group is outcome.Bodies whatever it says; its code is outcome.OK for a
// body that was whole, and None if nothing is known of it.
func (b Body) Done(r outcome.Result) {
	b.endpoint.load.Add(-moving)
	if r.Code != outcome.None {
		r.Group = outcome.Bodies
		b.balancer.Note(b.endpoint, r)
	}
}

// Dial is a connection that is being made to an endpoint. While that is all there
// is of it, for no request waits that has a connection, it is not known whether
// anything is there, and it gets no other request while others are left: a dead
// one is met by one caller, not by all that come within the time of a dial.
type Dial struct {
	endpoint *Endpoint
	state    atomic.Uint32
}

const (
	dialRuns = iota
	dialStalled
	dialDone
)

// Dial says that a connection is being made.
func (e *Endpoint) Dial() *Dial {
	e.dialing.Add(1)
	return &Dial{endpoint: e}
}

// Stalled says that it takes too long: the endpoint is suspect until Done.
func (d *Dial) Stalled() {
	if d.state.CompareAndSwap(dialRuns, dialStalled) {
		d.endpoint.stalled.Add(1)
	}
}

// Done says that it has ended, well or not; call it once.
func (d *Dial) Done() {
	d.endpoint.dialing.Add(-1)
	if d.state.Swap(dialDone) == dialStalled {
		d.endpoint.stalled.Add(-1)
	}
}
