// Package catalog has the words that everything in discovery is said in.
//
// An [Instance] is one running copy of a service. A [Snapshot] is the set of a
// service's instances at one time, and a [Source] gives the latest one: from
// Consul (package watch), or as it was set ([Fixed], for tests and for services
// outside the registry). To make a Source of one's own, let each service have a
// [Feed] and write to that.
//
// A Source gives whole sets, never deltas, and calls nothing back: a reader
// takes the latest Snapshot, uses it for as long as it likes, and may wait on
// [Snapshot.Superseded] to learn of the next. Snapshots are immutable and safe
// for any number of goroutines. The package itself asks no registry.
package catalog
