package tries

import (
	"errors"
	"syscall"
)

// OwnFault reports whether a dial failed for a lack that is this process's or
// this machine's.
func OwnFault(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
