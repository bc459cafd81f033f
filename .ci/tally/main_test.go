package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// tally runs the lines of a go test run through both halves of the command.
func tally(t *testing.T, lines ...string) (shown, closed string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "counts")
	var show, sum strings.Builder
	err = run(strings.NewReader(strings.Join(lines, "\n")), &show, file, "", false)
	if sumErr := run(nil, &sum, "", file, false); sumErr != nil {
		t.Fatal(sumErr)
	}
	return show.String(), sum.String(), err
}

func TestATestWithSubtestsIsCountedByItsSubtests(t *testing.T) {
	_, closed, err := tally(t,
		`{"Action":"run","Package":"p","Test":"TestA"}`,
		`{"Action":"pass","Package":"p","Test":"TestA/one"}`,
		`{"Action":"skip","Package":"p","Test":"TestA/two"}`,
		`{"Action":"pass","Package":"p","Test":"TestA"}`,
		`{"Action":"pass","Package":"p","Test":"TestB"}`,
		`{"Action":"pass","Package":"p"}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := "\n2 passed, 0 failed, 1 skipped\n"; !strings.HasSuffix(closed, want) {
		t.Errorf("closing line %q; want the end %q", closed, want)
	}
}

func TestASkipTellsWhy(t *testing.T) {
	_, closed, err := tally(t,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no Consul here: set CONSUL_BIN\n"}`,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}`,
		`{"Action":"skip","Package":"p","Test":"TestA"}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := "skipped: TestA (no Consul here: set CONSUL_BIN)\n0 passed, 0 failed, 1 skipped\n"; closed != want {
		t.Errorf("got %q; want %q", closed, want)
	}
}

func TestAFailureIsShownWithItsOutputAndFailsTheRun(t *testing.T) {
	shown, closed, err := tally(t,
		`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1; want 2\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"fail","Package":"p"}`)
	if err == nil {
		t.Error("no error for a failed test")
	}
	if !strings.Contains(shown, "got 1; want 2") {
		t.Errorf("shown %q; want the test's output in it", shown)
	}
	if want := "failed: p TestA\n0 passed, 1 failed, 0 skipped\n"; closed != want {
		t.Errorf("got %q; want %q", closed, want)
	}
}

func TestAParentThatFailsByItselfIsCounted(t *testing.T) {
	_, closed, err := tally(t,
		`{"Action":"pass","Package":"p","Test":"TestA/one"}`,
		`{"Action":"fail","Package":"p","Test":"TestA"}`,
		`{"Action":"fail","Package":"p"}`)
	if err == nil || !strings.Contains(closed, "1 passed, 1 failed, 0 skipped") {
		t.Errorf("got %q and %v; want one failure", closed, err)
	}
}

func TestAPackageThatFailsOutsideOfItsTestsIsCounted(t *testing.T) {
	for name, lines := range map[string][]string{
		"does not compile": {
			`{"ImportPath":"p [p.test]","Action":"build-output","Output":"./a.go:1:1: oops\n"}`,
			`{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
		},
		"leaks after its tests": {
			`{"Action":"pass","Package":"p","Test":"TestA"}`,
			`{"Action":"output","Package":"p","Output":"goleak: oops\n"}`,
			`{"Action":"fail","Package":"p"}`,
		},
		"times out": {
			`{"Action":"run","Package":"p","Test":"TestA"}`,
			`{"Action":"output","Package":"p","Test":"TestA","Output":"panic: test timed out: oops\n"}`,
			`{"Action":"fail","Package":"p"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			shown, closed, err := tally(t, lines...)
			if err == nil || !strings.Contains(closed, " 1 failed, ") {
				t.Errorf("got %q and %v; want one failure", closed, err)
			}
			if !strings.Contains(shown, "oops") {
				t.Errorf("shown %q; want what went wrong in it", shown)
			}
		})
	}
}

func TestARunWithoutATestIsAnError(t *testing.T) {
	if _, _, err := tally(t, `{"Action":"skip","Package":"p"}`); err == nil {
		t.Error("no error though no test ran")
	}
}
