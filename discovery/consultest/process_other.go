//go:build !unix

package consultest

import (
	"errors"
	"os"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

func (p *process) interrupt() error { return p.cmd.Process.Signal(os.Interrupt) }
func (p *process) pause() error     { return errors.ErrUnsupported }
func (p *process) resume() error    { return errors.ErrUnsupported }
func (p *process) kill()            { _ = p.cmd.Process.Kill() }
