package member

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"time"
)

// copyLimit is how long the program's outputs are read after its end, where they are
// no files and something that it has started holds them open.
const copyLimit = time.Second

// program is one that was started.
type program struct {
	cmd   *exec.Cmd
	ended chan struct{}
	code  int // set before ended is closed
}

// start starts the program in a process group of its own, so that what a terminal
// sends to ours (Ctrl-C) does not reach it before it was drained.
func start(ctx context.Context, cfg Config) (*program, error) {
	cmd := exec.CommandContext(ctx, cfg.Program[0], cfg.Program[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = cfg.In, cfg.Out, cfg.Errs
	if terminal(cfg.In) {
		cmd.Stdin = nil // a group that is not in front would be stopped by reading it
	}
	cmd.SysProcAttr = ownGroup()
	cmd.WaitDelay = copyLimit
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &program{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		_ = cmd.Wait() // what is to be known is in the state
		p.code = codeOf(cmd.ProcessState)
	}()
	return p, nil
}

// signal passes one on to the program itself, as a supervisor does: what it has
// started is its own to tell. That it has ended meanwhile is no error.
func (p *program) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// terminal reports whether an input is one, or another device, which has no end.
func terminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// missing reports whether a program was not started because there is none.
func missing(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}
