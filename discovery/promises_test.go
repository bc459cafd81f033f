package discovery_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEachTestThatThePromisesNameExists(t *testing.T) {
	for page, least := range map[string]int{"reference/promises.md": 45, "explanation/who-can-join.md": 20} {
		testsExist(t, page, least)
	}
}

// testsExist wants a page to name so many tests and rows of make faults, all of
// which are there.
func testsExist(t *testing.T, name string, least int) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	rows, err := os.ReadFile("../compose/e2e/faults/rows.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+)\\.([Tt]est[A-Za-z0-9]+)`|`faults ([a-z-]+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < least {
		t.Errorf("%s names %d tests; want %d and more", name, len(named), least)
	}
	for _, n := range named {
		folder, test, row := n[1], n[2], n[3]
		if test == "TestX" {
			continue
		}
		if row != "" {
			if !strings.Contains(string(rows), `{name: "`+row+`"`) {
				t.Errorf("%s: there is no row %s of make faults", name, row)
			}
			continue
		}
		if !hasTest(t, filepath.Join("..", folder), test) {
			t.Errorf("%s: %s has no %s", name, folder, test)
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
