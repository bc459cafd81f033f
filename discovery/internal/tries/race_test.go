package tries

import (
	"context"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/outcome"
)

// answered is a try that has its answer.
type answered struct{ Try }

func (a *answered) Base() *Try                        { return &a.Try }
func (a *answered) Send()                             {}
func (a *answered) Answered() bool                    { return true }
func (a *answered) ComeAgain(time.Time) time.Duration { return 0 }
func (a *answered) Discard()                          {}

func TestPatienceThatEndsWithTheHeadersSpendsNothing(t *testing.T) {
	c := &Call[*answered]{Rules: &Rules{MaxRetries: 2}, Ctx: t.Context(), Group: outcome.Safe}
	c.ledger = &Ledger{Floor: 0.1, Began: time.Now()}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	a := &answered{Try: Try{Cancel: func(error) { t.Error("the try was ended") }}}
	if c.Ended(&a.Try, ctx) {
		t.Fatal("the try was cut")
	}
	c.Impatient(a) // the timer had begun to call it
	if c.beside != nil || !c.ledger.Spend(time.Now()) {
		t.Error("the one retry there is was spent on a try that was answered")
	}
}
