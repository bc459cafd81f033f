package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// running is the one fleet of this process, started by the first test that asks for it.
var running struct {
	fleet   atomic.Pointer[fleet.Fleet]
	removed atomic.Bool // or about to be

	mu    sync.Mutex // held while the fleet is started or removed; guards what follows
	fresh bool       // nothing has been done to it since it came up
	err   error      // why it could not be started: then every test that wants it fails at once
}

func TestMain(m *testing.M) {
	flag.Parse()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-stop:
			fmt.Printf("%v: removing the fleet\n", s)
		case <-beforeTimeout():
			// The testing package's own timeout ends the process without any clearing up.
			fmt.Println("the test's -timeout is near: removing the fleet")
			if f := running.fleet.Load(); f != nil {
				f.Dump(context.Background(), os.Stdout, 20)
			}
		}
		_ = remove() // it says itself what it could not
		os.Exit(1)
	}()
	code := m.Run()
	if err := remove(); err != nil {
		code = 1
	}
	os.Exit(code)
}

// beforeTimeout fires when there is just time left to clear up before -timeout.
func beforeTimeout() <-chan time.Time {
	f := flag.Lookup("test.timeout")
	limit, err := time.ParseDuration(f.Value.String())
	if err != nil || limit <= 0 {
		return nil
	}
	return time.After(limit - min(limit/4, time.Minute))
}

func remove() error {
	running.removed.Store(true)
	if f := running.fleet.Load(); f != nil {
		f.Halt() // an Up under way ends, and lets go of the mutex
	}
	running.mu.Lock() // for ever: nobody starts it again
	f := running.fleet.Load()
	if f == nil {
		return nil
	}
	if os.Getenv("ROLLCALL_E2E_KEEP") != "" {
		fmt.Printf("the fleet %s is left running from %s, with\n", f.Project, f.Dir)
		for k, v := range f.Ports.Env() {
			fmt.Printf("  %s=%d\n", k, v)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := f.Down(ctx)
	if err != nil {
		fmt.Println("the fleet could not be removed:", err)
	}
	return err
}

// clean returns the fleet as it is after its first `make up`: with the seeds and nothing else.
func clean(t *testing.T) *mesh {
	t.Helper()
	if os.Getenv("ROLLCALL_E2E") != "1" {
		t.Skip("ROLLCALL_E2E is not 1: the test would start a fleet of containers, for some minutes")
	}
	running.mu.Lock()
	defer running.mu.Unlock()
	if running.err == nil && !running.fresh {
		running.err = bringUp(t.Context())
	}
	if running.err != nil {
		t.Fatal(running.err)
	}
	running.fresh = false
	m := newMesh(running.fleet.Load())
	t.Cleanup(m.close)
	return m
}

func bringUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // where Consul must be built first
	defer cancel()
	began := time.Now()
	f := running.fleet.Load()
	if f == nil {
		var err error
		if f, err = fleet.New(ctx, "../..", os.Stdout); err != nil {
			return err
		}
		running.fleet.Store(f)
	} else if err := f.Clear(ctx); err != nil {
		return err
	}
	if running.removed.Load() { // it may have looked before there was a fleet
		return errors.New("interrupted")
	}
	fmt.Printf("starting the fleet %s in %s\n", f.Project, f.Dir)
	if err := f.Up(ctx); err != nil {
		f.Dump(context.WithoutCancel(ctx), os.Stdout, 20)
		return errors.Join(errors.New("the fleet did not come up"), err)
	}
	running.fresh = true
	fmt.Printf("the fleet is up after %v\n", time.Since(began).Round(100*time.Millisecond))
	return nil
}
