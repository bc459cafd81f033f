// Package watch keeps one catalog.Snapshot per service true to Consul, by
// blocking queries.
//
// A [Watcher] is a catalog.Source. The first question about a service starts
// one goroutine and one blocking query for it, whatever the number of readers;
// every further answer comes from memory, without a lock or an allocation. A
// service that is not in use is dropped after a while, unless it is pinned.
//
// What Consul says is not taken at its word. Entries that can't be used are
// dropped one by one. An answer that would leave nothing is asked for again at
// Consul's leader before it counts. An instance that vanishes in good health
// stays in the set, marked missing, for a bounded time; one that left in order
// is gone at once, and none is given up before Consul has said that it hides
// nothing from our token. While Consul is silent, or has no leader, or refuses, the
// last good set stays, and its freshness says how old its last proof is.
//
// With Config.Dir the last sets are kept on disk, for a start while Consul is
// away.
//
// A change in Consul that comes alone is in use within milliseconds, one among
// many within 100 ms, as long as no more
// services are followed than Config.MaxQueries; beyond that they take turns,
// and a change may take a few seconds.
//
// The tests run the real API client against scripted answers and against
// consultest's agent, in synctest bubbles, and against a real Consul.
package watch
