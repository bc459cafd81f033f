package gateway

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/observability/logging"
	"github.com/rollcall-mesh/rollcall/services/internal/web"
)

// flushInterval is how long the header of an answer of known length may wait for
// the first piece of its body. Most such answers are over before, and go out in
// one packet. Streams, whose length is not known, go on piece by piece whatever
// it is (httputil.ReverseProxy does that by itself).
const flushInterval = 2 * time.Millisecond

// buffers is a httputil.BufferPool.
type buffers struct{ pool sync.Pool }

// bufferSize is the size that httputil.ReverseProxy takes without a pool.
const bufferSize = 32 << 10

func (b *buffers) Get() []byte {
	if kept, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return kept[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }

// answered is called with the header of each answer, before it is copied. An
// error closes the answer's body.
func answered(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	x.clock.stop()
	x.length = resp.ContentLength
	switch {
	case x.report.Outcome == outcome.Misdirected:
		// Each address that was tried belongs to another service by now. The
		// client asked for nothing wrong, so it is not told 421.
		return errMisdirected
	case resp.StatusCode == http.StatusSwitchingProtocols:
		// httputil.ReverseProxy refuses it too, and leaves the connection open.
		if !x.mayBecome(resp.Header) {
			return errUnasked
		}
	}
	dropOurs(resp.Header)
	dropOurs(resp.Trailer)                   // those announced
	resp.Header.Del(logging.RequestIDHeader) // we have set ours, which is the same
	for _, name := range [...]string{"Location", "Content-Location"} {
		if value := resp.Header.Get(name); value != "" {
			resp.Header.Set(name, x.outside(value))
		}
	}
	resp.Header.Del(ServedByHeader)
	if id := x.servedBy(); id != "" {
		resp.Header.Set(ServedByHeader, id)
		web.NotePeer(resp.Request.Context(), id)
	}
	return nil
}

// mayBecome reports whether a 101 with this header switches to the protocol that
// was asked for.
func (x *exchange) mayBecome(h http.Header) bool {
	protocol := ""
	for _, option := range list(h["Connection"]) {
		if strings.EqualFold(option, "Upgrade") {
			protocol = h.Get("Upgrade")
		}
	}
	return protocol != "" && strings.EqualFold(protocol, x.upgrade)
}

// dropOurs takes off what services say to each other, in a header or a trailer.
func dropOurs(h http.Header) {
	for name := range h {
		if strings.HasPrefix(strings.TrimPrefix(name, http.TrailerPrefix), "Rollcall-") {
			delete(h, name)
		}
	}
}

// answerWriter is the one way to the client, for each status there is, those
// before the last one (1xx) included.
type answerWriter struct {
	http.ResponseWriter
	x       *exchange
	body    *watchedBody // of the request, if its connection may serve another one; else nil
	written int64
}

// Unwrap is for http.ResponseController.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answerWriter) WriteHeader(status int) {
	if status == http.StatusContinue {
		return // net/http says so when the body is read, which comes of it; here it might be said twice
	}
	dropOurs(w.Header())
	if status < http.StatusOK {
		// httputil.ReverseProxy adds what the instance says to what we have set.
		h := w.Header()
		h.Del(ServedByHeader)
		if ids := h[logging.RequestIDHeader]; len(ids) > 1 {
			h[logging.RequestIDHeader] = ids[:1]
		}
	}
	if status >= http.StatusOK && w.body != nil && !w.body.ended.Load() {
		// The rest of the body is not waited for: it may never come, and the end
		// of the answer with it. What does come is no next request (in a
		// full-duplex handler net/http panics over it, golang/go#68560).
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write lets no piece wait for the next; the last one goes out with the end.
func (w *answerWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.written += int64(n)
	if err == nil && w.written < w.x.length {
		err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	return n, err
}
