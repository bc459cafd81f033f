package httpmesh

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/internal/tries"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// call prepares the exchange of a call of gRPC.
func (x *exchange) call() {
	if wait, ok := grpcwire.Timeout(x.r.Header); ok {
		if limit := x.start.Add(wait); x.Limit.IsZero() || limit.Before(x.Limit) {
			x.Limit = limit
		}
	}
	if x.body.single() {
		x.body.kept = newKept()
	}
}

// callHeader makes a header that of a call.
func (x *exchange) callHeader(h http.Header) {
	delete(h, TimeoutHeader)
	if !x.Limit.IsZero() {
		h[grpcwire.TimeoutHeader] = []string{grpcwire.TimeoutValue(time.Until(x.Limit))}
	}
	h["Te"] = []string{"trailers"} // some servers refuse a call without
}

// callAnswer is what is known of an answer to a call.
type callAnswer struct {
	status grpcwire.Status
	known  bool // a message has come, or how the call has ended
	broken error
	body   *peekedBody
}

// begunCode says what an answer to a call is whose header has come. How a call has ended
// stands in the trailer, or in a header without a body. If the call can be sent again it
// is waited for a moment which of a message and the end comes first; else the header goes
// on at once.
func (a *attempt) begunCode(resp *http.Response) outcome.Code {
	if !grpcwire.Is(resp.Header) {
		return outcome.Error
	}
	a.call = new(callAnswer)
	if s, ok := grpcwire.StatusOf(resp.Header); ok {
		a.call.status, a.call.known = s, true
		return a.callCode(resp)
	}
	a.call.body = &peekedBody{ReadCloser: resp.Body, from: resp, to: a.resp}
	a.resp.Body = a.call.body
	if a.x.body.once != nil && !a.x.body.kept.isWhole() || !a.call.body.peek() {
		return a.namedCode(resp, outcome.OK)
	}
	a.call.known = true
	if a.call.broken = a.call.body.failed(); a.call.broken != nil {
		return a.errorCode(a.call.broken)
	}
	if !a.call.body.isEmpty() {
		return a.namedCode(resp, outcome.OK)
	}
	a.resp.Trailer = resp.Trailer
	a.call.status = trailing(resp)
	return a.callCode(resp)
}

// trailing is the status in the trailer of an answer that has ended.
func trailing(resp *http.Response) grpcwire.Status {
	s, ok := grpcwire.StatusOf(resp.Trailer)
	if !ok {
		s.Code = grpcwire.Unknown
	}
	return s
}

// callCode says what the answer is to a call that ended without a message.
func (a *attempt) callCode(resp *http.Response) (code outcome.Code) {
	code, a.Final = tries.OfStatus(a.call.status, a.x.Limit, a.Lease.Endpoint().Instance().Missing())
	return a.namedCode(resp, code)
}

// namedCode is the code, unless another server has answered.
func (a *attempt) namedCode(resp *http.Response, code outcome.Code) outcome.Code {
	if a.foreign(resp) {
		return outcome.Foreign
	}
	return code
}

// endCode says what the end of a call proves of which the header alone was known; code
// says how its body has ended.
func (a *attempt) endCode(code outcome.Code) outcome.Code {
	if code != outcome.OK {
		return code
	}
	a.call.status = trailing(a.resp)
	code = a.callCode(a.resp)
	if code == outcome.OK || a.call.body.isEmpty() {
		a.Balancer.Note(a.Lease.Endpoint(), a.result(code, 0)) // the first that is known of it
	}
	return outcome.None
}

// peekedBody is a body whose first bytes can be waited for before it is read. The
// trailer comes with its end, which may be while the caller looks at the answer; so
// that is another one.
type peekedBody struct {
	io.ReadCloser
	from, to *http.Response // the one that came, and the caller's
	peeked   chan struct{}  // closed when the first bytes were read, or could not be; nil: nobody has asked
	ahead    []byte         // was read, and not passed on so far
	err      error
	moved    bool // a byte has come
}

// firstRead is the room for the first bytes: more than common answers have.
const firstRead = 1 << 10

// peek waits a moment for the first bytes or the end, and reports whether one has come.
// The goroutine ends with that, or with the body's Close.
func (b *peekedBody) peek() bool {
	b.peeked = make(chan struct{})
	go func() {
		defer close(b.peeked)
		first := make([]byte, firstRead)
		n, err := b.ReadCloser.Read(first)
		b.ahead, b.err, b.moved = first[:n], err, n > 0
	}()
	timer := time.NewTimer(smallPatience)
	defer timer.Stop()
	select {
	case <-b.peeked:
		return true
	case <-timer.C:
		return false
	}
}

// failed returns why neither a byte nor the end has come, after peek; nil if one has.
func (b *peekedBody) failed() error {
	if b.moved || errors.Is(b.err, io.EOF) {
		return nil
	}
	return b.err
}

// isEmpty reports whether no byte has come, after peek or the end.
func (b *peekedBody) isEmpty() bool {
	if b.peeked != nil {
		<-b.peeked
	}
	return !b.moved
}

func (b *peekedBody) Read(p []byte) (n int, err error) {
	if b.peeked != nil {
		<-b.peeked // which Close ends
	}
	if n, err = copy(p, b.ahead), b.err; n > 0 {
		if b.ahead = b.ahead[n:]; len(b.ahead) > 0 {
			return n, nil
		}
	} else if err == nil {
		n, err = b.ReadCloser.Read(p)
		b.moved = b.moved || n > 0
	}
	if errors.Is(err, io.EOF) {
		b.to.Trailer = b.from.Trailer
	}
	return n, err
}
