// Package balancer chooses an endpoint from a snapshot; it does no I/O,
// starts no goroutine, and is told the time.
//
// A [Balancer] serves one service. [Balancer.Use] gives it a snapshot,
// [Balancer.Pick] chooses and returns a [Lease], and [Lease.Done] tells how the
// request ended. Pick takes no lock and allocates nothing, whatever the number
// of instances; all methods are safe for any number of goroutines.
//
// # Who is picked from
//
// Instances that pass or warn, and missing ones until their time is over. A
// missing instance to which no connection can be made is dropped at once,
// unless it is the last one left. If that leaves nobody, the balancer panics in
// the field's sense of the word: it picks among the critical ones rather than
// fail everything, and says so in [Trace] and [Counts]; so it does for a request
// that each of the others has failed. Instances that drain or are in maintenance
// are never picked.
//
// With a [Judge] ([NewJudged]; package outlier is one) an instance that fails too
// often is ejected: not picked for a while, whatever the registry says of it, and
// then on probation. A share may be out and never all. A request that everybody
// else has failed is given to an ejected or a critical one.
//
// # Who of those is picked
//
// The [Policy] decides: [PeakEWMA], the default, by latency and load, [P2C] by
// load alone, both by weight. Neither picks an instance again that has failed the
// same request while another is left.
//
// Endpoints are kept by [catalog.Key], so that what is known of an instance
// (its requests in flight, its latency, whether it is ejected) survives a new snapshot.
package balancer
