package gateway

import (
	"errors"
	"net/http"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestEachOutcomeOfARequestHasItsStatus(t *testing.T) {
	const bad, away, late = http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout
	statuses := map[outcome.Code]int{
		outcome.NoInstance: away, outcome.Unreachable: away, outcome.Stalled: away, outcome.Unsent: away,
		outcome.Untrusted: away, outcome.WrongScheme: away,
		outcome.Misdirected: away, outcome.Foreign: away, outcome.Closed: away,
		outcome.Timeout: late, outcome.Silent: late,
		outcome.IdleClosed: bad, outcome.Broken: bad, outcome.BodyBroken: bad, outcome.CallerError: bad,
		outcome.Error: bad, // a switch of protocols that was not asked for
	}
	// With these the service's answer is passed on, or nothing is waited for.
	passed := map[outcome.Code]bool{
		outcome.OK: true, outcome.Gateway: true, outcome.GatewayTimeout: true, outcome.Downstream: true,
		outcome.Busy: true, outcome.Overload: true, outcome.Outrun: true, outcome.Canceled: true,
	}
	for _, code := range outcome.Codes() {
		want, fails := statuses[code]
		if fails == passed[code] {
			t.Errorf("%v: this test does not say what becomes of it", code)
		}
		if !fails {
			continue
		}
		x := &exchange{service: "order"}
		err := &httpmesh.Error{Report: &httpmesh.Report{Outcome: code}, Err: errors.New("broken")}
		if got := x.problem(err, nil); got.Status != want {
			t.Errorf("%v: got %d; want %d", code, got.Status, want)
		}
	}
}
