package registration

import (
	"fmt"
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
	// StateRecovering means that Consul does not answer, or that the entry is gone
	// or wrong and being mended.
	StateRecovering
	// StateDraining means that Drain was called.
	StateDraining
	// StateDeregistered means that Close was called: the entry is deregistered, or left
	// for Consul to clean up when it could not be.
	StateDeregistered
)

// States lists every state, in order.
var States = [...]State{StateStarting, StateRegistered, StateRecovering, StateDraining, StateDeregistered}

// follows lists what may come after each state: the drawing of Registration.
var follows = [...][]State{
	StateStarting:     {StateRegistered, StateDraining, StateDeregistered},
	StateRegistered:   {StateRecovering, StateDraining, StateDeregistered},
	StateRecovering:   {StateRegistered, StateDraining, StateDeregistered},
	StateDraining:     {StateDeregistered},
	StateDeregistered: {},
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
	case StateRecovering:
		return "recovering"
	case StateDraining:
		return "draining"
	case StateDeregistered:
		return "deregistered"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// MarshalText lets pages and logs show the state by its name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote; another word is an error.
func (s *State) UnmarshalText(text []byte) error {
	for _, known := range States {
		if known.String() == string(text) {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("registration: state %.80q; want one of %v", text, States)
}

// Status is a state, why it is so, and since when.
type Status struct {
	State State
	// Why is a sentence for people.
	Why string
	// Err is what is in the way, for errors.Is; nil if nothing is. A registered
	// instance may have one: see ErrLoopback.
	Err error
	// Since is when the state was entered; Why and Err may be newer.
	Since time.Time
}

// Trace has a function for each thing that happens; nil ones are skipped. They are
// called one at a time, beside the instance's life, which they do not hold up. Of
// what waits for one that hangs, no more than 256 events are kept.
type Trace struct {
	// Changed tells of a change of state.
	Changed func(service, id string, from, to State, why string)
	// Attempted tells of each question to Consul: err is nil if it succeeded. op is
	// one of Ops. Where a process's registrations share an Agent, service and id
	// are empty for what is asked for all of them.
	Attempted func(service, id, op string, err error)
	// Left tells of each step of leaving that was made, and how long it took. step is
	// one of Steps.
	Left func(service, id, step string, took time.Duration)
}

// Steps of leaving, as Trace.Left names them.
const (
	stepSeen    = "seen"    // from Drain until the catalog shows that it is draining
	stepSettled = "settled" // from then until the drain is over
	stepGone    = "gone"    // from Close until the entry is deregistered
)

// Steps lists what Trace.Left may be told as step.
var Steps = [...]string{stepSeen, stepSettled, stepGone}

// Operations, as Trace.Attempted names them.
const (
	opRegister   = "register"   // the entry, or its maintenance mode
	opDeregister = "deregister" // the entry
	opHeartbeat  = "heartbeat"  // the TTL check
	opRead       = "read"       // any question that is answered at once
	opHold       = "hold"       // a question that Consul holds until there is news
)

// Ops lists what Trace.Attempted may be told as op.
var Ops = [...]string{opRegister, opDeregister, opHeartbeat, opRead, opHold}
