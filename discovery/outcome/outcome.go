// Package outcome says how a try of a request at one instance ended, and what
// follows from that: one table, which retries, health, metrics, logs and docs
// read.
//
// A transport translates what it saw into a [Code] where it saw it; nothing
// else decides. [Code.Row] is the table, shown in docs/explanation/choosing.md.
// The codes are HTTP's and fit gRPC's: UNAVAILABLE before anything was sent is
// Unsent, RESOURCE_EXHAUSTED is Overload, DEADLINE_EXCEEDED is Silent or
// Timeout, INTERNAL is Error, UNAVAILABLE from a server is Gateway.
package outcome

import "time"

// Code says how a try ended. The zero value is None.
type Code uint8

// The codes, in a few words; Code.Row says what each means and what follows.
const (
	None           Code = iota // nothing to tell
	OK                         // an answer
	Error                      // a 5xx that is none of the next
	Gateway                    // 502 or 503
	GatewayTimeout             // 504
	Downstream                 // 502, 503 or 504, for another service's sake
	Busy                       // 429
	Overload                   // shed before any work
	Misdirected                // 421: another service's instance
	Foreign                    // an answer that another server gave
	Unreachable                // the dial failed
	Untrusted                  // TLS: a certificate is not believed
	Stalled                    // the dial takes too long, and goes on
	Unsent                     // nothing was written, or HTTP/2 says that it was not begun
	IdleClosed                 // an idle connection was closed meanwhile
	Broken                     // the connection ended without an answer
	BodyBroken                 // the answer's body broke off
	Silent                     // no headers for too long
	Outrun                     // the try beside it was first
	Timeout                    // the caller's deadline, after a short wait
	Canceled                   // the caller left, after a short wait
	CallerError                // the request is at fault
	Closed                     // the transport was closed
	NoInstance                 // there was none to try
	WrongScheme                // each speaks TLS, and the URL says http; or the reverse
	codes                      // how many there are
)

// Proof is what an outcome proves of the instance.
type Proof uint8

// The proofs.
const (
	// Nothing is proven of the instance.
	Nothing Proof = iota
	// Good means that it serves: it ends a row of failures.
	Good
	// Load means that it has too much to do, and is well.
	Load
	// Doubt makes it suspect, and counts for nothing else.
	Doubt
	// Bad means that it failed.
	Bad
	// Down is Bad, and says besides that it does not serve at all.
	Down
	// Silence is Down, unless the others are as silent.
	Silence
	// Absent is Down, and says besides that nothing is at its address.
	Absent
)

var proofs = [...]string{
	Nothing: "nothing", Good: "good", Load: "load", Doubt: "doubt", Bad: "bad", Down: "down",
	Silence: "down, unless the others are as silent", Absent: "not there",
}

// String returns the proof as the docs show it.
func (p Proof) String() string { return proofs[p] }

// Repeat says whether a request may be tried again after an outcome.
type Repeat uint8

// When a request may be tried again.
const (
	// Never: the answer is final, or no other is waited for.
	Never Repeat = iota
	// IfRepeatable: it may have been served, so only one that may be done twice.
	IfRepeatable
	// Always: it has not been served.
	Always
)

var repeats = [...]string{Never: "never", IfRepeatable: "if repeatable", Always: "always"}

// String returns the word as the docs show it.
func (r Repeat) String() string { return repeats[r] }

// Row is what the table says of a code.
type Row struct {
	// Name is the code's word in metrics, logs and reports.
	Name string
	// When says what happened, for a reader.
	When string
	// Proves is what it proves of the instance.
	Proves Proof
	// Again says whether the request may be tried again.
	Again Repeat
	// Costs says whether another try is paid for from the budget: the instance
	// may have worked on this one.
	Costs bool
}

// Shed reports whether the request was refused for load before any work: its
// sender has said when to come again, and to press on would only move the queue.
func (r Row) Shed() bool { return r.Proves == Load && r.Again == Always }

