// Package member makes a program that knows nothing of Consul a member of the
// mesh: it is registered when its port answers, drained before it is told to end,
// and deregistered when it has ended.
//
// [Run] starts the program, or waits for one that runs elsewhere, and returns when
// it is all over. A program that ends before its port answers was never registered.
package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/rollcall-mesh/rollcall/internal/pause"
)

// Entry is what a member has in Consul: a registration.Registration.
type Entry interface {
	// Drain has Consul say that the member is leaving, and waits until others know.
	Drain(ctx context.Context) error
	// Close deregisters.
	Close() error
}

// Config says which program, and how it is registered.
type Config struct {
	// Program is its name, which is looked up on the PATH, and its arguments. nil
	// means that it runs elsewhere.
	Program []string
	// In is the program's standard input, unless it is a terminal: then the program
	// has none, since what is typed there, Ctrl-C above all, is for Run. Out and Errs
	// are its outputs.
	In        io.Reader
	Out, Errs io.Writer
	// Address is host:port of what the program serves.
	Address string
	// Register begins the member's entry; required. It is called once, when Address
	// answers.
	Register func() (Entry, error)
	// Signals are those that Run got; required. Of [Signals], the ones that ask to
	// stop lead to a drain, and go to the program when that is over; one more cuts the
	// drain short. All others go to the program at once. To one that runs elsewhere
	// none is passed on.
	Signals <-chan os.Signal
	// Log is told of a port that does not answer. nil means slog.Default().
	Log *slog.Logger
}

// ErrTaken is the error, wrapped, of an address that answers before the program was
// started: it would be taken for the program's.
var ErrTaken = errors.New("something answers there already")

const (
	// Exit codes of a program that was not started, as shells have them.
	notExecutable, notFound = 126, 127

	// dialLimit is how long an address may take to answer. A registration's Ready
	// has a second.
	dialLimit = 900 * time.Millisecond
	// pollInterval is the time between two looks at a port that does not answer yet.
	pollInterval = 100 * time.Millisecond
	// silentAfter is when a port that does not answer is worth a warning.
	silentAfter = 10 * time.Second
)

// Answers returns nil if a connection to the address can be made now.
func Answers(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Run is a member's life, from its program's start to its end. The code is the one to
// exit with: the program's own, 128 and the signal's number if that ended it, or 0 of
// one that runs elsewhere. The error says what kept the program from being a member.
// The end of ctx kills the program.
func Run(ctx context.Context, cfg Config) (code int, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	l := &life{cfg: cfg}
	if len(cfg.Program) > 0 {
		if Answers(ctx, cfg.Address) == nil {
			return 1, fmt.Errorf("start %s: %s: %w", cfg.Program[0], cfg.Address, ErrTaken)
		}
		if l.program, err = start(ctx, cfg); err != nil {
			code = notExecutable
			if missing(err) {
				code = notFound
			}
			return code, fmt.Errorf("start %s: %w", cfg.Program[0], err)
		}
		l.ended = l.program.ended
	}
	return l.run(ctx)
}

// life is what Run knows of a member.
type life struct {
	cfg     Config
	program *program        // nil: it runs elsewhere
	ended   <-chan struct{} // closed when the program has ended; nil: it runs elsewhere
	stop    os.Signal       // the latest that asked to stop
}

func (l *life) run(ctx context.Context) (int, error) {
	if what := l.untilAnswers(ctx); what != itHappened {
		if what == programEnded {
			l.cfg.Log.Warn("the program ended before its port answered: it was not registered", "program", l.cfg.Program[0], "address", l.cfg.Address)
		}
		return l.finish(ctx, what), nil
	}
	entry, err := l.cfg.Register()
	if err != nil {
		l.stop = syscall.SIGTERM
		l.finish(ctx, askedToStop)
		return 1, err
	}
	what := l.until(ctx, nil)
	if what == askedToStop {
		what = l.drain(ctx, entry)
	}
	code := l.finish(ctx, what)
	if err = entry.Close(); err != nil && l.program == nil {
		code = 1
	}
	return code, err
}

// event is what a wait of until ended with.
type event int

const (
	itHappened   event = iota // what was waited for
	askedToStop               // by a signal, or the context
	programEnded              // by itself, as far as is known
)

// until waits for what, and passes signals on to the program meanwhile.
func (l *life) until(ctx context.Context, what <-chan struct{}) event {
	for {
		select {
		case <-l.ended: // whatever else there is
			return programEnded
		default:
		}
		select {
		case <-l.ended:
			return programEnded
		case <-what:
			return itHappened
		case s := <-l.cfg.Signals:
			if stops(s) {
				l.stop = s
				return askedToStop
			}
			l.pass(s)
		case <-ctx.Done():
			return askedToStop
		}
	}
}

// stops reports whether a signal asks the program to end.
func stops(s os.Signal) bool { return s == os.Interrupt || s == syscall.SIGTERM }

func (l *life) pass(s os.Signal) {
	if l.program != nil && s != nil {
		l.program.signal(s)
	}
}

// untilAnswers waits until the member's address answers.
func (l *life) untilAnswers(ctx context.Context) event {
	polling, cancel := context.WithCancel(ctx)
	answers := make(chan struct{})
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		began, warned := time.Now(), false
		for polling.Err() == nil {
			err := Answers(polling, l.cfg.Address)
			if err == nil {
				close(answers)
				return
			}
			if !warned && time.Since(began) >= silentAfter {
				warned = true
				l.cfg.Log.Warn("the port does not answer yet; it is registered when it does", "address", l.cfg.Address, "err", err)
			}
			_ = pause.For(polling, pollInterval, nil)
		}
	}()
	what := l.until(ctx, answers)
	cancel()
	<-polled
	return what
}

// drain has the entry say that the member leaves, until that is done, the program has
// ended, or another signal is in a hurry.
func (l *life) drain(ctx context.Context, entry Entry) event {
	draining, cancel := context.WithCancel(ctx)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_ = entry.Drain(draining) // cut short, or as done as it can be
	}()
	what := l.until(ctx, drained)
	cancel()
	<-drained
	return what
}

// finish ends the program, if it has not ended, and returns its code. Each further
// signal goes to it.
func (l *life) finish(ctx context.Context, what event) int {
	if l.program == nil {
		return 0
	}
	for what != programEnded {
		l.pass(l.stop)
		// Its own end alone is waited for: a context that has ended kills it.
		what = l.until(context.WithoutCancel(ctx), nil)
	}
	return l.program.code
}
