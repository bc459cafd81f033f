package registration

import (
	"slices"
	"strconv"
	"time"
)

// State is how an instance stands with Consul.
type State int

// The states of an instance. The zero value is the first one.
const (
	// StateStarting means that the entry was not seen in the catalog yet.
	StateStarting State = iota
	// StateRegistered means that the entry was seen with its checks.
	StateRegistered
	// StateAdrift means that Consul does not answer, or that the entry is gone
	// or wrong and being mended.
	StateAdrift
	// StateDraining means that Drain was called.
	StateDraining
	// StateGone means that Close was called: the entry is deregistered, or left
	// for Consul to clean up when it could not be.
	StateGone
)

// States lists every state, in order.
var States = [...]State{StateStarting, StateRegistered, StateAdrift, StateDraining, StateGone}

// follows lists what may come after each state: the drawing of Registered.
var follows = [...][]State{
	StateStarting:   {StateRegistered, StateDraining, StateGone},
	StateRegistered: {StateAdrift, StateDraining, StateGone},
	StateAdrift:     {StateRegistered, StateDraining, StateGone},
	StateDraining:   {StateGone},
	StateGone:       {},
}

// leadsTo reports whether the state may be followed by the other.
func (s State) leadsTo(to State) bool { return slices.Contains(follows[s], to) }

// String returns the state's name in lower case, as metrics and pages show it.
func (s State) String() string {
	switch s {
	case StateStarting:
		return "starting"
	case StateRegistered:
		return "registered"
	case StateAdrift:
		return "adrift"
	case StateDraining:
		return "draining"
	case StateGone:
		return "gone"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// MarshalText lets pages and logs show the state by its name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Status is a state, why it is so, and since when.
type Status struct {
	State State
	// Why is a sentence for people.
	Why string
	// Since is when the state was entered; Why may be newer.
	Since time.Time
}

// Trace has a function for each thing that happens; nil ones are skipped. For
// one instance they are called one at a time, outside of every lock, and hold up the instance's
// life: they must be quick.
type Trace struct {
	// Changed tells of a change of state.
	Changed func(service, id string, from, to State, why string)
	// Attempted tells of each call to Consul: err is nil if it succeeded. op is
	// one of Ops.
	Attempted func(service, id, op string, err error)
}

// Operations, as Trace.Attempted names them.
const (
	opRegister   = "register"   // the entry, or its maintenance mode
	opDeregister = "deregister" // the entry
	opBeat       = "beat"       // the TTL check
	opLook       = "look"       // any reading
	opHold       = "hold"       // the question about our entry that the agent holds
)

// Ops lists what Trace.Attempted may be told as op.
var Ops = [...]string{opRegister, opDeregister, opBeat, opLook, opHold}
