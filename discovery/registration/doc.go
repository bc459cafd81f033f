// Package registration is one instance's life in Consul: register, heartbeat,
// drain, deregister.
//
// [Start] checks the settings and returns at once; Consul may be away, then or
// later, for as long as it likes. From then on one goroutine keeps the entry
// true, with one call to Consul in flight at most, beside one question about the entry
// that the agent holds open:
//
//   - It registers with two checks. Consul runs the first (HTTP, on the
//     instance's own readiness); the instance beats the second (TTL) itself, so
//     that it can say at once that it is not ready or draining. Both begin as
//     passing only if Config.Ready holds.
//   - Done means seen. Consul's answer to a registration is no proof, so the
//     state becomes registered when the entry and its checks were found where
//     others look: in /v1/health/service of the service.
//   - It mends. An entry or a check that vanished (Consul came back with an
//     empty catalog, an operator deregistered it), and an address that is the
//     machine's no longer, end in deregistering and registering anew. Nothing
//     less restores an entry behind a client agent, which believes itself to be
//     in sync.
//   - It never gives up and never hammers. With no connection it tries after
//     50 ms, doubling to 500 ms; refused (403, 429, 5xx) to 10 s; each with full
//     jitter. A cluster without a leader counts as no connection, and is not
//     bothered with registrations.
//   - An operator's maintenance mode of the instance outlives a mend, with its
//     reason. It is lost with a wiped catalog, since nobody remembers it then.
//
// An instance that is critical for longer than Config.DeregisterAfter is removed
// by Consul. If it still runs (it is not ready for a long time, say), it is soon
// registered again, as critical.
//
// [Registered.Drain] and [Registered.Close] end the life in order; see there.
//
// Everything may be called by any number of goroutines. For tests, the
// package's clock is the standard one, so that a life runs in a synctest bubble.
package registration