// table has a row for each code but None.
var table = [codes]Row{
	OK:             {"ok", "any other answer", Good, Never, false},
	Error:          {"error", "any other 5xx but 501 and 505; a 101 that was not asked for", Bad, Never, false},
	Gateway:        {"gateway", "502 or 503", Down, IfRepeatable, true},
	GatewayTimeout: {"gateway_timeout", "504: another hop has waited already", Down, Never, false},
	Downstream:     {"downstream", "502, 503 or 504 with `Rollcall-Reason: downstream`: another service is at fault", Nothing, Never, false},
	Busy:           {"busy", "429", Load, IfRepeatable, true},
	Overload:       {"overload", "503 with `Rollcall-Reason: overload`: shed before any work", Load, Always, true},
	Misdirected:    {"misdirected", "421: the instance is another service's", Absent, Always, false},
	Foreign:        {"foreign", "an answer without the service's name, from a missing instance", Doubt, Always, false},
	Unreachable:    {"unreachable", "the dial failed, or took ten times `DialTimeout`", Absent, Always, false},
	Untrusted:      {"untrusted", "TLS: its certificate or ours is not believed, or it does not speak TLS; nothing was served", Absent, Always, false},
	Stalled:        {"stalled", "the dial outlasted `DialTimeout`; it goes on, and the instance is suspect meanwhile", Nothing, Always, false},
	Unsent:         {"unsent", "the connection ended before a byte of the request was written; HTTP/2: REFUSED_STREAM, or GOAWAY without it", Nothing, Always, false},
	IdleClosed:     {"idle_closed", "a connection that had been idle ended without a byte of an answer", Nothing, IfRepeatable, true},
	Broken:         {"broken", "a new connection ended without an answer, or what came was none", Down, IfRepeatable, true},
	BodyBroken:     {"body_broken", "the body of the answer broke off", Bad, Never, false},
	Silent:         {"silent", "no headers for `TryTimeout` or longer, whatever ended the wait", Silence, IfRepeatable, true},
	Outrun:         {"outrun", "the try beside it ended the request first", Nothing, Never, false},
	Timeout:        {"timeout", "the caller's deadline ended a shorter wait, or one of two that were as silent", Nothing, Never, false},
	Canceled:       {"canceled", "the caller left after a shorter wait, or one of two that were as silent", Nothing, Never, false},
	CallerError:    {"caller_error", "the request can't be sent, or its body broke off or has another length than it said", Nothing, Never, false},
	Closed:         {"closed", "the transport or the source was closed", Nothing, Never, false},
	NoInstance:     {"no_instance", "there was no instance to try", Nothing, Never, false},
	WrongScheme:    {"wrong_scheme", "the URL says http and each instance speaks TLS, or the reverse; nothing was sent", Nothing, Never, false},
}

// Codes returns every code but None, in the table's order.
func Codes() []Code {
	all := make([]Code, 0, codes-1)
	for c := None + 1; c < codes; c++ {
		all = append(all, c)
	}
	return all
}

// Row returns what the table says of the code; the zero Row of None.
func (c Code) Row() Row {
	if c >= codes {
		return Row{}
	}
	return table[c]
}

// Proves is Row().Proves, which each request asks for.
func (c Code) Proves() Proof {
	if c >= codes {
		return Nothing
	}
	return table[c].Proves
}

// Failed reports whether a request that ended so has failed its caller: not where there
// was an answer below 500, nor where the caller left or sent what can't be sent.
func (c Code) Failed() bool {
	switch c {
	case None, OK, Busy, Canceled, CallerError:
		return false
	}
	return true
}

// String returns the code's name: bounded in number, fit for a metric's label.
func (c Code) String() string { return c.Row().Name }

// MarshalText lets pages and logs show the code by its name.
func (c Code) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Group is a kind of thing that an instance may do well while it fails at the
// others: rows of failures are kept for each.
type Group uint8

// The groups.
const (
	// Safe requests change nothing (RFC 9110, section 9.2.1).
	Safe Group = iota
	// Unsafe requests may.
	Unsafe
	// Bodies are those of answers, to either: their headers came before.
	Bodies
	// Groups is how many there are.
	Groups
)

// Result is the end of a try, as it is told to what judges the instance.
type Result struct {
	// Code says how it ended. None proves nothing.
	Code Code
	// Group is the request's, or Bodies.
	Group Group
	// Began and At are when the try began and ended. What began before an
	// ejection says nothing of the time after it. Required.
	Began, At time.Time
	// Latency is the time to the headers of an answer, or that of the silence;
	// 0 means that neither is known.
	Latency time.Duration
}
