package idempotency_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
)

func TestOnlyAnswersThatWereGivenBeforeAreCounted(t *testing.T) {
	counted := 0
	for _, replayed := range []bool{false, true, false, true} {
		answer := idempotency.Answer{Status: http.StatusCreated, Body: []byte("{}\n"), Replayed: replayed}
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer.Write(w) })
		idempotency.Count(h, func() { counted++ }).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/orders/1", nil))
	}
	if counted != 2 {
		t.Errorf("counted %d; want the 2 replays", counted)
	}
}
