package fleet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatALogTellsBesidesRequestsIsKept(t *testing.T) {
	log := `{"level":"WARN","msg":"instances missing"}
{"level":"INFO","msg":"request","path":"/users/1"}

panic: a line that is no JSON
{"level":"INFO","msg":"request","path":"/users/2"}
{"level":"WARN","msg":"no answer"}`
	want := []string{`{"level":"WARN","msg":"instances missing"}`, "panic: a line that is no JSON", `{"level":"WARN","msg":"no answer"}`}
	if diff := cmp.Diff(want, notRequests(log)); diff != "" {
		t.Errorf("want -, got +:\n%s", diff)
	}
}
