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

	// What follows is guarded by the Balancer's mutex.
	snapshot *catalog.Snapshot // the last one that held it
	dropped  time.Time         // MissingUntil of the absence it was dropped for
	inUse    bool              // it is in the newest Ready
}

// Instance returns what the newest snapshot said of it.
func (e *Endpoint) Instance() catalog.Instance { return *e.instance.Load() }

// InFlight returns the number of leases on it that are not done.
func (e *Endpoint) InFlight() int { return int(e.inFlight.Load()) }

// same reports whether both are the same instance at the same address.
func (e *Endpoint) same(other *Endpoint) bool { return e == other || e.key == other.key }

// gone reports whether it is missing and no longer used: its time is over, or
// it was dropped. Call with the Balancer's mutex held.
func (e *Endpoint) gone(now time.Time) bool {
	i := e.instance.Load()
	return i.Missing() && (!now.Before(i.MissingUntil) || e.dropped.Equal(i.MissingUntil))
}

// Outcome is how a request ended.
type Outcome struct {
	// Failed means by the instance's fault; a caller who gave up is not.
	Failed bool
	// Unreachable means that the instance was not found at its address: no
	// connection could be made, or another service answered. It implies Failed.
	Unreachable bool
	// Latency is the time to the response's headers; 0 means none came.
	Latency time.Duration
	// Load is as the instance reports it; 0 means unknown.
	Load float64
	// At is the time at which the request ended. Required.
	At time.Time
}

// Lease is the right to send one request to an endpoint, which counts as in
// flight until Done. It is a value; its copies are the same lease.
type Lease struct {
	balancer *Balancer
	endpoint *Endpoint
	another  bool
}

// Endpoint returns the endpoint that was picked.
func (l Lease) Endpoint() *Endpoint { return l.endpoint }

// Another reports whether, at the time of the pick, there was an endpoint
// besides this one and those in Request.Tried: whether a retry could go
// elsewhere.
func (l Lease) Another() bool { return l.another }

// Done ends the lease. It must be called exactly once, whatever became of the
// request: never means a load that stays for ever, twice means one that is
// negative. The zero Lease has nothing to end.
func (l Lease) Done(o Outcome) {
	if l.endpoint == nil {
		return
	}
	l.endpoint.inFlight.Add(-1)
	if o.Unreachable && l.endpoint.instance.Load().Missing() {
		l.balancer.drop(l.endpoint, o.At)
	}
}
