package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Compose runs `docker compose` in the fleet's folder and returns its standard output.
func (f *Fleet) Compose(ctx context.Context, args ...string) (string, error) {
	return f.docker(ctx, append([]string{"compose"}, args...)...)
}

// Docker runs `docker` and returns its standard output, trimmed.
func (f *Fleet) Docker(ctx context.Context, args ...string) (string, error) {
	return f.docker(ctx, args...)
}

func (f *Fleet) docker(ctx context.Context, args ...string) (string, error) {
	r, err := f.Run(ctx, "docker", args...)
	return dockerOutput(args, r, err)
}

// clearing is docker for what removes the fleet, which works when it is halted too.
func (f *Fleet) clearing(ctx context.Context, args ...string) (string, error) {
	r, err := f.run(ctx, (*exec.Cmd).Run, "docker", args...)
	return dockerOutput(args, r, err)
}

func dockerOutput(args []string, r Result, err error) (string, error) {
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("docker %s: exit code %d: %s", strings.Join(args, " "), r.Code, tail(r.Stderr, 2000))
	}
	return strings.TrimSpace(r.Stdout), err
}

// Result of a command that ran to its end.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run any command in the fleet's folder and environment. Its exit code is no error.
func (f *Fleet) Run(ctx context.Context, name string, args ...string) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return f.run(ctx, func(cmd *exec.Cmd) error { return f.runUnlessHalted(cmd, cancel) }, name, args...)
}

func (f *Fleet) run(ctx context.Context, run func(*exec.Cmd) error, name string, args ...string) (Result, error) {
	cmd := command(ctx, name, args...)
	cmd.Env = f.Environ()
	if _, err := os.Stat(f.Dir); err == nil {
		cmd.Dir = f.Dir
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := run(cmd)
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: -1}
	if cmd.ProcessState != nil {
		r.Code = cmd.ProcessState.ExitCode()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return r, nil
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(r.Stderr, 2000))
	}
	return r, err
}

var errHalted = errors.New("the fleet is being removed")

// Halt ends the commands that run and lets no other begin, but those of Down: a `docker compose up` that goes
// on would bring back what Down removes.
func (f *Fleet) Halt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.halted = true
	for _, cancel := range f.running {
		cancel()
	}
}

func (f *Fleet) runUnlessHalted(cmd *exec.Cmd, cancel context.CancelFunc) error {
	f.mu.Lock()
	if f.halted {
		f.mu.Unlock()
		return errHalted
	}
	if f.running == nil {
		f.running = map[*exec.Cmd]context.CancelFunc{}
	}
	f.running[cmd] = cancel
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.running, cmd)
	}()
	return cmd.Run()
}

// command runs in a process group of its own, so that an interrupt from the terminal reaches this process
// alone, which then clears up; and a context that ends ends the whole group.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
