package grpcmesh

import (
	"errors"
	"syscall"
	"time"
)

// userTimeout is how long what was sent may go without the other side's kernel
// saying that it came (TCP_USER_TIMEOUT, RFC 5482), before the connection is broken:
// a host that is gone says nothing, and Linux would ask it for a quarter of an hour.
const userTimeout = 20 * time.Second

const tcpUserTimeout = 0x12 // TCP_USER_TIMEOUT in linux/tcp.h; package syscall lacks it

// control sets the socket's option. A network without it is none of ours.
func control(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout.Milliseconds()))
	})
	return errors.Join(err, set)
}
