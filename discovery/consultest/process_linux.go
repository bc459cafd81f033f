package consultest

import "syscall"

// attributes gives the child a group of its own, and lets it die with us even
// when the test panics.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
