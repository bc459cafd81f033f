package web

import (
	"net/http"

	"github.com/rollcall-mesh/rollcall/observability/logging"
)

// PassRequestID returns a RoundTripper that sends the request ID of each
// request's context along, so that the logs of all services tell one story.
func PassRequestID(next http.RoundTripper) http.RoundTripper { return passOn{next} }

type passOn struct{ next http.RoundTripper }

func (p passOn) RoundTrip(r *http.Request) (*http.Response, error) {
	id := logging.RequestID(r.Context())
	if id == "" || r.Header.Get(RequestIDHeader) != "" {
		return p.next.RoundTrip(r)
	}
	out := *r // a RoundTripper must not change the request
	out.Header = r.Header.Clone()
	if out.Header == nil {
		out.Header = http.Header{}
	}
	out.Header.Set(RequestIDHeader, id)
	return p.next.RoundTrip(&out)
}
