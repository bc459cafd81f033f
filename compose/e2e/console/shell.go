package console

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Shell runs commands one after the other as a person in one terminal would: the folder and the variables that
// a command sets hold for the next one. It is not for several goroutines.
type Shell struct {
	state  string // a folder of its own, for what passes from one command to the next
	env    []string
	groups []int // process groups of the commands, for what they left in the background
}

// NewShell begins in dir with the environment env. Close must be called.
func NewShell(dir string, env []string) (*Shell, error) {
	state, err := os.MkdirTemp("", "console-")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(state, "cwd"), []byte(dir), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(state, "env"), nil, 0o600); err != nil {
		return nil, err
	}
	// On a pipe curl draws a progress meter that a terminal doesn't show.
	if err := os.WriteFile(filepath.Join(state, ".curlrc"), []byte("silent\nshow-error\n"), 0o600); err != nil {
		return nil, err
	}
	env = append(slices.Clip(env), "CURL_HOME="+state, "STATE="+state, "PAGER=cat", "TERM=dumb")
	return &Shell{state: state, env: env}, nil
}

// script runs the command between what is kept of the one before and what is kept for the next.
const script = `
cd "$(cat "$STATE/cwd")" || exit 125
. "$STATE/env"
set -a
eval "$COMMAND"
status=$?
set +a
pwd > "$STATE/cwd"
export -p | grep -vE '^declare -x (COMMAND|STATE|SHLVL|PWD|OLDPWD|_)(=|$)' > "$STATE/env"
exit $status
`

// Run one command and return what it printed.
func (s *Shell) Run(ctx context.Context, command string) (Output, error) {
	// Files, not pipes: a command that leaves something in the background is over when its shell is.
	var files [2]*os.File
	for i, name := range []string{"stdout", "stderr"} {
		f, err := os.Create(filepath.Join(s.state, name))
		if err != nil {
			return Output{}, err
		}
		defer f.Close() //nolint:errcheck // read by its name below
		files[i] = f
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Env = append(slices.Clip(s.env), "COMMAND="+command)
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return Output{}, err
	}
	s.groups = append(s.groups, cmd.Process.Pid)
	err := cmd.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end in time: %w", ctx.Err())
	}
	stdout, e1 := os.ReadFile(files[0].Name())
	stderr, e2 := os.ReadFile(files[1].Name())
	return Output{Stdout: string(stdout), Stderr: string(stderr)}, errors.Join(err, e1, e2)
}

// Close ends what the commands left in the background.
func (s *Shell) Close() error {
	for _, g := range s.groups {
		if err := syscall.Kill(-g, syscall.SIGTERM); err == nil {
			_ = syscall.Kill(-g, syscall.SIGCONT)
		}
	}
	return os.RemoveAll(s.state)
}

// Repeatable says whether a command may be run again when it printed something else than the document shows:
// what a person sees some seconds later is right too. It is for commands that only look.
func Repeatable(command string) bool {
	if strings.ContainsAny(command, ">&;\n") && !strings.Contains(command, "2>&1") {
		return false
	}
	for _, flag := range []string{" -X", " --request", " -d", " --data", " --json", " -T", " -F"} {
		if strings.Contains(command, flag) && strings.HasPrefix(command, "curl") {
			return false
		}
	}
	for _, prefix := range []string{"curl ", "dig ", "docker compose ps", "docker compose logs", "docker ps"} {
		if strings.HasPrefix(command, prefix) {
			return true
		}
	}
	return false
}
