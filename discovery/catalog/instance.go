package catalog

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/clip"
)

// State is what the registry says of an instance, worst check first. The
// zero value is StateUnknown, which no registry reports and nothing is sent to.
type State int

// The states, from the best to the worst.
const (
	StateUnknown State = iota
	// StatePassing means that every check passes.
	StatePassing
	// StateWarning means that a check warns; the instance is used like a
	// passing one, with its weight for warnings.
	StateWarning
	// StateCritical means that a check fails. Such an instance is used only
	// when nothing better is left (panic mode).
	StateCritical
	// StateDraining means that the instance said that it is leaving. It is
	// never picked.
	StateDraining
	// StateMaintenance means that an operator took the instance or its node
	// out. It is never picked.
	StateMaintenance
)

// States lists every state that a registry reports, in order.
var States = [...]State{StatePassing, StateWarning, StateCritical, StateDraining, StateMaintenance}

// String returns the state's name in lower case, as metrics and pages show it.
func (s State) String() string {
	switch s {
	case StateUnknown:
		return "unknown"
	case StatePassing:
		return "passing"
	case StateWarning:
		return "warning"
	case StateCritical:
		return "critical"
	case StateDraining:
		return "draining"
	case StateMaintenance:
		return "maintenance"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Ready reports whether an instance in this state is sent to in normal times.
func (s State) Ready() bool { return s == StatePassing || s == StateWarning }

// MarshalText lets pages and logs show the state by its name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote. A word that is none of ours, as of a later
// version, is StateUnknown.
func (s *State) UnmarshalText(text []byte) error {
	*s = StateUnknown
	for _, known := range States {
		if known.String() == string(text) {
			*s = known
		}
	}
	return nil
}

// Instance is one running copy of a service, as the registry last told of it.
// It is a value that may be kept. Its slices and maps are shared: don't change
// them.
type Instance struct {
	// ID is unique among the instances of its service that speak one protocol: an
	// entry with a named port for each protocol is an instance at each.
	ID string
	// Service is the name by which others ask for it.
	Service string
	// Kind is empty for an instance of the service itself. Otherwise it is what the
	// registry calls an entry that stands before or beside others: "connect-proxy",
	// "mesh-gateway" and the other gateways of Consul's service mesh. Its port
	// speaks another protocol than the service's.
	Kind string
	// Node is the name of the registry's node that holds the entry.
	Node string
	// Host is an IP address or a host name, IPv6 without brackets.
	Host string
	// Port is 1 to 65535.
	Port int
	// Tags and Meta are as registered.
	Tags []string
	Meta map[string]string
	// Weight is the share of traffic this instance asks for in its present
	// state, relative to its siblings: 1 to 65535.
	Weight int
	// Region and Zone say where it runs; empty means unknown.
	Region, Zone string
	// State is the worst of its checks, Reason the output of that check.
	State  State
	Reason string
	// Reserve is set for an instance that is asked when no other is left: none is
	// ready, or each that is has failed the request. See package failover.
	Reserve bool
	// Datacenter is the one that it is of, if that is not the one watched. See package
	// failover.
	Datacenter string
	// MissingUntil is zero for an instance that the registry's last answer
	// held. Otherwise the instance has vanished from it, and is used as if it
	// were still there until this time, or for longer while the registry can't
	// be asked: it leaves the set only when an answer later than this lacks it.
	MissingUntil time.Time
}

// Key names an endpoint: an instance at an address. It stays the same from
// snapshot to snapshot, and changes when an instance comes back elsewhere. Under
// how many nodes the registry has it does not matter: it is one process.
type Key struct {
	ID, Host string
	Port     int
}

// Key returns the instance's key.
func (i Instance) Key() Key { return Key{ID: i.ID, Host: i.Host, Port: i.Port} }

// Addr returns host and port as a dialer wants them, IPv6 in brackets.
func (i Instance) Addr() string { return net.JoinHostPort(i.Host, strconv.Itoa(i.Port)) }

// Missing reports whether the instance has vanished from the registry's last
// answer and is kept for a while (see MissingUntil).
func (i Instance) Missing() bool { return !i.MissingUntil.IsZero() }

// Bounds of what an entry may hold; see Validate.
const (
	MaxWeight    = 65535
	MaxMetaBytes = 64 << 10
	maxNameBytes = 256
)

// Validate says what is wrong with an entry that came from outside: nil if it
// can be used. The error is an *InvalidError.
func (i Instance) Validate() error {
	bad := func(field, format string, args ...any) error {
		return &InvalidError{ID: i.ID, Field: field, Problem: fmt.Sprintf(format, args...)}
	}
	switch {
	case i.ID == "" || len(i.ID) > maxNameBytes:
		return bad("ID", "is %d bytes; want 1 to %d", len(i.ID), maxNameBytes)
	case !validHost(i.Host):
		return bad("Host", "is %q; want an IP address or a host name", clip.To(80, i.Host))
	case i.Port < 1 || i.Port > 65535:
		return bad("Port", "is %d; want 1 to 65535", i.Port)
	case i.Weight < 1 || i.Weight > MaxWeight:
		return bad("Weight", "is %d; want 1 to %d", i.Weight, MaxWeight)
	}
	size := 0
	for k, v := range i.Meta {
		size += len(k) + len(v)
	}
	if size > MaxMetaBytes {
		return bad("Meta", "is %d bytes; want at most %d", size, MaxMetaBytes)
	}
	return nil
}

// InvalidError says which field of an entry can't be used, and why.
type InvalidError struct {
	ID      string // of the entry; may be empty
	Field   string // the name of Instance's field: a bounded set, fit for a metric's label
	Problem string // the value, and what is wanted
}

func (e *InvalidError) Error() string {
	return fmt.Sprintf("instance %q: %s %s", clip.To(80, e.ID), e.Field, e.Problem)
}

// validHost accepts what can be dialled: an IP address (a zone in an IPv6
// address means something on its own host only, so it is refused), or a host
// name after RFC 1123, underscores allowed as Docker and Kubernetes do.
func validHost(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	if ip := net.ParseIP(host); ip != nil {
		return !ip.IsUnspecified() && !ip.IsMulticast()
	}
	digitsOnly := true
	label := 0
	for n, r := range host {
		switch {
		case r == '.':
			if label == 0 || host[n-1] == '-' {
				return false
			}
			label = 0
			continue
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '_':
			digitsOnly = false
		case r == '-':
			if label == 0 {
				return false
			}
			digitsOnly = false
		case r >= '0' && r <= '9':
		default:
			return false
		}
		if label++; label > 63 {
			return false
		}
	}
	// "300.1.1.1" is a mistyped address, not a name.
	return !digitsOnly && host[len(host)-1] != '-'
}
