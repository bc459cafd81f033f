package httpmesh

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
)

// shakeHands makes a connection a TLS one, and closes it if that fails.
func shakeHands(ctx context.Context, raw net.Conn, cfg *tls.Config) (net.Conn, *tls.ConnectionState, error) {
	secure := tls.Client(raw, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, nil, &handshakeError{err}
	}
	state := secure.ConnectionState()
	return secure, &state, nil
}

// handshakeError marks the failure of a handshake.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// untrusted reports whether it has failed because of what the two said: a
// certificate that is not believed, ours or theirs, or a peer that does not speak
// TLS. What a network can do is none of it.
func (e *handshakeError) untrusted() bool {
	err := e.err
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op == "remote error" || op.Op == "local error" // crypto/tls's word for an alert
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	for _, network := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrDeadlineExceeded, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, network) {
			return false
		}
	}
	return true
}

// refusedByAlert reports whether the peer has ended a handshake that was over for
// us: in TLS 1.3 a server says that it does not believe our certificate when we may
// have sent already. It has not looked at what we sent.
func (c *conn) refusedByAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error" && c.tls != nil && c.received.Load() == 0
}

// streamError has the shape of net/http's error of an HTTP/2 stream, which
// errors.As fills by it (net/http, h2_error.go).
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "" }

// refusedStream is REFUSED_STREAM (RFC 9113, section 7).
const refusedStream = 7

// notProcessed reports whether HTTP/2 says that a request was not begun: the stream
// was refused, or came after those that a connection which is closed will serve
// (GOAWAY; RFC 9113, sections 8.7 and 6.8). Go has no name for the latter, only a
// text.
func notProcessed(err error) bool {
	if e, ok := errors.AsType[streamError](err); ok {
		return e.Code == refusedStream
	}
	return strings.HasPrefix(err.Error(), "http2: Transport received ") && strings.Contains(err.Error(), "GOAWAY")
}
