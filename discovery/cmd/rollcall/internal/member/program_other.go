//go:build !unix

package member

import (
	"os"
	"syscall"
)

// Signals are those that Run wants to get.
func Signals() []os.Signal { return []os.Signal{os.Interrupt} }

func ownGroup() *syscall.SysProcAttr { return nil }

// codeOf is the exit code of a program that has ended.
func codeOf(state *os.ProcessState) int { return state.ExitCode() }
