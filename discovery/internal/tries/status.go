package tries

import (
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

// clockSlack is how long before the caller's deadline a server may see it over: it
// counts from the arrival of what was left, and its answer takes a while to be here.
const clockSlack = 100 * time.Millisecond

// OfStatus says what a server's status is, and whether it forbids another try, as a
// negative pushback does (gRFC A6). limit is the caller's deadline; zero means none.
// missing says that the instance has vanished from the catalog: what has its address
// now may be another server, which knows nothing of the method.
func OfStatus(s grpcwire.Status, limit time.Time, missing bool) (code outcome.Code, final bool) {
	final = s.Waits && s.Wait < 0
	ours := s.Code == grpcwire.Unavailable && s.Domain == grpcwire.Domain
	switch {
	case ours && s.Reason == grpcwire.WrongService:
		return outcome.Misdirected, final
	case ours && s.Reason == grpcwire.Downstream:
		return outcome.Downstream, final
	case s.Code == grpcwire.ResourceExhausted && s.Waits && !final:
		return outcome.Overload, false
	case s.Code == grpcwire.DeadlineExceeded && !limit.IsZero() && time.Until(limit) < clockSlack:
		return outcome.Timeout, final // the server's clock was first
	case s.Code == grpcwire.Unimplemented && missing:
		return outcome.Foreign, final
	}
	return outcome.OfGRPC(s.Code), final
}
