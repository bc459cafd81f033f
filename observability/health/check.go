package health

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// dependency is one check and its last answer; the registry's mutex guards all
// but the first three fields.
type dependency struct {
	name  string
	role  Role
	check Check

	last    Dependency         // Checked is zero before the first answer
	ended   time.Time          // of the check that gave last
	began   time.Time          // of the check that runs
	running chan struct{}      // closed when the check that runs is over; nil if none does
	cancel  context.CancelFunc // ends the check that runs
}

// Report asks every dependency, all at the same time, and waits for their
// answers: for the checks' time limit, or until ctx ends. An answer that is not
// older than KeepFor is given again, and a check that runs already is waited
// for rather than started twice.
func (r *Registry) Report(ctx context.Context) Report {
	r.mu.Lock()
	report := Report{Draining: r.draining}
	asked := slices.Clip(r.dependencies)
	waits := make([]<-chan struct{}, len(asked))
	for n, d := range asked {
		waits[n] = r.start(d) //nolint:contextcheck // the check outlives the first caller: others may wait for it too
	}
	r.mu.Unlock()

	limit := time.NewTimer(r.cfg.Timeout)
	defer limit.Stop()
	late := false
	for _, wait := range waits {
		if wait == nil || late {
			continue
		}
		select {
		case <-wait:
		case <-limit.C:
			late = true
		case <-ctx.Done():
			late = true
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for n, d := range asked {
		report.Dependencies = append(report.Dependencies, r.answer(d, waits[n]))
	}
	return report
}

// start begins the check unless its last answer is fresh or it runs, and
// returns what to wait for: nil if nothing. The mutex is held.
func (r *Registry) start(d *dependency) <-chan struct{} {
	if d.running != nil {
		return d.running
	}
	if r.closed || (!d.ended.IsZero() && time.Since(d.ended) < r.cfg.KeepFor) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), r.cfg.Timeout, errTimeout(r.cfg.Timeout))
	done := make(chan struct{})
	d.running, d.cancel, d.began = done, cancel, time.Now()
	r.running.Go(func() {
		defer cancel()
		changed := r.end(d, safely(ctx, d.check))
		close(done)
		for _, f := range changed {
			f()
		}
	})
	return done
}

// end notes the answer of a check, and returns what to call of the change that it
// made.
func (r *Registry) end(d *dependency, err error) []func() {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.ended = time.Now()
	d.last = Dependency{Name: d.name, Role: d.role, Err: err, Checked: d.began, Took: d.ended.Sub(d.began)}
	d.running, d.cancel = nil, nil
	ready := true
	for _, d := range r.dependencies {
		if d.role == Required && (d.ended.IsZero() || d.last.Err != nil) {
			ready = false
		}
	}
	if ready == r.ready || r.closed {
		return nil
	}
	r.ready = ready
	return slices.Clone(r.changed)
}

// answer says what is known of the dependency now. The mutex is held.
func (r *Registry) answer(d *dependency, wait <-chan struct{}) Dependency {
	switch {
	case r.closed:
		return Dependency{Name: d.name, Role: d.role, Err: ErrClosed, Checked: d.last.Checked, Took: d.last.Took}
	case wait != nil && d.running == wait:
		return Dependency{Name: d.name, Role: d.role, Err: errTimeout(r.cfg.Timeout), Checked: d.began, Took: time.Since(d.began)}
	}
	return d.last
}

// safely turns a panic in a check into its answer: a probe must not end the
// process.
func safely(ctx context.Context, check Check) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the check panicked: %v", p)
		}
	}()
	return check(ctx)
}
