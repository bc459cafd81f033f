// Package watch keeps the set of each service's instances true to Consul, by
// blocking queries.
//
// [New] makes a [Watcher], which is a catalog.Source: [Watcher.Latest] returns a
// service's set as it is now, and begins to watch the service. There is one
// goroutine and one blocking query for a service, whatever the number of readers;
// after the first answer Latest comes from memory, without a lock or an
// allocation. A service is watched until it was out of use for a while
// ([Watcher.KeepAlive]), or for good ([Watcher.Pin]).
//
// Consul's answers are checked before they count. Entries that can't be used are
// dropped one by one. An answer that would leave nothing is asked for again at
// Consul's leader. An instance that vanishes in good health stays in the set,
// marked missing, for a bounded time, and is not given up before Consul has said
// that it hides nothing from our token; one that left in order is gone at once.
// While Consul is silent, has no leader or refuses, the last good set stays, and
// its freshness says how old its last proof is. With Config.Dir it is kept on
// disk, too, for a start while Consul is away.
//
// A change in Consul that comes alone is in use within milliseconds, one among
// many within 100 ms, as long as no more services are watched than
// Config.MaxQueries; beyond that they take turns, and a change may take a few
// seconds. While nothing changes a watch asks at most eight times a minute, which
// costs Consul's servers 1 ms each for a service of 5,000 instances.
//
// The tests run the real API client against scripted answers and against
// consultest's agent, in synctest bubbles, and against a real Consul.
package watch
