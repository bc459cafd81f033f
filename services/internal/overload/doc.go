// Package overload keeps a server from drowning: it sheds what comes over a
// limit of requests at once, before any work was done, and finds the limit by
// itself.
//
//	limits := overload.New(overload.Config{})
//	server.Handler = limits.Handler(mux)
//	client.Transport = overload.Outside(transport) // a peer's time is not ours
//
// [Limiter.Admit] and [Away] are the same for other protocols than HTTP.
//
// A server that takes more than it can do answers everybody late, and so, to
// callers with a time limit, nobody. One that sheds the rest serves as much as
// it can, at nearly its usual latency, and tells the others at once, with 503,
// Retry-After and Rollcall-Reason: overload, to go elsewhere.
//
// The limit is found by the gradient of latency, as Envoy's adaptive
// concurrency does (its docs, "Gradient Controller", after Netflix's
// concurrency-limits):
//
//	limit = limit × min(1, least latency / latency) + √limit
//
// The least latency is measured by letting only a few in at a time for a
// moment. Unlike Envoy we do that, and judge at all, only once Start requests
// were at work at the same time: a store that is slow, a pause for garbage or
// a burst are no overload, and below that number nothing is ever shed.
//
// Reads (GET, HEAD, OPTIONS, TRACE) and writes have a limit each: writes that
// wait for a lock must not keep out the reads, which need none.
//
// A body is read, up to a bound, before its request is at work: a client that
// sends slowly takes no place, and the time it takes is no latency of ours.
//
// It is for short answers. A stream holds its place for as long as it lives.
//
// All of it is safe for any number of goroutines; it starts none. Times are
// taken as requests come and go, so it works in a synctest bubble.
package overload
