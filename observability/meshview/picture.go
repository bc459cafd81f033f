package meshview

import (
	"encoding/json"
	"time"
)

// Picture is the mesh at one time. It never changes once it is published. In JSON
// durations are seconds.
type Picture struct {
	// Seq is higher in each later picture, also in those of a later process.
	Seq      uint64    `json:"seq"`
	At       time.Time `json:"at"`
	Consul   Consul    `json:"consul"`
	Services []Service `json:"services"` // by name
	Edges    []Edge    `json:"edges"`    // by names
	Viewers  int       `json:"viewers"`
}

// Consul is how it stands with Consul, as this process finds it.
type Consul struct {
	Reachable bool      `json:"reachable"`
	Since     time.Time `json:"since"`           // when that came to be so
	Error     string    `json:"error,omitempty"` // empty while it is reachable
	// UI and Prometheus are where people find them, see Config. Empty: not said.
	UI         string `json:"ui,omitempty"`
	Prometheus string `json:"prometheus,omitempty"`
}

// Service is a service in the catalog.
type Service struct {
	Name string `json:"name"`
	// Instances are those of the catalog and those that are missing from it and still
	// used, by ID: of more than 2,000 in all services the first ones.
	Instances []Instance `json:"instances"`
	Passing   int        `json:"passing"`
	Total     int        `json:"total"` // those that Instances leaves out among them
	// PanicBy are the processes that send to critical instances, for want of better
	// ones: ten at most.
	PanicBy []string `json:"panic_by,omitempty"`
	Tags    []string `json:"tags,omitempty"` // that any instance has, twenty at most
}

// Instance is an entry of the catalog, and what the processes of the mesh tell of it.
type Instance struct {
	Key      string `json:"key"` // tells it from all others, of this and of other services
	ID       string `json:"id"`
	Node     string `json:"node,omitempty"`
	Addr     string `json:"addr"`
	Protocol string `json:"protocol"` // http, grpc, or both as "http,grpc"
	State    string `json:"state"`    // see catalog.State
	Reason   string `json:"reason,omitempty"`
	Zone     string `json:"zone,omitempty"`
	Version  string `json:"version,omitempty"`
	Weight   int    `json:"weight"`
	Missing  bool   `json:"missing,omitempty"` // the catalog lacks it, and it is still used
	New      bool   `json:"new,omitempty"`     // it came in the last ten seconds
	// Out are the processes that have ejected it, and Seen what others know of it: ten
	// at most of each; OutBy and SeenBy are how many there are.
	Out    []Out   `json:"out,omitempty"`
	Seen   []Seen  `json:"seen,omitempty"`
	OutBy  int     `json:"out_by,omitempty"`
	SeenBy int     `json:"seen_by,omitempty"`
	Checks []Check `json:"checks,omitempty"` // ten at most
	// Answered says that it gave its own status when it was last asked for it, and
	// Trouble why it did not. Without either it has no status, or was not asked so far.
	Answered bool   `json:"answered"`
	Trouble  string `json:"trouble,omitempty"`
	// Age is that of its own status; 0 if it gave none.
	Age time.Duration `json:"-"`
	// ClockOff is by how much its clock is ahead of ours, below 0 behind; 0 for less
	// than a second, and where the way there and back takes too long to tell.
	ClockOff time.Duration `json:"-"`
}

// Out is an ejection. Its times are by our clock.
type Out struct {
	By     string    `json:"by"` // ID of the process that has it out
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

// Seen is an instance as one process that may send to it knows it.
type Seen struct {
	By          string        `json:"by"` // the process's ID
	Latency     time.Duration `json:"-"`  // that it expects of it now; 0: not known
	InFlight    int           `json:"in_flight"`
	Connections int           `json:"connections"`
	Health      string        `json:"health,omitempty"` // by its answers; empty: never asked
	SnapshotAge time.Duration `json:"-"`                // how old its last proof of the set is
}

// Check is one of Consul's checks, in Consul's words.
type Check struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Output string `json:"output,omitempty"`
}

// Edge is what the instances of one service send to another, over the last ten seconds.
type Edge struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Rate    float64 `json:"rate"`    // requests a second
	Failed  float64 `json:"failed"`  // of them
	Retried float64 `json:"retried"` // second and later tries a second
	// P50 is the mean of the callers' medians, by their requests; P99 the worst of
	// theirs. Their distributions can't be put together.
	P50 time.Duration `json:"-"`
	P99 time.Duration `json:"-"`
}

// Event is something that happened. Its texts are bounded.
type Event struct {
	// Seq is higher in each later event, also in those of a later process.
	Seq uint64    `json:"seq"`
	At  time.Time `json:"at"`
	// Kind is joined, left, state, out, back, missing, consul-lost, consul-found,
	// panic, panic-over, version or routes.
	Kind     string `json:"kind"`
	Service  string `json:"service"`
	Instance string `json:"instance"` // its ID
	By       string `json:"by"`       // ID of the process that did it
	Text     string `json:"text"`     // in a few words
}

// MarshalJSON has durations in seconds.
func (i Instance) MarshalJSON() ([]byte, error) {
	type plain Instance
	return json.Marshal(struct {
		plain
		Age      float64 `json:"age_seconds"`
		ClockOff float64 `json:"clock_off_seconds"`
	}{plain(i), i.Age.Seconds(), i.ClockOff.Seconds()})
}

// MarshalJSON has durations in seconds.
func (s Seen) MarshalJSON() ([]byte, error) {
	type plain Seen
	return json.Marshal(struct {
		plain
		Latency     float64 `json:"latency_seconds"`
		SnapshotAge float64 `json:"snapshot_age_seconds"`
	}{plain(s), s.Latency.Seconds(), s.SnapshotAge.Seconds()})
}

// MarshalJSON has durations in seconds.
func (e Edge) MarshalJSON() ([]byte, error) {
	type plain Edge
	return json.Marshal(struct {
		plain
		P50 float64 `json:"p50_seconds"`
		P99 float64 `json:"p99_seconds"`
	}{plain(e), e.P50.Seconds(), e.P99.Seconds()})
}
