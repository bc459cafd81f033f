//go:build unix

package member_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/member"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

// isProgram is the variable that makes the test's binary the program under test.
const isProgram = "ROLLCALL_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(isProgram) != "" {
		os.Exit(program(os.Args[1], os.Args[2]))
	}
	goleak.VerifyTestMain(m)
}

// program is one that knows nothing of Consul.
func program(what, argument string) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, member.Signals()...)
	switch what {
	case "end":
		code, err := strconv.Atoi(argument)
		if err != nil {
			return 99
		}
		return code
	case "echo":
		fmt.Fprintln(os.Stderr, argument)
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return 99
		}
		return 0
	case "serve":
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", argument)
		if err != nil {
			return 98
		}
		defer l.Close()
	}
	if syscall.Getpgrp() == os.Getpid() {
		fmt.Println("leads its group")
	}
	fmt.Println("runs")
	for s := range signals {
		fmt.Println("got", s)
		switch s {
		case syscall.SIGTERM, os.Interrupt:
			return 7
		case syscall.SIGUSR2:
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	return 97
}

// patience is how long anything here may take, on a machine that is busy.
const patience = time.Minute

// rig runs a member, and writes what happens to it into one text, that of its
// program included.
type rig struct {
	t       *testing.T
	story   logtest.Buffer
	signals chan os.Signal
	address string
	hangs   bool // a drain does not end by itself
	refuses error
	done    chan struct{}
	code    int
	err     error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	t.Setenv(isProgram, "yes")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return &rig{t: t, signals: make(chan os.Signal, 8), address: l.Addr().String(), done: make(chan struct{})}
}

func (r *rig) run(program ...string) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	r.t.Cleanup(func() {
		cancel()
		<-r.done
	})
	go func() {
		defer close(r.done)
		r.code, r.err = member.Run(ctx, member.Config{
			Program: program, In: strings.NewReader("input"), Out: &r.story, Errs: &r.story,
			Address: r.address, Signals: r.signals,
			Register: func() (member.Entry, error) {
				r.tell("registered")
				return r, r.refuses
			},
		})
	}()
}

func (r *rig) tell(what string) { fmt.Fprintln(&r.story, what) }

func (r *rig) Drain(ctx context.Context) error {
	r.tell("draining")
	if r.hangs {
		<-ctx.Done()
	}
	r.tell("drained")
	return nil
}

func (r *rig) Close() error {
	r.tell("deregistered")
	return nil
}

