// Package pause waits, and not for longer than its context lasts.
package pause

import (
	"context"
	"time"
)

// For waits for d, or until early gives a value or is closed (nil never does). The
// error is the cause of ctx's end.
func For(ctx context.Context, d time.Duration, early <-chan struct{}) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-early:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
