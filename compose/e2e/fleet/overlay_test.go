package fleet

import (
	"slices"
	"strings"
	"testing"
)

func TestOverlayIsForAllThatFollowsUntilItIsTakenAway(t *testing.T) {
	f := &Fleet{Project: "rollcall-faults-abc", Ports: Defaults, tags: "faults"}
	f.Overlay("compose/e2e/faults/overlay/small-disk.yaml", "FAULTS_SIZE=8m")
	env := f.Environ()
	for _, want := range []string{
		"COMPOSE_FILE=compose.yaml:compose/e2e/faults/overlay/small-disk.yaml", "FAULTS_SIZE=8m",
		"ROLLCALL_TAGS=faults", "ROLLCALL_VERSION=0.0.0-faults-abc",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("the environment has no %s", want)
		}
	}
	f.Overlay("")
	for _, kv := range f.Environ() {
		if strings.HasPrefix(kv, "COMPOSE_FILE=") || strings.HasPrefix(kv, "FAULTS_") {
			t.Errorf("the environment still has %s", kv)
		}
	}
}
