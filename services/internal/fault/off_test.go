//go:build !faults

package fault_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
)

func TestProductionBuildHasNoFaults(t *testing.T) {
	if fault.Enabled {
		t.Error("Enabled is true without the tag")
	}
	inside := http.NewServeMux() // answers 404
	if fault.Traffic(inside) != http.Handler(inside) || fault.Admin(inside) != http.Handler(inside) {
		t.Error("a handler came back as another one; want the one that was given")
	}
	w := httptest.NewRecorder()
	fault.Admin(inside).ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/faults", strings.NewReader(`{"clock":"1h"}`)))
	if w.Code != http.StatusNotFound {
		t.Errorf("PUT /faults is answered %d; want 404", w.Code)
	}
	before := time.Now()
	if now := fault.Now(); now.Before(before) || now.After(time.Now()) {
		t.Errorf("Now() = %v; want the clock's", now)
	}
}

func TestProductionBuildCompilesNoCodeOfFaults(t *testing.T) {
	for tags, want := range map[string]string{"": "doc.go off.go", "faults": "doc.go executions.go on.go setting.go"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-tags", tags, "-f", `{{join .GoFiles " "}}`, ".").CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("with the tags %q: %s, %v; want %s", tags, got, err, want)
		}
	}
}

func TestPointsCostNothingInProduction(t *testing.T) {
	result := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			fault.Point("order.committed")
		}
	})
	if result.AllocsPerOp() != 0 {
		t.Errorf("a point allocates %d times", result.AllocsPerOp())
	}
}
