package docs_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const root = ".."

func TestRelativeLinksLeadSomewhere(t *testing.T) {
	pages := pages(t)
	links := 0
	for _, page := range pages {
		for _, target := range linksOf(read(t, page)) {
			u, err := url.Parse(target)
			if err != nil {
				t.Errorf("%s: %s: %v", page, target, err)
				continue
			}
			if u.Scheme != "" || u.Host != "" {
				continue
			}
			links++
			file := page
			if u.Path != "" {
				file = filepath.Join(filepath.Dir(page), u.Path)
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, target)
				continue
			}
			if u.Fragment != "" && !slices.Contains(anchors(read(t, file)), u.Fragment) {
				t.Errorf("%s links to %s, and %s has no such heading", page, target, file)
			}
		}
	}
	if links < 50 {
		t.Errorf("found %d relative links in %d pages; want 50 and more", links, len(pages))
	}
}

func TestIndexLeadsToEachPage(t *testing.T) {
	linked := map[string]bool{}
	for _, index := range []string{"docs/README.md", "docs/decisions/README.md", "docs/runbooks/README.md"} {
		for _, target := range linksOf(read(t, index)) {
			file, _, _ := strings.Cut(target, "#")
			linked[filepath.Join(filepath.Dir(index), file)] = true
		}
	}
	for _, page := range pages(t) {
		if page != "docs/README.md" && !linked[page] {
			t.Errorf("no index (docs/README.md, and those of decisions and runbooks) links to %s", page)
		}
	}
}

func TestDecisionsAreNumberedWithoutAGapAndListed(t *testing.T) {
	found, err := filepath.Glob("decisions/[0-9]*.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 26 {
		t.Fatalf("found %d decisions; want 26 and more", len(found))
	}
	index := read(t, "docs/decisions/README.md")
	n := 0
	for _, file := range found {
		name := filepath.Base(file)
		// A number that is taken by a page still to come is in the index too.
		for n++; !strings.HasPrefix(name, fmt.Sprintf("%04d-", n)); n++ {
			if !strings.Contains(index, fmt.Sprintf("| %d | to come |", n)) {
				t.Fatalf("decision %d is not there; next is %s", n, name)
			}
		}
		heading, _, _ := strings.Cut(read(t, filepath.Join("docs", file)), "\n")
		title, ok := strings.CutPrefix(heading, fmt.Sprintf("# %d. ", n))
		if !ok {
			t.Errorf("%s begins with %q; want its number and title", name, heading)
		}
		if row := fmt.Sprintf("| [%d](%s) | %s |", n, name, title); !strings.Contains(index, row) {
			t.Errorf("the index lacks %s", row)
		}
		if strings.Contains(index, fmt.Sprintf("| %d | to come |", n)) {
			t.Errorf("the index says that decision %d is to come; it is there", n)
		}
	}
}

func TestEachRowOfMakeFaultsHasAnEntry(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\s*\{name: "([a-z-]+)"`).FindAllStringSubmatch(read(t, "compose/e2e/faults/rows.go"), -1)
	if len(rows) < 27 {
		t.Errorf("found %d rows; want 27 and more", len(rows))
	}
	page := read(t, "docs/explanation/what-happens-when.md")
	for _, row := range rows {
		if !strings.Contains(page, "** (`"+row[1]+"`)") {
			t.Errorf("what-happens-when.md has no entry for %s", row[1])
		}
	}
}

func TestAnchorsAreThoseOfGitHub(t *testing.T) {
	page := "# What happens when…\n```\n# no heading\n```\n## `make up`, and more\n## Again\n## Again\n"
	want := []string{"what-happens-when", "make-up-and-more", "again", "again-1"}
	if got := anchors(page); !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
	text := "[a](b.md#c), [d][e] and ![f](g.svg)\n```\n[no](link.md)\n```\n`[no](link.md)`\n[e]: h.md\n"
	if got, want := linksOf(text), []string{"b.md#c", "g.svg", "h.md"}; !slices.Equal(got, want) {
		t.Errorf("got the links %q; want %q", got, want)
	}
}

// pages are the documents, by their paths from the root.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := range found {
		if found[n], err = filepath.Rel(root, found[n]); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	fenced = regexp.MustCompile("(?ms)^[ ]*```.*?^[ ]*```$")
	quoted = regexp.MustCompile("`[^`\n]+`")
	inline = regexp.MustCompile(`\]\(([^()\s]+)\)|(?m:^\[[^\]]+\]: (\S+)$)`)
	markup = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// linksOf are the targets of a page's links, pictures among them.
func linksOf(page string) []string {
	var links []string
	for _, m := range inline.FindAllStringSubmatch(quoted.ReplaceAllString(fenced.ReplaceAllString(page, ""), ""), -1) {
		links = append(links, m[1]+m[2])
	}
	return links
}

// anchors are the names that GitHub gives to a page's headings: lower case,
// spaces to hyphens, other punctuation away; a number where a name comes again.
func anchors(page string) []string {
	var names []string
	times := map[string]int{}
	for line := range strings.Lines(fenced.ReplaceAllString(page, "")) {
		heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(markup.ReplaceAllString(heading, "$1")))
		if n := times[name]; n > 0 {
			names = append(names, fmt.Sprintf("%s-%d", name, n))
		} else {
			names = append(names, name)
		}
		times[name]++
	}
	return names
}

func TestCodeOfHowToTestIsInTheExample(t *testing.T) {
	var source strings.Builder
	for _, file := range []string{"greeting.go", "greeting_test.go"} {
		source.WriteString(read(t, "docs/examples/testing/"+file))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(read(t, "docs/how-to/test-your-program.md"), -1)
	if len(blocks) < 4 {
		t.Errorf("found %d pieces of code; want 4 and more", len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(source.String(), strings.TrimSuffix(b[1], "\n")) {
			t.Errorf("docs/examples/testing lacks\n%s", b[1])
		}
	}
}
