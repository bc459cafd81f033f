package catalog_test

import (
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/catalog"
)

func TestServiceNameNeedsNoEscapingAndIsNoStepInAPath(t *testing.T) {
	for _, name := range []string{"a", "Order-2", "a_b.c", "9", strings.Repeat("a", catalog.MaxServiceBytes)} {
		if err := catalog.CheckService(name); err != nil {
			t.Errorf("%q: got %v; want nil", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "-a", "_a", ".a", "a/b", `a\b`, "a b", "a?x", "a%2f", `a"`, "ä", "a\x00", "a\xff",
		strings.Repeat("a", catalog.MaxServiceBytes+1),
	} {
		if err := catalog.CheckService(name); err == nil {
			t.Errorf("%q: got nil; want an error", name)
		}
	}
}
