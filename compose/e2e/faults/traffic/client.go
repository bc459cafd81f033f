package traffic

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

// OtherPortHeader is put on the answer of a request that the first base could not answer.
const OtherPortHeader = "X-Faults-Other-Port"

var errSentAgain = errors.New("the connection broke, and Go's client sent the request again by itself")

// client sends a request once, and where it knows several bases once more to the next one.
type client struct {
	next  http.RoundTripper
	bases []string
}

func (c *client) RoundTrip(req *http.Request) (*http.Response, error) {
	body := req.GetBody
	resp, err := c.once(req)
	if err == nil || len(c.bases) < 2 || req.Context().Err() != nil {
		return resp, err
	}
	again := req.Clone(req.Context())
	if body != nil {
		if again.Body, err = body(); err != nil {
			return nil, err
		}
	}
	for i, base := range c.bases {
		if strings.TrimPrefix(base, "http://") == req.URL.Host {
			again.URL.Host = strings.TrimPrefix(c.bases[(i+1)%len(c.bases)], "http://")
			break
		}
	}
	again.Host = again.URL.Host
	if resp, err = c.once(again); err == nil {
		resp.Header.Set(OtherPortHeader, again.URL.Host)
	}
	return resp, err
}

// once is a round trip that Go's transport does not repeat: with GetBody unset it can't for a body, and where it
// did so for a GET the request counts as failed.
func (c *client) once(req *http.Request) (*http.Response, error) {
	var connections atomic.Int32
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connections.Add(1) },
	})
	out := req.WithContext(ctx)
	out.GetBody = nil
	resp, err := c.next.RoundTrip(out)
	if err == nil && connections.Load() > 1 {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // so that the connection is kept; the answer is of no use
		_ = resp.Body.Close()
		return nil, errSentAgain
	}
	return resp, err
}
