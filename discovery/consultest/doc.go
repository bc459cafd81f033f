// Package consultest is a Consul agent inside a test: blocking queries, indexes, faults; it works in a synctest bubble.
//
// [New] returns an agent that lives in memory: an HTTP server over net.Pipe
// that speaks the part of Consul's HTTP API which discovery is made of, to the
// real client of hashicorp/consul/api. It opens no port and does no I/O, so in
// a bubble of testing/synctest half an hour of blocking queries passes in
// milliseconds. Make it inside the bubble; every goroutine and timer of it
// ends with [Agent.Close], which the test's cleanup calls.
//
//	synctest.Test(t, func(t *testing.T) {
//		agent := consultest.New(t)
//		client := agent.Client()
//		agent.Break("/v1/health/", consultest.Silent())
//		…
//	})
//
// The agent keeps two views, as Consul does: its own, of what was registered
// with it, and the catalog of the servers, which it brings into line when its
// own view changes. Each service has an index of its own, health queries with
// an index are answered as Consul's streaming backend answers them, TTLs run
// out, and critical services are reaped. [Agent.AddAgent] makes one more agent
// of the same servers, [NewBalancer] one address for several, and
// [Agent.Tokens] switches ACLs on. Of KV there is reading one key and writing
// it. Not there: policies and roles, namespaces, other datacenters, Connect, and
// the running of HTTP checks (see [Agent.SetCheck]).
//
// Faults are of two kinds: [Agent.Break] spoils the answers of a path, and
// methods such as [Agent.Wipe], [Agent.LoseLeader] or [Agent.SetIndex] change
// what the agent knows. All may be used at any time and from any goroutine.
//
// [Real] starts a real Consul for the test instead. A fake proves our logic,
// the real one proves our fake: this package's own tests put the same calls to
// both and compare the answers.
package consultest
