package main_test

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the differences into the how-to")

const howTo = "../../how-to/move-from-go-kit.md"

func TestHowToShowsTheDifferenceBetweenBeforeAndAfter(t *testing.T) {
	page, err := os.ReadFile(howTo)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)<!-- difference: (\\S+) -->\n```diff\n(.*?)```")
	shown := 0
	right := block.ReplaceAllStringFunc(string(page), func(found string) string {
		shown++
		file := block.FindStringSubmatch(found)[1]
		return "<!-- difference: " + file + " -->\n```diff\n" + difference(code(t, "before/"+file), code(t, "after/"+file)) + "```"
	})
	if shown != 3 {
		t.Errorf("%s shows %d differences; want 3", howTo, shown)
	}
	if right == string(page) {
		return
	}
	if !*update {
		t.Fatalf("%s shows another difference than there is: go test ./docs/examples/gokit -run HowTo -update", howTo)
	}
	if err := os.WriteFile(howTo, []byte(right), 0o644); err != nil { //nolint:gosec // a page for everybody
		t.Fatal(err)
	}
}

// code returns the lines of a file after its imports, without what is for linters.
func code(t *testing.T, file string) []string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(source), "\n)\n\n")
	if !ok {
		t.Fatalf("%s has no imports", file)
	}
	body = regexp.MustCompile(` +//nolint:.*`).ReplaceAllString(body, "")
	return strings.Split(strings.TrimSuffix(body, "\n"), "\n")
}

// difference shows what went and what came, by the longest common subsequence.
func difference(old, now []string) string {
	longest := make([][]int, len(old)+1)
	for i := range longest {
		longest[i] = make([]int, len(now)+1)
	}
	for i, was := range slices.Backward(old) {
		for j, is := range slices.Backward(now) {
			if longest[i][j] = max(longest[i+1][j], longest[i][j+1]); was == is {
				longest[i][j] = longest[i+1][j+1] + 1
			}
		}
	}
	var text strings.Builder
	line := func(sign, s string) { text.WriteString(strings.TrimRight(sign+s, " \t") + "\n") }
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		switch {
		case i < len(old) && j < len(now) && old[i] == now[j]:
			line(" ", old[i])
			i, j = i+1, j+1
		case j == len(now) || i < len(old) && longest[i+1][j] >= longest[i][j+1]:
			line("-", old[i])
			i++
		default:
			line("+", now[j])
			j++
		}
	}
	return text.String()
}

func TestDifferenceShowsWhatWentAndWhatCame(t *testing.T) {
	got := difference([]string{"a", "b", "c"}, []string{"a", "x", "c", "d"})
	if want := " a\n-b\n+x\n c\n+d\n"; got != want {
		t.Errorf("got %q; want %q", got, want)
	}
}
