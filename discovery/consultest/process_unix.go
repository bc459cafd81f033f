//go:build unix

package consultest

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

func (p *process) interrupt() error { return p.signal(syscall.SIGTERM) }
func (p *process) resume() error    { return p.signal(syscall.SIGCONT) }

// pause returns when the process stands still: a thread of it that runs may go
// on for a while after the signal.
func (p *process) pause() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !p.stopped() {
		select {
		case <-p.ended:
			return os.ErrProcessDone
		case <-limit.C:
			return fmt.Errorf("it has not stopped within %v", stopLimit)
		case <-tick.C:
		}
	}
	return nil
}

// kill ends the group, paused or not. That it is gone already is no error.
func (p *process) kill() { _ = p.signal(syscall.SIGKILL) }

func (p *process) signal(s syscall.Signal) error {
	select {
	case <-p.ended:
		return os.ErrProcessDone
	default:
		return syscall.Kill(-p.cmd.Process.Pid, s)
	}
}
