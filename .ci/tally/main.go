// Command tally reads what `go test -json` prints, shows one line a package
// (with -v one a test) and the whole output of what failed, and keeps count.
//
//	go test -json ./... | tally -to counts      // shows, and appends to counts
//	tally -sum counts                            // the closing line
//
// A test counts once: one with subtests is counted by its subtests, unless it
// failed by itself.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// result is one test's, or one package's that failed outside of its tests.
type result struct {
	Outcome string // pass, fail or skip
	Package string
	Test    string
	Why     string // of a skip
}

func main() {
	verbose := flag.Bool("v", false, "show each test")
	to := flag.String("to", "", "append the results to this `file`")
	sum := flag.String("sum", "", "print the closing line for this `file` of results")
	flag.Parse()
	if err := run(os.Stdin, os.Stdout, *to, *sum, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, to, sum string, verbose bool) error {
	if sum != "" {
		results, err := load(sum)
		if err != nil {
			return err
		}
		return closing(out, results)
	}
	results, err := read(in, out, verbose)
	if err != nil {
		return err
	}
	if err := store(to, results); err != nil {
		return err
	}
	if slices.ContainsFunc(results, func(r result) bool { return r.Outcome == "fail" }) {
		return errors.New("tests failed")
	}
	if len(results) == 0 {
		return errors.New("no test ran")
	}
	return nil
}

type key struct{ pkg, test string }

// read follows one run of go test to its end.
func read(in io.Reader, out io.Writer, verbose bool) ([]result, error) {
	var (
		results []result
		output  = map[key][]string{} // of what has not ended yet
		failed  = map[string]bool{}  // packages of which a test failed
		started = map[key]bool{}     // tests that have not ended yet
	)
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // go's own words, such as a download
			continue
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "run":
			started[k] = true
		case "output":
			output[k] = append(output[k], e.Output)
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "pass", "fail", "skip":
			if e.Test == "" {
				results = append(results, endPackage(out, e, output, failed[e.Package], started)...)
				continue
			}
			delete(started, k)
			failed[e.Package] = failed[e.Package] || e.Action == "fail"
			results = append(results, result{e.Action, e.Package, e.Test, reason(e.Action, output[k])})
			if verbose || e.Action == "fail" {
				fmt.Fprintf(out, "  %s %s (%.1fs)\n", e.Action, e.Test, e.Elapsed)
			}
			if e.Action == "fail" {
				fmt.Fprint(out, strings.Join(output[k], ""))
			}
			delete(output, k)
		}
	}
	return leaves(results), lines.Err()
}

// endPackage shows a package's line. One that failed with no test to blame (it
// did not compile, it timed out, a goroutine leaked) is a result of its own,
// and so is each test that never ended.
func endPackage(out io.Writer, e event, output map[key][]string, testFailed bool, started map[key]bool) []result {
	k := key{pkg: e.Package}
	defer delete(output, k)
	if e.Action == "skip" {
		return nil // no test files
	}
	fmt.Fprintf(out, "%s %s (%.1fs)\n", e.Action, e.Package, e.Elapsed)
	if e.Action == "pass" {
		return nil
	}
	var results []result
	for s := range started {
		if s.pkg != e.Package {
			continue
		}
		fmt.Fprintf(out, "  %s did not end\n%s", s.test, strings.Join(output[s], ""))
		results = append(results, result{"fail", s.pkg, s.test, ""})
		delete(started, s)
	}
	if len(results) == 0 && !testFailed {
		results = append(results, result{Outcome: "fail", Package: e.Package})
	}
	fmt.Fprint(out, strings.Join(output[k], ""))
	return results
}

// leaves drops a test whose subtests are counted.
func leaves(results []result) []result {
	type parent struct{ key }
	covered := map[parent]string{} // "fail" when a subtest failed
	for _, r := range results {
		for test := r.Test; ; {
			i := strings.LastIndexByte(test, '/')
			if i < 0 {
				break
			}
			test = test[:i]
			p := parent{key{r.Package, test}}
			if covered[p] != "fail" {
				covered[p] = r.Outcome
			}
		}
	}
	return slices.DeleteFunc(results, func(r result) bool {
		sub, has := covered[parent{key{r.Package, r.Test}}]
		return has && (r.Outcome != "fail" || sub == "fail")
	})
}

// reason is what a test said when it was skipped.
func reason(outcome string, output []string) string {
	if outcome != "skip" {
		return ""
	}
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "===") {
			continue
		}
		if _, said, ok := strings.Cut(line, ": "); ok && strings.Contains(line, ".go:") {
			return said
		}
		return line
	}
	return "no reason given"
}

func store(file string, results []result) error {
	if file == "" {
		return nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("keep the results: %w", err)
	}
	enc := json.NewEncoder(f)
	for _, r := range results {
		err = errors.Join(err, enc.Encode(r))
	}
	return errors.Join(err, f.Close())
}

func load(file string) ([]result, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the results: %w", err)
	}
	var results []result
	for dec := json.NewDecoder(bytes.NewReader(b)); ; {
		var r result
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return results, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the results in %s: %w", file, err)
		}
		results = append(results, r)
	}
}

// closing prints who was skipped and why, who failed, and the closing line.
func closing(out io.Writer, results []result) error {
	count := map[string]int{}
	skipped := map[string][]string{}
	for _, r := range results {
		count[r.Outcome]++
		switch r.Outcome {
		case "skip":
			skipped[r.Why] = append(skipped[r.Why], r.Test)
		case "fail":
			fmt.Fprintf(out, "failed: %s %s\n", r.Package, r.Test)
		}
	}
	for why, tests := range skipped {
		slices.Sort(tests)
		fmt.Fprintf(out, "skipped: %s (%s)\n", strings.Join(tests, ", "), why)
	}
	_, err := fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", count["pass"], count["fail"], count["skip"])
	return err
}
