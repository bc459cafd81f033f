package meshview

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
)

// document is what is read of a process's discovery.Status, as /debug/discovery serves
// it. It may be of an older process, which lacks fields, or of a newer one with more.
type document struct {
	Version  int            `json:"version"` // 0: from before there was one
	At       time.Time      `json:"at"`
	Services []knownService `json:"services"`
}

// knownService is a service as a process knows it.
type knownService struct {
	Service   string          `json:"service"`
	Proven    time.Time       `json:"proven"`
	Error     string          `json:"error"`
	Panic     bool            `json:"panic"`
	Ready     int             `json:"ready"`
	Calls     calls           `json:"calls"`
	Instances []knownInstance `json:"instances"`
}

// calls are what a process sent to a service in the last window.
type calls struct {
	Window   float64 `json:"window_seconds"`
	Requests float64 `json:"requests"`
	Failed   float64 `json:"failed"`
	Retries  float64 `json:"retries"`
	P50      float64 `json:"p50_seconds"`
	P99      float64 `json:"p99_seconds"`
}

// knownInstance is an instance as a process knows it.
type knownInstance struct {
	ID           string    `json:"id"`
	Node         string    `json:"node"`
	Addr         string    `json:"addr"`
	State        string    `json:"state"`
	Reason       string    `json:"reason"`
	Weight       int       `json:"weight"`
	Reserve      bool      `json:"reserve"`
	Zone         string    `json:"zone"`
	Version      string    `json:"version"`
	Protocol     string    `json:"protocol"`
	MissingUntil time.Time `json:"missing_until"`
	InFlight     int       `json:"in_flight"`
	Connections  int       `json:"connections"`
	Latency      float64   `json:"latency_seconds"`
	Deselected   bool      `json:"deselected"`
	Health       string    `json:"health"`
	Ejected      *struct {
		Since  time.Time `json:"since"`
		Until  time.Time `json:"until"`
		Reason string    `json:"reason"`
	} `json:"ejected"`
}

// newest is the highest version of the document that can be read.
const newest = 1

func readDocument(text []byte) (*document, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("its status can't be read: %w", err)
	}
	if d.Version < 0 || d.Version > newest {
		return nil, fmt.Errorf("its status has version %d; this page reads up to %d: bring the process that serves the page up to date", d.Version, newest)
	}
	if d.At.IsZero() {
		return nil, errors.New("its status has no time; want the document of /debug/discovery")
	}
	return &d, nil
}

// seconds is a duration that came as a number: 0 for what none can be.
func seconds(s float64) time.Duration {
	const most = 1e6
	if !(s > 0) || s > most {
		return 0
	}
	return time.Duration(math.Round(s * float64(time.Second)))
}

// leastWindow is the shortest time, in seconds, over which calls are counted.
const leastWindow = 0.1

// count is a number of things that came as a number: 0 for what none can be.
func count(n float64) float64 {
	const most = 1e9
	if !(n > 0) || n > most {
		return 0
	}
	return n
}
