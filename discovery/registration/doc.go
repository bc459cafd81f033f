// Package registration is one instance's life in Consul: register, heartbeat,
// drain, deregister.
//
// [Start] checks the settings and returns at once; Consul may be away, then or
// later, for as long as it likes. [Registration.Wait] waits until the entry was
// seen. From then on one goroutine compares what should be there, what was written
// and what the catalog has, and mends the difference:
//
//   - It registers with the checks of Config.Checks, which Consul runs on the
//     instance, and one (TTL) that the instance beats itself, so that it can say at
//     once that it is not ready or draining. All begin as passing only if
//     Config.Ready holds. Either kind may be left out.
//   - Done means seen. Consul's answer to a registration is no proof, so the
//     state becomes registered when the entry and its checks were found in the
//     catalog; what does not show within 5 s is written anew.
//   - It mends. An entry or a check that vanished (Consul came back with an
//     empty catalog, an operator deregistered it), whatever of ours was changed, and
//     an address that is the machine's no longer, end in
//     deregistering and registering anew. Nothing less restores an entry behind a
//     client agent, which believes itself to be in sync. What an operator adds to
//     an entry is left alone.
//   - It never gives up and never hammers. With no connection it tries after
//     50 ms, doubling to 500 ms; refused (403, 429, 5xx) to 10 s; each with full
//     jitter. A cluster without a leader counts as no connection, and is not
//     bothered with registrations.
//   - An operator's maintenance mode of the instance outlives a mend, with its
//     reason. It is lost with a wiped catalog, which does not have it any more.
//   - An entry is its process's, by a nonce in its Meta. The process that
//     registers an ID last has it; see [ErrIDTaken].
//
// # What it costs
//
// At rest a registration asks Consul 13 times a minute: 6 heartbeats, and 7
// questions about the agent's node that Consul holds open for 10 s and 60 s. Those
// are the process's ([Agent]), however many registrations share them, and cost the
// servers what the node has, whatever the size of a service. A change is seen by
// them at once, and so is an agent that goes away, by the connection that breaks.
// Servers that lost their data in silence, behind a client agent that went on
// answering, are found within 12 s.
//
// # What Consul does by itself
//
// An instance that is critical for longer than Config.DeregisterAfter is removed
// by its agent. If it still runs (it is not ready for a long time, say), it is soon
// registered again, as critical. Only a live agent does this: where an agent dies
// together with its instances, its node turns critical, and the entries stay until
// the servers reap the node (reconnect_timeout, 72 h) or somebody removes it.
//
// Everything may be called by any number of goroutines. For tests, the
// package's clock is the standard one, so that a life runs in a synctest bubble.
package registration
