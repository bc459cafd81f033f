//go:build !linux

package grpcmesh

import "syscall"

// control sets nothing: TCP_USER_TIMEOUT is Linux's. Elsewhere the system's own
// time-outs end a connection to a host that is gone.
var control func(network, address string, c syscall.RawConn) error
