// Package health answers the two questions that probes ask: is the process
// alive, and can it serve.
//
// A process is live as long as it answers. It is ready when every dependency
// that decides is fine and it is not draining; dependencies that don't decide
// are told as detail only, so that services do not wait for each other.
//
//	checks := health.New(health.Config{})
//	defer checks.Close()
//	checks.Add("store", health.Decides, store.Ping)
//	mux.Handle("GET /livez", checks.LiveHandler())
//	mux.Handle("GET /readyz", checks.ReadyHandler())
//
// Each check has a time limit, runs once at a time however many probes ask,
// and its answer is kept for a moment: probes can't stampede. Everything here
// may be called by any number of goroutines.
package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Role says whether a dependency has a say in readiness.
type Role bool

const (
	// Decides marks what the process can't serve without.
	Decides Role = true
	// Tells marks what is told as detail and decides nothing.
	Tells Role = false
)

// Check looks at one dependency. It returns nil if that is fine, else why not.
// It must end soon after its context.
type Check func(context.Context) error

// Config has the times of all checks.
type Config struct {
	// Timeout is how long a check may take before it counts as failed. 0 means
	// 1s. It should be below the time-out of whoever probes.
	Timeout time.Duration
	// KeepFor is how long an answer is given again without a new check. 0
	// means 500ms. Longer costs less and notices later.
	KeepFor time.Duration
}

var (
	// ErrDraining is the reason, wrapped, of a process that is leaving.
	ErrDraining = errors.New("draining")
	// ErrClosed is the answer, wrapped, of checks that were closed.
	ErrClosed = errors.New("health checks are closed")
)

// Registry holds the checks of one process. Use New.
type Registry struct {
	cfg Config

	mu           sync.Mutex // guards what follows
	dependencies []*dependency
	draining     bool
	closed       bool

	running sync.WaitGroup
}

// New returns a registry without checks: ready.
func New(cfg Config) *Registry {
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	if cfg.KeepFor == 0 {
		cfg.KeepFor = 500 * time.Millisecond
	}
	return &Registry{cfg: cfg}
}

// Add begins to watch a dependency. Reports list them in the order of Add.
func (r *Registry) Add(name string, role Role, check Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dependencies = append(r.dependencies, &dependency{name: name, role: role, check: check})
}

// SetDraining makes the process not ready for good.
func (r *Registry) SetDraining() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// Ready returns nil if the process can serve, else why not. It takes the
// checks' time limit at most.
func (r *Registry) Ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Timeout)
	defer cancel()
	return r.Look(ctx).Err()
}

// Close ends checks that still run, waits for them, and fails later ones. It
// may be called twice.
func (r *Registry) Close() {
	r.mu.Lock()
	r.closed = true
	for _, d := range r.dependencies {
		if d.cancel != nil {
			d.cancel()
		}
	}
	r.mu.Unlock()
	r.running.Wait()
}

// Report is what all checks say at one time.
type Report struct {
	Draining     bool
	Dependencies []Dependency
}

// Dependency is what one check says.
type Dependency struct {
	Name    string
	Role    Role
	Err     error         // nil: fine
	Checked time.Time     // when the check began that this answer is from
	Took    time.Duration // how long it took; so far, if it is not over
}

// Err returns nil if the report says ready, else every reason why not.
func (p Report) Err() error {
	if p.Draining {
		return ErrDraining
	}
	var reasons []string
	var causes []error
	for _, d := range p.Dependencies {
		if d.Err != nil && d.Role == Decides {
			reasons = append(reasons, d.Name+": "+d.Err.Error())
			causes = append(causes, d.Err)
		}
	}
	if reasons == nil {
		return nil
	}
	return &notReadyError{reasons: reasons, causes: causes}
}

// notReadyError says all reasons on one line, as Consul and logs show it.
type notReadyError struct {
	reasons []string
	causes  []error
}

func (e *notReadyError) Error() string   { return "not ready: " + strings.Join(e.reasons, "; ") }
func (e *notReadyError) Unwrap() []error { return e.causes }

// errTimeout names the limit, not the time that passed: the text must stay the
// same from probe to probe, since each change of it is news to Consul's watchers.
func errTimeout(limit time.Duration) error {
	return fmt.Errorf("no answer yet (limit %v): %w", limit, context.DeadlineExceeded)
}