// await waits until that has happened.
func (r *rig) await(what string) {
	r.t.Helper()
	deadline, tick := time.NewTimer(patience), time.NewTicker(time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !slices.Contains(r.lines(), what) {
		select {
		case <-tick.C:
		case <-deadline.C:
			r.t.Fatalf("not %s within %v; so far:\n%s", what, patience, r.story.String())
		}
	}
}

// end waits for the member's end, with this code.
func (r *rig) end(code int) {
	r.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	select {
	case <-r.done:
	case <-deadline.C:
		r.t.Fatalf("has not ended within %v; so far:\n%s", patience, r.story.String())
	}
	if r.code != code {
		r.t.Errorf("got the code %d (%v); want %d", r.code, r.err, code)
	}
}

func (r *rig) lines() []string { return strings.Split(r.story.String(), "\n") }

// happened checks that these lines, and none of the others, are in the story, in
// this order.
func (r *rig) happened(want ...string) {
	r.t.Helper()
	words := []string{"registered", "draining", "drained", "deregistered", "got terminated", "got interrupt", "got hangup"}
	got := slices.DeleteFunc(r.lines(), func(line string) bool { return !slices.Contains(words, line) })
	if !slices.Equal(got, want) {
		r.t.Errorf("got %q; want %q", got, want)
	}
}

func TestProgramIsDrainedBeforeItIsToldToEndAndDeregisteredAfter(t *testing.T) {
	for _, s := range []os.Signal{syscall.SIGTERM, os.Interrupt} {
		t.Run(s.String(), func(t *testing.T) {
			r := newRig(t)
			r.run(os.Args[0], "serve", r.address)
			r.await("registered")
			r.await("runs")
			r.signals <- s
			r.end(7)
			r.happened("registered", "draining", "drained", "got "+s.String(), "deregistered")
		})
	}
}

func TestProgramThatEndsBeforeItsPortAnswersIsNotRegistered(t *testing.T) {
	r := newRig(t)
	r.run(os.Args[0], "end", "3")
	r.end(3)
	r.happened()
}

func TestProgramThatIsKilledIsDeregisteredAndItsSignalIsTheCode(t *testing.T) {
	r := newRig(t)
	r.run(os.Args[0], "serve", r.address)
	r.await("registered")
	r.await("runs")
	r.signals <- syscall.SIGUSR2 // at which it kills itself
	r.end(128 + int(syscall.SIGKILL))
	r.happened("registered", "deregistered")
}

func TestOtherSignalsGoToTheProgramAtOnce(t *testing.T) {
	r := newRig(t)
	r.run(os.Args[0], "serve", r.address)
	r.await("registered")
	r.await("runs")
	r.signals <- syscall.SIGHUP
	r.await("got hangup")
	r.signals <- syscall.SIGTERM
	r.end(7)
	r.happened("registered", "got hangup", "draining", "drained", "got terminated", "deregistered")
}

func TestSecondSignalCutsTheDrainShort(t *testing.T) {
	r := newRig(t)
	r.hangs = true
	r.run(os.Args[0], "serve", r.address)
	r.await("registered")
	r.await("runs")
	r.signals <- os.Interrupt
	r.await("draining")
	r.signals <- syscall.SIGTERM
	r.end(7)
	r.happened("registered", "draining", "drained", "got terminated", "deregistered")
}

func TestProgramThatDiesDuringTheDrainIsNotWaitedFor(t *testing.T) {
	r := newRig(t)
	r.hangs = true
	r.run(os.Args[0], "serve", r.address)
	r.await("registered")
	r.await("runs")
	r.signals <- syscall.SIGTERM
	r.await("draining")
	r.signals <- syscall.SIGUSR2
	r.end(128 + int(syscall.SIGKILL))
	r.happened("registered", "draining", "drained", "deregistered")
}

func TestSignalBeforeThePortAnswersEndsTheProgramUnregistered(t *testing.T) {
	r := newRig(t)
	r.run(os.Args[0], "stay", "")
	r.await("runs")
	r.signals <- syscall.SIGTERM
	r.end(7)
	r.happened("got terminated")
}

func TestProgramDoesNotGetWhatTheTerminalSendsToOurGroup(t *testing.T) {
	r := newRig(t)
	r.run(os.Args[0], "stay", "")
	r.await("leads its group")
	r.await("runs")
	r.signals <- syscall.SIGTERM
	r.end(7)
}

func TestInputAndOutputsAreThePrograms(t *testing.T) {
	r := newRig(t)
	r.run(os.Args[0], "echo", "told")
	r.end(0)
	if got := r.story.String(); !strings.Contains(got, "input") || !strings.Contains(got, "told\n") {
		t.Errorf("got %q; want what it read, and what it told", got)
	}
}

func TestAddressThatAnswersAlreadyIsNotTakenForThePrograms(t *testing.T) {
	r := newRig(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.run(os.Args[0], "stay", "")
	r.end(1)
	if !errors.Is(r.err, member.ErrTaken) || !strings.Contains(r.err.Error(), r.address) {
		t.Errorf("got %v; want ErrTaken with the address", r.err)
	}
	r.happened()
}

func TestProgramThatCannotBeStartedHasTheCodeOfAShell(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for program, code := range map[string]int{"no-such-program-anywhere": 127, filepath.Join(t.TempDir(), "none"): 127, plain: 126} {
		t.Run(filepath.Base(program), func(t *testing.T) {
			r := newRig(t)
			r.run(program)
			r.end(code)
			if r.err == nil || !strings.Contains(r.err.Error(), program) {
				t.Errorf("got %v; want the program's name", r.err)
			}
		})
	}
}

func TestProgramThatCannotBeRegisteredIsEnded(t *testing.T) {
	r := newRig(t)
	r.refuses = errors.New("registration: Service is wrong")
	r.run(os.Args[0], "serve", r.address)
	r.end(1)
	if !errors.Is(r.err, r.refuses) {
		t.Errorf("got %v; want %v", r.err, r.refuses)
	}
	if got := r.lines(); slices.Contains(got, "deregistered") || !slices.Contains(got, "registered") {
		t.Errorf("got %q; want it asked for, and not taken back", got)
	}
}

func TestProgramElsewhereIsAMemberFromItsAnswerToASignal(t *testing.T) {
	r := newRig(t)
	r.run()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r.await("registered")
	r.signals <- os.Interrupt
	r.end(0)
	r.happened("registered", "draining", "drained", "deregistered")
}
