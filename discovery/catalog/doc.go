// Package catalog has the words that everything in discovery is said in:
// [Instance], [Snapshot], [Source], and [Fixed], a Source for tests.
//
// A Source gives whole sets, never deltas, and calls nobody back: a reader
// takes the latest [Snapshot], uses it for as long as it likes, and may wait on
// [Snapshot.Superseded] to learn of the next. Snapshots are immutable and safe
// for any number of goroutines. The package needs the standard library only.
package catalog
