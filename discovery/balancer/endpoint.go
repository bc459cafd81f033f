package balancer

import (
	"sync/atomic"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

// Endpoint is an instance as this client knows it. It outlives snapshots: the
// same [catalog.Key] is the same Endpoint for as long as snapshots hold it.
type Endpoint struct {
	key      catalog.Key // never changes
	instance atomic.Pointer[catalog.Instance]
	weight   atomic.Uint32
	inFlight atomic.Int64
	pass     atomic.Uint64 // virtual time of its next turn, see P2C
	slot     atomic.Int32  // its index in the newest Ready; a hint, to be checked
	estimate estimate      // PeakEWMA's
	record   Record        // the judge's; nil: there is none
	held     atomic.Int32  // calls of Hold without Release

	// They change with the Balancer's mutex held.
	ejection  atomic.Pointer[Ejection] // the latest; nil: never
	probation atomic.Bool

	// What follows is guarded by the Balancer's mutex.
	snapshot *catalog.Snapshot // the last one that held it
	dropped  time.Time         // MissingUntil of the absence it was dropped for
	inUse    bool              // it is in the newest Ready
}

// Instance returns what the newest snapshot said of it.
func (e *Endpoint) Instance() catalog.Instance { return *e.instance.Load() }

// InFlight returns the number of leases on it that are not done.
func (e *Endpoint) InFlight() int { return int(e.inFlight.Load()) }

// Hold has the endpoint get one request at a time while others are left, until
// Release is called as often. It is for the time in which it is not known
// whether anybody is at its address: while a connection is made.
func (e *Endpoint) Hold() { e.held.Add(1) }

// Release takes one Hold back.
func (e *Endpoint) Release() { e.held.Add(-1) }

// same reports whether both are the same instance at the same address.
func (e *Endpoint) same(other *Endpoint) bool { return e == other || e.key == other.key }

// gone reports whether it is missing and was dropped. When its time is over is
// not ours to judge: it stays until a snapshot lacks it. Call with the
// Balancer's mutex held.
func (e *Endpoint) gone() bool {
	i := e.instance.Load()
	return i.Missing() && e.dropped.Equal(i.MissingUntil)
}

// Outcome is how a request ended.
type Outcome struct {
	// Failed means by the instance's fault; a caller who gave up is not, nor is
	// an answer that says that another service is to blame.
	Failed bool
	// Load means that the instance shed the request before it did any work. It
	// counts as load and not as failure: Failed is to be false.
	Load bool
	// Unreachable means that the instance was not found at its address: no
	// connection could be made, or another service answered. It implies Failed.
	Unreachable bool
	// Status is that of the response, as HTTP has it; 0 means that none came,
	// so that the outcome proves nothing good.
	Status int
	// Latency is the time to the response's headers; 0 means that none came.
	Latency time.Duration
	// At is the time at which the request ended. Required.
	At time.Time
}

// Lease is the right to send one request to an endpoint, which counts as in
// flight until Done. It is a value; its copies are the same lease.
type Lease struct {
	balancer *Balancer
	endpoint *Endpoint
	another  bool
	spare    bool
}

// Endpoint returns the endpoint that was picked.
func (l Lease) Endpoint() *Endpoint { return l.endpoint }

// Another reports whether, at the time of the pick, there was an endpoint
// besides this one and those in Request.Tried that is in use: whether a retry
// could go elsewhere.
func (l Lease) Another() bool { return l.another }

// Spare is Another for those that are out of use, ejected or critical: a retry
// goes there when no other is left. A try that may yet be answered is better
// waited for.
func (l Lease) Spare() bool { return l.spare }

// Done ends the lease. It must be called exactly once, whatever became of the
// request: never means a load that stays for ever, twice means one that is
// negative. The zero Lease has nothing to end.
func (l Lease) Done(o Outcome) {
	if l.endpoint == nil {
		return
	}
	l.endpoint.inFlight.Add(-1)
	l.balancer.note(l.endpoint, o)
	if o.Unreachable && l.endpoint.instance.Load().Missing() {
		l.balancer.drop(l.endpoint, o.At)
	}
}
