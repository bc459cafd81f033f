// Package fault makes a service fail on purpose, in a test build and in no
// other.
//
// With the Go build tag faults, PUT /faults on the admin port takes a JSON
// object; it replaces the whole setting, so {} heals. GET shows the setting.
//
//	{"status": 500, "delay": "300ms", "slots": 4, "hold": "20ms", "clock": "1h", "crash": "order.committed",
//	 "method": "POST", "unkeyed": true, "renew": true, "count": true, "stream": "/orders/stream"}
//
// All members are optional:
//
//   - status: every traffic request is answered that, from 400 to 599, as a
//     problem. Health stays well.
//   - delay: each traffic request waits so long first.
//   - slots and hold: the capacity. Each traffic request takes one of the slots
//     for the time of hold before it is served; the others queue for a slot,
//     first come, first served. So slots/hold requests get through a second.
//   - clock: the offset of [Now] to the clock, which may be negative.
//   - crash: the process dies at the next [Point] of that name, as if by
//     SIGKILL: nothing is closed, flushed or answered.
//   - method and unkeyed: status, delay, slots and hold are for requests with
//     that method, and for those without an Idempotency-Key. The others are
//     served as if nothing were set.
//   - renew: each answer closes its connection, so that the next request has to
//     make one.
//   - count: from now on it is counted how many times each request was
//     executed, by its X-Request-Id: what came as far as this package was
//     begun, whatever became of it. GET /faults/executions shows the counts
//     until the setting is replaced.
//   - stream: a path. A request for it is answered with a header, and with no
//     byte more for as long as the client stays, whatever is set meanwhile.
//
// Without the tag nothing of this is compiled: [Traffic] and [Admin] return
// the handler that they were given, [Now] is the clock, [Point] is empty, and
// each is small enough to vanish where it is called.
//
// All functions are safe for any number of goroutines. The setting is the
// process's: there is one.
package fault
