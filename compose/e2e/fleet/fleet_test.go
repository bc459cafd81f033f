package fleet

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFreePortsAreFreeAndDifferent(t *testing.T) {
	p, err := FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]string{}
	for name, port := range p.Env() {
		if other, ok := seen[port]; ok || port == 0 {
			t.Errorf("%s is %d, as is %s", name, port, other)
		}
		seen[port] = name
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = l.Close()
	}
}

func TestEnvironHidesTheOtherFleetsSettings(t *testing.T) {
	t.Setenv("ROLLCALL_GATEWAY_PORT", "1")
	t.Setenv("ROLLCALL_ORDER_REPLICAS", "7")
	t.Setenv("COMPOSE_FILE", "other.yaml")
	t.Setenv("MAKEFLAGS", "-n")
	f := &Fleet{Project: "rollcall-e2e-abc", Ports: Defaults}
	env := f.Environ()
	for _, kv := range env {
		if strings.HasPrefix(kv, "ROLLCALL_ORDER_REPLICAS") || strings.HasPrefix(kv, "COMPOSE_FILE") ||
			strings.HasPrefix(kv, "MAKEFLAGS") || kv == "ROLLCALL_GATEWAY_PORT=1" {
			t.Errorf("the environment has %s", kv)
		}
	}
	for _, want := range []string{"COMPOSE_PROJECT_NAME=rollcall-e2e-abc", "ROLLCALL_GATEWAY_PORT=8080", "ROLLCALL_VERSION=0.0.0-e2e-abc"} {
		if !slices.Contains(env, want) {
			t.Errorf("the environment has no %s", want)
		}
	}
}

func TestCopyCheckoutLeavesIgnoredFilesBehind(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	for name, text := range map[string]string{".gitignore": ".env\n", ".env": "secret", "a/b.sh": "#!/bin/sh\n", "gone": ""} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "gone"}} {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", from}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	if err := os.Remove(filepath.Join(from, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := copyCheckout(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(to, "a/b.sh")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("a/b.sh: %v, %v; want a copy with its mode", info, err)
	}
	for _, name := range []string{".env", ".git", "gone"} {
		if _, err := os.Stat(filepath.Join(to, name)); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
}

func TestCommandEndsItsWholeGroupWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd := command(ctx, "sh", "-c", "sleep 300 & echo $!; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 20)
	n, err := out.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err == nil {
		t.Error("a command whose context ended gave no error")
	}
	for range 100 {
		// A process that is dead but not reaped by init yet is a zombie: state Z.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("the child %d of a cancelled command still runs", child)
}

func TestDefaultsAreAFleetsOwnPorts(t *testing.T) {
	if got := len(Defaults.Env()); got != 7 {
		t.Errorf("%d ports; want 7", got)
	}
}

func TestHaltEndsWhatRunsAndLetsNothingBegin(t *testing.T) {
	f := &Fleet{Project: "rollcall-e2e-abc", Dir: t.TempDir()}
	begun := filepath.Join(f.Dir, "begun")
	ended := make(chan error, 1)
	go func() {
		_, err := f.Run(t.Context(), "sh", "-c", "touch begun; sleep 300")
		ended <- err
	}()
	for range 500 {
		if _, err := os.Stat(begun); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.Halt()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a command that was ended by Halt gave no error")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a command went on after Halt")
	}
	if _, err := f.Run(t.Context(), "true"); !errors.Is(err, errHalted) {
		t.Errorf("a command after Halt: %v; want %v", err, errHalted)
	}
}
