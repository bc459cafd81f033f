package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxKept is the size of the largest body that is read before it is sent on, in
// bytes. It bounds what a client can make us hold.
const maxKept = 64 << 10

// firstKept is the memory that is taken for a body before its first byte is
// there. What a client claims to send costs nothing beyond.
const firstKept = 1 << 10

// errLength is the error of a body that is not as long as its request says. (Go's
// own server gives none such.)
var errLength = errors.New("the body is not as long as its length says")

// keep reads a small body before a service is asked. A client that sends slowly
// then holds nothing behind the door, and the request can be sent again: to
// another instance when one did no work, and with an Idempotency-Key also when
// one fails after it has read the body. Bodies that are larger, or of unknown
// length, stream. So does the body of a client that waits for 100 Continue:
// whether it is wanted is for the service to say.
func (x *exchange) keep(r *http.Request) error {
	if r.Header.Get("Expect") != "" || r.ContentLength <= 0 || r.ContentLength > maxKept {
		return nil
	}
	var kept bytes.Buffer
	kept.Grow(int(min(r.ContentLength, firstKept)) + bytes.MinRead)
	n, err := kept.ReadFrom(io.LimitReader(r.Body, r.ContentLength+1))
	if err == nil && n != r.ContentLength {
		err = errLength
	}
	if err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	again := func() io.ReadCloser { return io.NopCloser(bytes.NewReader(kept.Bytes())) }
	r.GetBody = func() (io.ReadCloser, error) { return again(), nil }
	x.kept = again
	return nil
}

// streams reports whether the request's body goes on while it comes in.
func (x *exchange) streams() bool { return x.body != nil && x.kept == nil }
