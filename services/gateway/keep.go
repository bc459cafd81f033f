package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// maxKept is the size of the largest body that is read before it is sent on, in
// bytes. It bounds what a client can make us hold.
const maxKept = 64 << 10

// keep reads the body of a request that has an Idempotency-Key, so that it can
// be sent again when an instance fails after it has read it. Bodies that are
// larger, or of unknown length, stream as those of any other request: what is
// lost with their instance is lost. So does the body of a client that waits for
// 100 Continue: whether it is wanted is for the service to say.
func (x *exchange) keep(r *http.Request) error {
	if r.Header.Get("Idempotency-Key") == "" || r.Header.Get("Expect") != "" || r.ContentLength <= 0 || r.ContentLength > maxKept {
		return nil
	}
	kept := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, kept); err != nil {
		return fmt.Errorf("read the body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(kept))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(kept)), nil }
	x.kept = true
	return nil
}

// streams reports whether the request's body goes on while it comes in.
func (x *exchange) streams() bool { return x.body != nil && !x.kept }
