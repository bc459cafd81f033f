package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

func TestTextOfStrangersIsNoCommandForTheTerminal(t *testing.T) {
	for given, want := range map[string]string{
		"order-1":           "order-1",
		"Grüße 😀":           "Grüße 😀",
		"a\x1b[2Jb":         `a\x1b[2Jb`,
		"a\nb\tc\r":         `a\nb\tc\x0d`,
		"a\u202eb\u009b":    `a\u202eb\u009b`,
		"bad \xff UTF-8":    `bad \xff UTF-8`,
		"\U000e0001":        `\U000e0001`,
		"\ufffd is printed": "\ufffd is printed",
	} {
		if got := clean(given); got != want {
			t.Errorf("clean(%q) = %q; want %q", given, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[2Jb\u202e\xff")
	f.Fuzz(func(t *testing.T, given string) {
		got := clean(given)
		if !utf8.ValidString(got) || strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 {
			t.Errorf("clean(%q) = %q, which is not printable", given, got)
		}
		if clean(got) != got {
			t.Errorf("clean(%q) = %q; want it unchanged", got, clean(got))
		}
	})
}

func TestTableFitsTheTerminal(t *testing.T) {
	const width = 80
	header := []string{"ID", "ADDRESS", "HEALTH", "REASON"}
	var rows [][]string
	for n := range 1000 {
		rows = append(rows, []string{
			fmt.Sprintf("order-%012x-%d", n, n), fmt.Sprintf("10.0.%d.%d:8080", n/250, n%250), "critical",
			strings.Repeat("Get http://10.0.0.1: dial tcp: connection refused ", 4) + "\x1b[2J\n",
		})
	}
	for _, colour := range []bool{false, true} {
		var out bytes.Buffer
		table(&session{out: &out, width: width, colour: colour}, header, rows)
		lines := slices.Collect(strings.Lines(out.String()))
		if len(lines) != len(rows)+1 {
			t.Fatalf("got %d lines; want one for each row and a header", len(lines))
		}
		bare := strings.NewReplacer(red, "", bold, "", plain, "", "\n", "").Replace
		column := strings.Index(bare(lines[0]), "ADDRESS")
		for n, line := range lines {
			line = bare(line)
			if got := utf8.RuneCountInString(line); got > width {
				t.Errorf("line %d has %d columns; want at most %d: %q", n, got, width, line)
			}
			if strings.Contains(line, "\x1b") {
				t.Errorf("line %d has a command for the terminal that is not ours: %q", n, line)
			}
			if n > 0 && !strings.HasPrefix(line[column:], "10.0.") {
				t.Errorf("line %d has its address elsewhere than the header: %q", n, line)
			}
		}
		if got := strings.Contains(out.String(), red+"critical"+plain); got != colour {
			t.Errorf("colour %v: critical in red is %v", colour, got)
		}
	}
}

func TestTableIsCutNowhereButOnATerminal(t *testing.T) {
	long := strings.Repeat("x", 300)
	var out bytes.Buffer
	table(&session{out: &out}, []string{"A", "B"}, [][]string{{long}, {"1", long}})
	if got, want := out.String(), fmt.Sprintf("%-300s  B\n%s\n%-300s  %s\n", "A", long, "1", long); got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestColumnsWithoutAnythingAreLeftOut(t *testing.T) {
	header, rows := compact([]string{"A", "B", "C"}, [][]string{{"1", none, none}, {none, none, "2"}})
	if got, want := fmt.Sprint(header, rows), "[A C] [[1 -] [- 2]]"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

func TestNarrowTableKeepsAFewColumnsOfEachCell(t *testing.T) {
	var out bytes.Buffer
	table(&session{out: &out, width: 10}, []string{"SERVICE", "HEALTH"}, [][]string{{"a-long-name", "passing"}})
	if got, want := out.String(), "SERVICE   HEALTH\na-long-…  passing\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}

func TestDocumentsSayTheSameInJSONAndYAML(t *testing.T) {
	given := map[string]any{
		"text": "a\x1b\u202e\u009b\x7f😀 <&>\n", "words": []any{"no", "1.10", "2026-01-02", "0x1f", "~", ""}, "number": 1.5, "none": nil,
		"map": map[string]any{"on": true, "empty": []any{}},
	}
	for _, output := range []string{"json", "yaml"} {
		var out bytes.Buffer
		if done, err := (form{output}).document(&session{out: &out}, given); !done || err != nil {
			t.Fatalf("%s: got %v, %v; want it done", output, done, err)
		}
		for n, line := range strings.Split(out.String(), "\n") {
			if clean(line) != line {
				t.Errorf("%s: line %d has what is not printable: %q", output, n, line)
			}
		}
		var got any
		read := json.Unmarshal
		if output == "yaml" {
			read = yaml.Unmarshal
		}
		if err := read(out.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v:\n%s", output, err, out.String())
		}
		if fmt.Sprint(got) != fmt.Sprint(given) {
			t.Errorf("%s: it reads as %v; want %v:\n%s", output, got, given, out.String())
		}
	}
	if done, err := (form{"wide"}).document(nil, given); done || err != nil {
		t.Errorf("wide: got %v, %v; want a table", done, err)
	}
}
