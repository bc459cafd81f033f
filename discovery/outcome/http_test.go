package outcome_test

import (
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestStatusSaysWhatAnAnswerIs(t *testing.T) {
	for status, want := range map[int]outcome.Code{
		100: outcome.OK, 200: outcome.OK, 404: outcome.OK, 421: outcome.Misdirected, 429: outcome.Busy,
		500: outcome.Error, 501: outcome.OK, 502: outcome.Gateway, 503: outcome.Gateway, 504: outcome.GatewayTimeout, 505: outcome.OK, 599: outcome.Error,
	} {
		if got := outcome.OfStatus(status); got != want {
			t.Errorf("%d: got %v; want %v", status, got, want)
		}
	}
}
