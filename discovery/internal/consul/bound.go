package consul

import (
	"errors"
	"fmt"
	"io"
	"net/http"
)

// MaxAnswer bounds the body of an answer, in bytes and after decompression:
// some 90,000 instances. What is longer is no answer of a Consul's about one
// service, and must not cost a process its memory.
const MaxAnswer = 256 << 20

// ErrTooLarge is the error, wrapped, of a call whose answer is longer than
// MaxAnswer.
var ErrTooLarge = errors.New("the answer is too large")

// Bound returns a transport whose answers end with ErrTooLarge after so many
// bytes of their body.
func Bound(next http.RoundTripper, most int64) http.RoundTripper { return bounded{next, most} }

type bounded struct {
	next http.RoundTripper
	most int64
}

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = &boundedBody{ReadCloser: resp.Body, most: b.most, left: b.most}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	most, left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	// One byte more than is left tells an answer that is too long from one that
	// just fits.
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		err = fmt.Errorf("%w: over %d bytes", ErrTooLarge, b.most)
	}
	b.left -= int64(n)
	return n, err
}
