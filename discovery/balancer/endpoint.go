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
	key      catalog.Key     // never changes
	health   *outlier.Health // never changes
	instance atomic.Pointer[catalog.Instance]
	weight   atomic.Uint32
	pass     atomic.Uint64 // virtual time of its next turn, see P2C
	slot     atomic.Int32  // its index in the newest set; a hint, to be checked
	estimate estimate      // PeakEWMA's

	inFlight atomic.Int64 // leases that are not done, without bodies at rest
	dialing  atomic.Int32 // connections being made
	stalled  atomic.Int32 // those of them that take too long
	groups   [outcome.Groups]group

	spare   atomic.Bool // critical while others are ready
	excused atomic.Bool // ejected, and in use for the cap

	// What follows is guarded by the Balancer's mutex.
	snapshot *catalog.Snapshot // the last one that held it
	dropped  time.Time         // MissingUntil of the absence it was dropped for
	inUse    bool              // it is among those the newest set uses
}

// group is what is known of the requests of one group.
type group struct {
	waiting atomic.Int32 // leases without headers
	took    atomic.Int64 // how long the latest answer took; 0: there was none
	at      atomic.Int64 // when it came, from the balancer's base
}

// waiting returns the number of leases without headers.
func (e *Endpoint) waiting() (n int32) {
	for g := range e.groups {
		n += e.groups[g].waiting.Load()
	}
	return n
}

// Instance returns what the newest snapshot said of it.
func (e *Endpoint) Instance() catalog.Instance { return *e.instance.Load() }

// InFlight returns the number of requests that count as its load: those without
// an answer, and those whose answer's body moves.
func (e *Endpoint) InFlight() int { return int(e.inFlight.Load()) }

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
	l.endpoint.inFlight.Add(-1)
	l.endpoint.groups[l.group].waiting.Add(-1)
	l.balancer.Note(l.endpoint, r)
}

// Answered says that the headers of an answer have come, which ends a trial. Its
// body is a load until Body.Done.
func (l Lease) Answered(r outcome.Result) Body {
	l.endpoint.groups[l.group].waiting.Add(-1)
	l.balancer.Note(l.endpoint, r)
	return Body(l)
}

// Body is the load of an answer's body.
type Body Lease

// Rest says that the body moves no byte for now, and is no load until Resume.
func (b Body) Rest() { b.endpoint.inFlight.Add(-1) }

// Resume ends what Rest began.
func (b Body) Resume() { b.endpoint.inFlight.Add(1) }

// Done ends a body that is not at rest: call Resume before on one that is. The
// Result has a code only if there is something to tell.
func (b Body) Done(r outcome.Result) {
	b.endpoint.inFlight.Add(-1)
	if r.Code != outcome.None {
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
