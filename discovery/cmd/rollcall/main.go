// Command rollcall looks into a mesh on any Consul: which services and instances there
// are, what a client would use and why, and what becomes of a call; and it makes members
// of programs that know nothing of Consul.
//
//	go install github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall@latest
//	rollcall ls
//
// Which Consul is asked say Consul's own CONSUL_* variables; without them it is the
// agent at 127.0.0.1:8500. What the commands tell comes from the rooms that a client is
// made of (watch, catalog, httpmesh), so it is what a client would do.
//
// The exit code is 0 if all is well, 1 if the answer is no (nothing found, a call that
// failed, a fault), 2 for wrong usage, 3 if Consul can't be asked, and 130 after an interrupt.
// That of register is its program's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// cli is the grammar: a field for each command.
type cli struct {
	globals

	Ls         lsCmd         `cmd:"" help:"List the services, or the instances of one."`
	Watch      watchCmd      `cmd:"" help:"Tell what changes, one line an event."`
	Resolve    resolveCmd    `cmd:"" help:"Show which instances a client would use, and why not the others."`
	Explain    explainCmd    `cmd:"" help:"Explain one instance: whether it is used, and what its checks say."`
	Call       callCmd       `cmd:"" help:"Send requests to a service through the mesh, and show what became of them."`
	Register   registerCmd   `cmd:"" help:"Make a program that knows nothing of Consul a member of the mesh."`
	Drain      drainCmd      `cmd:"" help:"Take an instance out of use without stopping it, by Consul's maintenance mode."`
	Undrain    undrainCmd    `cmd:"" help:"Put back an instance that was drained."`
	Doctor     doctorCmd     `cmd:"" help:"Look for what is wrong, and say what to do about it."`
	Completion completionCmd `cmd:"" help:"Print what has a shell complete the command's words."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
}

// globals are the flags of every command.
type globals struct {
	Timeout    time.Duration `default:"5s" placeholder:"5s" help:"How long to wait for an answer, of Consul or of a service."`
	Datacenter string        `placeholder:"NAME" help:"Datacenter to ask. Empty: the agent's own."`
	Verbose    bool          `short:"v" help:"Log what happens inside to standard error."`
}

// Validate is called by kong.
func (g *globals) Validate() error {
	if g.Timeout <= 0 {
		return fmt.Errorf("--timeout is %v; want more than 0", g.Timeout)
	}
	return nil
}

// The exit codes.
const (
	exitNo          = 1   // the answer is no
	exitUsage       = 2   // the command line or a variable is wrong
	exitNoConsul    = 3   // Consul can't be asked
	exitInterrupted = 130 // as shells say of SIGINT
)

// exitError is an error that has an exit code of its own. Without err nothing is
// printed: the command has said it already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func main() {
	ctx, stop := interruptible(context.Background())
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// interruptible returns a context that the first signal ends; the second one ends the
// process. stop gives the signals back.
func interruptible(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals, done := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range 2 {
			select {
			case <-signals:
				if ctx.Err() != nil {
					os.Exit(exitInterrupted)
				}
				cancel()
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel()
	}
}

// newParser returns the parser of the grammar. helped is called after the help was
// printed.
func newParser(c *cli, out, errs io.Writer, helped func()) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("rollcall"),
		kong.Description("Looks into a mesh on Consul: who is there, what a client would use and why, what becomes of a call. "+
			"Which Consul is asked say Consul's own CONSUL_* variables; without them it is 127.0.0.1:8500."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Writers(out, errs),
		kong.Exit(func(int) { helped() }),
	)
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errs io.Writer) int {
	var c cli
	helped := false
	parser, err := newParser(&c, out, errs, func() { helped = true })
	if err != nil {
		return fail(errs, err)
	}
	if len(args) > 0 && args[0] == completeWord {
		return complete(ctx, parser, args[1:], out)
	}
	parsed, err := parser.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return fail(errs, &exitError{exitUsage, fmt.Errorf("%w; see rollcall %s--help", err, commandOf(parsed, err))})
	}
	s, closeIdle, err := newSession(c.globals, in, out, errs)
	if err != nil {
		return fail(errs, &exitError{exitUsage, err})
	}
	defer closeIdle()
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(s)
	err = parsed.Run()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return exitInterrupted // whoever pressed ^C knows
	}
	return fail(errs, err)
}

// commandOf returns the words of the command that a wrong command line was for, with a
// space behind.
func commandOf(parsed *kong.Context, err error) string {
	if wrong, ok := errors.AsType[*kong.ParseError](err); ok && parsed == nil {
		parsed = wrong.Context
	}
	if parsed == nil || parsed.Selected() == nil {
		return ""
	}
	return parsed.Selected().Name + " "
}

// fail prints an error and returns its exit code: 0 of none.
func fail(errs io.Writer, err error) int {
	if err == nil {
		return 0
	}
	code := exitNo
	if exit, ok := errors.AsType[*exitError](err); ok {
		if code = exit.code; exit.err == nil {
			return code
		}
	}
	for n, line := range strings.Split(err.Error(), "\n") {
		if n == 0 {
			line = "rollcall: " + line
		}
		fmt.Fprintln(errs, clean(line))
	}
	return code
}
