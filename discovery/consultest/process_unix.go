//go:build unix

package consultest

import (
	"os"
	"syscall"
)

func (p *process) interrupt() error { return p.signal(syscall.SIGTERM) }
func (p *process) pause() error     { return p.signal(syscall.SIGSTOP) }
func (p *process) resume() error    { return p.signal(syscall.SIGCONT) }

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
