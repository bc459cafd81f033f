// Package health answers the two questions that probes ask: is the process
// alive, and can it serve.
//
// A process is live as long as it answers. It is ready when every required
// dependency is fine and it is not draining. Informational dependencies are shown
// and change nothing: were another service required, services that need each other
// would wait for each other.
//
//	checks := health.New(health.Config{})
//	defer checks.Close()
//	checks.Add("store", health.Required, store.Ping)
//	mux.Handle("GET /livez", checks.LiveHandler())
//	mux.Handle("GET /readyz", checks.ReadyHandler())
//
// Checks run when a page or Ready is asked, each at most once at a time and with a
// time limit, and an answer is kept for a moment: many probes cost one check.
// Everything here may be called by any number of goroutines.
//
// With a mesh, Ready is what registration.Config.Ready takes, and a change that any
// probe finds is told to Consul at once:
//
//	checks.OnChange(entry.Refresh) // entry is what mesh.Register returned
package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Role says whether readiness depends on a dependency.
type Role bool

const (
	// Required is the role of what the process can't serve without.
	Required Role = true
	// Informational is the role of what is shown and changes nothing.
	Informational Role = false
)

// Check looks at one dependency. It returns nil if that is fine, else why not.
// It must end soon after its context.
type Check func(context.Context) error

// Config has the times of all checks.
type Config struct {
	// Timeout is how long a check may take before it counts as failed. 0 means
	// 1s. It should be below the prober's own limit.
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
	ready        bool     // as of the last check that ended
	changed      []func() // called when ready changes
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

// Add adds a dependency. Reports list them in the order of Add.
func (r *Registry) Add(name string, role Role, check Check) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dependencies = append(r.dependencies, &dependency{name: name, role: role, check: check})
}

// OnChange has f called when a check finds that the process has become ready, or
// is not ready any more: every required dependency was asked and is fine, or one is
// not. It is called when the process is ready for the first time, too. SetDraining is
// no such change: it is a drain's beginning, and a drain tells of itself. A check that
// ends in time is what finds a change; one that ignores its context does when it ends.
//
// f is called by the check's goroutine, maybe several times at once, and must
// return soon.
func (r *Registry) OnChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changed = append(r.changed, f)
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
	return r.Report(ctx).Err()
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
		if d.Err != nil && d.Role == Required {
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
