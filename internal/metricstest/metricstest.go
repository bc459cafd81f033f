// Package metricstest checks a page of metrics, as Prometheus scrapes it: by promtool, and
// against the tables of docs/reference/metrics.md, which it writes.
package metricstest

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of metrics into the reference")

// Reference checks that the tables of the reference say what the page says of the
// metrics that are on it, and writes them with -update. A table stands between the lines
//
//	<!-- metrics: rollcall_tls_ rollcall_watch_ -->
//	<!-- end -->
//
// and has the metrics whose names begin so. One without a metric of the page is another
// page's. A metric that is in none, and a label that the table of labels does not have,
// are errors.
func Reference(t testing.TB, page string) {
	t.Helper()
	path := referencePath(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want, err := rewrite(string(text), page)
	if err != nil {
		t.Fatalf("docs/reference/metrics.md: %v", err)
	}
	switch {
	case want == string(text):
	case *update:
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("docs/reference/metrics.md is stale: run this test with -update\n%s", difference(string(text), want))
	}
}

// referencePath looks for the reference in the folders above the test's.
func referencePath(t testing.TB) string {
	t.Helper()
	folder, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		path := filepath.Join(folder, "docs", "reference", "metrics.md")
		_, err := os.Stat(path)
		switch above := filepath.Dir(folder); {
		case err == nil:
			return path
		case !errors.Is(err, fs.ErrNotExist), above == folder:
			t.Fatalf("docs/reference/metrics.md is in no folder above: %v", err)
		default:
			folder = above
		}
	}
}

// difference returns the lines that only one of the texts has.
func difference(got, want string) string {
	var out strings.Builder
	only := func(mark, lines, but string) {
		has := map[string]bool{}
		for line := range strings.Lines(but) {
			has[line] = true
		}
		for line := range strings.Lines(lines) {
			if !has[line] {
				out.WriteString(mark + line)
			}
		}
	}
	only("-", got, want)
	only("+", want, got)
	return out.String()
}

// Promtool checks the page with the promtool that is beside PROMETHEUS_BIN; it skips the
// test where that is not set.
func Promtool(t testing.TB, page string) {
	t.Helper()
	prometheus := os.Getenv("PROMETHEUS_BIN")
	if prometheus == "" {
		t.Skip("needs a real Prometheus: PROMETHEUS_BIN is not set")
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(prometheus), "promtool"), "check", "metrics")
	cmd.Stdin = strings.NewReader(page)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil || said.Len() > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, &said)
	}
}
