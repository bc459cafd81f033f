package discovery_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEachTestThatThePromisesNameExists(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/promises.md")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := os.ReadFile("../compose/e2e/faults/rows.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+)\\.([Tt]est[A-Za-z0-9]+)`|`faults ([a-z-]+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 45 {
		t.Errorf("the page names %d tests; want 45 and more", len(named))
	}
	for _, n := range named {
		folder, test, row := n[1], n[2], n[3]
		if test == "TestX" {
			continue
		}
		if row != "" {
			if !strings.Contains(string(rows), `{name: "`+row+`"`) {
				t.Errorf("there is no row %s of make faults", row)
			}
			continue
		}
		if !hasTest(t, filepath.Join("..", folder), test) {
			t.Errorf("%s has no %s", folder, test)
		}
	}
}

func hasTest(t *testing.T, folder, test string) bool {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(source), "\nfunc "+test+"(") {
			return true
		}
	}
	return false
}
