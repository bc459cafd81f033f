package metricstest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// family is a metric as a page tells of it.
type family struct {
	name, kind, help string
	labels           []string
}

// ours are the beginnings of the names of our metrics.
var ours = []string{"rollcall_", "http_server_", "rpc_server_"}

var label = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)="(?:[^"\\]|\\.)*"`)

// parse reads our metrics from a page in Prometheus' text format.
func parse(page string) (all []family) {
	var now *family
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(rest, " ")
			now = nil
			if begins(name, ours) {
				all = append(all, family{name: name, help: help})
				now = &all[len(all)-1]
			}
			continue
		}
		if now == nil {
			continue
		}
		if kind, ok := strings.CutPrefix(line, "# TYPE "+now.name+" "); ok {
			now.kind = kind
			continue
		}
		for _, found := range label.FindAllStringSubmatch(line, -1) {
			if name := found[1]; name != "le" && !slices.Contains(now.labels, name) {
				now.labels = append(now.labels, name)
			}
		}
	}
	return all
}

func begins(name string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// bound is a row of the table of labels.
type bound struct {
	label, most string
}

// bounds reads the table of labels, which says how many values each has at most.
func bounds(text string) (all []bound) {
	_, table, _ := strings.Cut(text, "| label |")
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) == 5 { // three, and what is outside of them
			for name := range strings.SplitSeq(cells[1], ",") {
				all = append(all, bound{strings.TrimSpace(name), strings.TrimSpace(cells[3])})
			}
		}
	}
	return all
}

const (
	opening = "<!-- metrics: "
	closing = "<!-- end -->"
	header  = "| metric | type | labels | series at most | meaning |\n| --- | --- | --- | --- | --- |\n"
)

// rewrite returns the text with the tables that the page gives it.
func rewrite(text, page string) (string, error) {
	families, labels := parse(page), bounds(text)
	if len(families) == 0 {
		return "", fmt.Errorf("the page has none of the metrics %s…", strings.Join(ours, "…, "))
	}
	told := map[string]int{}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, opening)
		out.WriteString(before)
		if !found {
			break
		}
		prefixes, rest, _ := strings.Cut(rest, " -->\n")
		old, after, closed := strings.Cut(rest, closing)
		if !closed {
			return "", fmt.Errorf("%s%s --> has no %s", opening, prefixes, closing)
		}
		rows, err := rowsOf(families, strings.Fields(prefixes), labels, told)
		if err != nil {
			return "", err
		}
		if rows != "" {
			old = "\n" + header + rows + "\n"
		}
		out.WriteString(opening + prefixes + " -->\n" + old + closing)
		text = after
	}
	for _, f := range families {
		if told[f.name] != 1 {
			return "", fmt.Errorf("%s is in %d tables; want 1", f.name, told[f.name])
		}
	}
	return out.String(), nil
}

// rowsOf returns the lines of the metrics that begin so, and counts them in told.
func rowsOf(families []family, prefixes []string, labels []bound, told map[string]int) (string, error) {
	var rows strings.Builder
	for _, f := range families {
		if !begins(f.name, prefixes) {
			continue
		}
		told[f.name]++
		row, err := f.row(labels)
		if err != nil {
			return "", err
		}
		rows.WriteString(row)
	}
	return rows.String(), nil
}

// row is the line of a metric. Its labels are in the order of the table of labels.
func (f family) row(labels []bound) (string, error) {
	var names, factors []string
	for _, l := range labels {
		if !slices.Contains(f.labels, l.label) {
			continue
		}
		names = append(names, l.label)
		if l.most != "1" {
			factors = append(factors, l.most)
		}
	}
	if len(names) != len(f.labels) {
		return "", fmt.Errorf("the table of labels has %v of the labels %v of %s; want one row for each", names, f.labels, f.name)
	}
	meaning := strings.ReplaceAll(strings.TrimSuffix(f.help, "."), "|", `\|`)
	return fmt.Sprintf("| `%s` | %s | %s | %s | %s |\n", f.name, f.kind, strings.Join(names, ", "), product(factors), meaning), nil
}

// product writes the factors as one, a sum among several in brackets.
func product(factors []string) string {
	switch len(factors) {
	case 0:
		return "1"
	case 1:
		return factors[0]
	}
	for n, f := range factors {
		if strings.Contains(f, "+") {
			factors[n] = "(" + f + ")"
		}
	}
	return strings.Join(factors, " × ")
}
