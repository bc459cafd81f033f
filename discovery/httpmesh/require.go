package httpmesh

import (
	"net/http"
	"strings"

	"github.com/rollcall-mesh/rollcall/internal/clip"
	"github.com/rollcall-mesh/rollcall/internal/problem"
)

// ServiceHeader names the service a request is meant for. Every request of a
// Transport carries it. In an answer it names the service that has answered.
const ServiceHeader = "Rollcall-Service"

// RequireService keeps requests for other services from next: addresses are reused, and
// what was an order may be a user a second later. A request whose ServiceHeader
// names another service than this one (case does not matter) is answered 421
// Misdirected Request (RFC 9110, section 15.5.20) with a problem (RFC 9457), and
// its connection is closed, so that the client's next one goes where the service
// is now. A request without the header is served: its sender has chosen the
// address itself, as a health check does.
//
// An answer to a request with the header has it too. A Transport that has seen
// that of a service does not take another server's answer, a proxy's 404 for
// one, for that of an instance which has vanished from the registry.
func RequireService(service string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said := r.Header.Values(ServiceHeader)
		for _, meant := range said {
			if !strings.EqualFold(meant, service) {
				refuse(w, r, service, meant)
				return
			}
		}
		if len(said) > 0 {
			w.Header().Set(ServiceHeader, service)
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, r *http.Request, service, meant string) {
	w.Header().Set("Connection", "close")
	problem.Write(w, r, problem.New(http.StatusMisdirectedRequest, "the request is meant for %q; this is %q", clip.To(80, meant), service))
}
