package tries

import (
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/internal/grpcwire"
)

func TestStatusOfAServerIsOneOutcome(t *testing.T) {
	soon, later := time.Now(), time.Now().Add(time.Hour)
	ours := func(reason string) grpcwire.Status {
		return grpcwire.Status{Code: grpcwire.Unavailable, Domain: grpcwire.Domain, Reason: reason}
	}
	for _, c := range []struct {
		name    string
		s       grpcwire.Status
		limit   time.Time
		missing bool
		want    outcome.Code
		final   bool
	}{
		{"unavailable", grpcwire.Status{Code: grpcwire.Unavailable}, time.Time{}, false, outcome.Gateway, false},
		{"unavailable, for ever", grpcwire.Status{Code: grpcwire.Unavailable, Waits: true, Wait: -1}, time.Time{}, false, outcome.Gateway, true},
		{"another service", ours(grpcwire.WrongService), time.Time{}, false, outcome.Misdirected, false},
		{"another service, in words that are not ours", grpcwire.Status{Code: grpcwire.Unavailable, Domain: "else", Reason: grpcwire.WrongService}, time.Time{}, false, outcome.Gateway, false},
		{"behind it", ours(grpcwire.Downstream), time.Time{}, false, outcome.Downstream, false},
		{"too much to do, come again", grpcwire.Status{Code: grpcwire.ResourceExhausted, Waits: true, Wait: time.Second}, time.Time{}, false, outcome.Overload, false},
		{"too much to do, never again", grpcwire.Status{Code: grpcwire.ResourceExhausted, Waits: true, Wait: -1}, time.Time{}, false, outcome.Busy, true},
		{"a quota", grpcwire.Status{Code: grpcwire.ResourceExhausted}, time.Time{}, false, outcome.Busy, false},
		{"the caller's deadline, by the server's clock", grpcwire.Status{Code: grpcwire.DeadlineExceeded}, soon, false, outcome.Timeout, false},
		{"a deadline of its own", grpcwire.Status{Code: grpcwire.DeadlineExceeded}, later, false, outcome.GatewayTimeout, false},
		{"no deadline here", grpcwire.Status{Code: grpcwire.DeadlineExceeded}, time.Time{}, false, outcome.GatewayTimeout, false},
		{"no such method at an address that may be another's", grpcwire.Status{Code: grpcwire.Unimplemented}, time.Time{}, true, outcome.Foreign, false},
		{"no such method", grpcwire.Status{Code: grpcwire.Unimplemented}, time.Time{}, false, outcome.OK, false},
		{"internal, never again", grpcwire.Status{Code: grpcwire.Internal, Waits: true, Wait: -1}, time.Time{}, false, outcome.Error, true},
	} {
		if got, final := OfStatus(c.s, c.limit, c.missing); got != c.want || final != c.final {
			t.Errorf("%s: %v, final %t; want %v, %t", c.name, got, final, c.want, c.final)
		}
	}
}
