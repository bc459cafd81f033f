//go:build unix

package member

import (
	"os"
	"syscall"
)

// Signals are those that Run wants to get. SIGKILL and SIGSTOP can't be passed on;
// SIGTSTP stops rollcall alone, and SIGWINCH, which a terminal sends when it is
// resized, means the end to some servers.
func Signals() []os.Signal {
	return []os.Signal{
		syscall.SIGTERM, syscall.SIGINT,
		syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	}
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// codeOf is the exit code of a program that has ended, as a shell tells it.
func codeOf(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}
