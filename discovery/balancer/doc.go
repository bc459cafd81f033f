// Package balancer chooses an endpoint from a snapshot; it does no I/O,
// starts no goroutine, and is told the time.
//
// A [Balancer] serves one service. [Balancer.Use] gives it a snapshot,
// [Balancer.Pick] chooses and returns a [Lease], and [Lease.Done] tells how the
// request ended. All methods are safe for any number of goroutines.
//
// Pick allocates nothing and takes no lock of its own, whatever the number of
// instances; what it calls, a Policy of one's own or Trace.Picked, may. A lock is
// taken by Use for a snapshot that is new, by Counts when an ejection has ended
// since, and by Lease.Done for a failure that may eject and for an endpoint on
// trial.
//
// # What is picked from
//
// Each endpoint has a state by the outcomes of its requests ([outlier.State]) and
// one that the registry says. From both come tiers, and a pick is made from the
// best one in which an endpoint is left that the request was not tried at:
// passing, warning and missing instances that are healthy, or on trial without a
// request; then those to which nothing but dials is under way, then those that are
// suspect, then those on trial that have their one request; at last those that are
// ejected or critical. Instances that drain or are in maintenance are never
// picked.
//
// A missing instance to which no connection can be made is dropped at once,
// unless it is the last one left. If no instance passes, warns or is missing, the
// balancer is in panic mode (Envoy's term; no Go panic): it picks among the critical
// ones rather than fail everything, and says so in [Trace] and [Counts].
//
// With [Config.Outliers] an instance that fails too often is ejected: a share may
// be out and never all.
//
// # Which of those is picked
//
// The [Policy] decides: [PeakEWMA], the default, by latency and load, [P2C] by
// load alone, both by weight. A policy of one's own ranks the endpoints of a tier
// and has the same promises.
//
// Endpoints are kept by [catalog.Key], so that what is known of an instance
// (its requests in flight, its latency, its health) survives a new snapshot.
package balancer
