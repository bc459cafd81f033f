package metrics_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEveryMetricIsInTheReference(t *testing.T) {
	reference, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`["|] ?[` + "`" + `"]?((?:rollcall|http_server|rpc_server)_[a-z_]+)["` + "`" + `]`)
	names := func(text []byte) map[string]bool {
		found := map[string]bool{}
		for _, m := range name.FindAllSubmatch(text, -1) {
			found[string(m[1])] = true
		}
		return found
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("../../services", func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".go") {
			sources = append(sources, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	inCode := map[string]bool{}
	for _, path := range sources {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for n := range names(source) {
			inCode[n] = true
		}
	}
	inReference := names(reference)
	if len(inCode) < 20 {
		t.Fatalf("found %d metrics in the code; want 20 or more, else this test looks in vain", len(inCode))
	}
	for n := range inCode {
		if !inReference[n] {
			t.Errorf("%s has no row in docs/reference/metrics.md", n)
		}
	}
	for n := range inReference {
		if !inCode[n] {
			t.Errorf("%s is in docs/reference/metrics.md and not in the code", n)
		}
	}
}
