package outcome_test

import (
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

func TestGRPCStatusSaysWhatAnAnswerIs(t *testing.T) {
	for status, want := range map[uint32]outcome.Code{
		0: outcome.OK, 1: outcome.Error, 2: outcome.Error, 3: outcome.OK, 4: outcome.GatewayTimeout, 5: outcome.OK, 8: outcome.Busy,
		12: outcome.OK, 13: outcome.Error, 14: outcome.Gateway, 15: outcome.Error, 16: outcome.OK, 99: outcome.OK,
	} {
		if got := outcome.OfGRPC(status); got != want {
			t.Errorf("%d: got %v; want %v", status, got, want)
		}
	}
}
