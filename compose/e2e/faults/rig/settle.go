package rig

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Until asks every 50 ms until check gives no error. At the limit it returns the last one.
func Until(ctx context.Context, limit time.Duration, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil { // else it only says that the time is up
			last = err
		}
		if Pause(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%s: not within %v: %w", what, limit, last)
		}
	}
}

// Pause waits, or returns the context's error.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Serving is an error unless the fleet is as it should be between two faults: so many containers, all passing and
// no entry more, the gateway ready, and each order answers through it.
func (r *Rig) Serving(ctx context.Context, want map[string]int) error {
	for service, n := range want {
		cs, err := r.Running(ctx, service)
		if err != nil {
			return err
		}
		if len(cs) != n {
			return fmt.Errorf("%d containers of %s run; want %d", len(cs), service, n)
		}
	}
	if err := r.Passing(ctx, want); err != nil {
		return err
	}
	if want["gateway"] == 1 {
		if _, err := r.Want(ctx, http.MethodGet, r.GatewayAdmin()+"/readyz", nil); err != nil {
			return err
		}
	}
	seen := map[string]bool{}
	for range 60 * want["order"] {
		a, err := r.Want(ctx, http.MethodGet, r.Gateway()+"/orders/1", nil)
		if err != nil {
			return err
		}
		if seen[a.Header.Get("X-Served-By")] = true; len(seen) >= want["order"] {
			return nil
		}
	}
	return fmt.Errorf("%d of %d orders served", len(seen), want["order"])
}

// Repair brings the fleet back to the usual, by mending it or, where that takes too long, by starting a new one.
// fresh asks for a new one in any case.
func (r *Rig) Repair(ctx context.Context, fresh bool) error {
	if !fresh {
		if err := r.mend(ctx); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return err
		}
	}
	if err := r.Thaw(ctx); err != nil {
		return err
	}
	if err := r.Clear(ctx); err != nil {
		return fmt.Errorf("remove the fleet: %w", err)
	}
	if err := r.Up(ctx); err != nil {
		return err
	}
	return Until(ctx, 90*time.Second, "a new fleet settles", func(ctx context.Context) error { return r.Serving(ctx, Usual) })
}

func (r *Rig) mend(ctx context.Context) error {
	quick, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if r.Leader(quick) == nil && r.Serving(quick, Usual) == nil {
		return nil
	}
	if err := r.Thaw(ctx); err != nil {
		return err
	}
	// Those that a row removed, stopped or scaled.
	if _, err := r.Compose(ctx, "up", "--detach", "--remove-orphans"); err != nil {
		return err
	}
	return Until(ctx, 60*time.Second, "the fleet settles", func(ctx context.Context) error {
		return errors.Join(r.Leader(ctx), r.Serving(ctx, Usual))
	})
}

// Thaw unpauses what is paused: a frozen container can't be stopped.
func (r *Rig) Thaw(ctx context.Context) error {
	for _, s := range []string{"consul", "user", "order", "gateway", "prometheus"} {
		cs, err := r.Containers(ctx, s)
		if err != nil {
			return err
		}
		for _, c := range cs {
			if c.State.Status == "paused" {
				if _, err := r.Docker(ctx, "unpause", c.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
