// Package balancer chooses an endpoint from a snapshot; it does no I/O,
// starts no goroutine, and is told the time.
//
// A [Balancer] serves one service. [Balancer.Use] gives it a snapshot,
// [Balancer.Pick] chooses and returns a [Lease], and [Lease.Done] tells how the
// request ended. Pick takes no lock and allocates nothing, whatever the number
// of instances; all methods are safe for any number of goroutines.
//
// # What is picked from
//
// Each endpoint has a state by the outcomes of its requests ([outlier.State]) and
// one that the registry says. From both come tiers, and a pick is made from the
// best one in which an endpoint is left that the request was not tried at:
// passing, warning and missing instances that are healthy, then those that are
// suspect, then those on trial that have their one request; at last those that
// are ejected or critical. Instances that drain or are in maintenance are never
// picked.
//
// A missing instance to which no connection can be made is dropped at once,
// unless it is the last one left. If no instance passes, warns or is missing, the
// balancer panics in the field's sense of the word: it picks among the critical
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
