package consultest

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// pipeListener is a net.Listener in memory. Its channels belong to the bubble
// it was made in, so that waiting on it is durable blocking.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	close sync.Once
	ports atomic.Uint32
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	// The addresses look like TCP's: callers find their own address by
	// looking at a connection towards Consul.
	client := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000 + int(l.ports.Add(1)%20000)}
	select {
	case l.conns <- pipeConn{Conn: far, local: l.Addr(), remote: client}:
		return pipeConn{Conn: near, local: client, remote: l.Addr()}, nil
	case <-l.done:
		return nil, errRefused()
	case <-ctx.Done():
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: l.Addr(), Err: context.Cause(ctx)}
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8500}
}

type pipeConn struct {
	net.Conn
	local, remote net.Addr
}

func (c pipeConn) LocalAddr() net.Addr  { return c.local }
func (c pipeConn) RemoteAddr() net.Addr { return c.remote }

func errRefused() error {
	return &net.OpError{
		Op: "dial", Net: "tcp",
		Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8500},
		Err:  os.NewSyscallError("connect", syscall.ECONNREFUSED),
	}
}
