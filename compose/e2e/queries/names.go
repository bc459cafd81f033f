package queries

import (
	"regexp"
	"slices"
)

var (
	// What of a query is no name of a metric, in the order in which it is taken out: strings, matchers, ranges,
	// lists of labels.
	noNames = []*regexp.Regexp{
		regexp.MustCompile(`"[^"]*"`),
		regexp.MustCompile(`\{[^}]*\}`),
		regexp.MustCompile(`\[[^\]]*\]`),
		regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`),
	}
	word = regexp.MustCompile(`\b[a-zA-Z_][a-zA-Z0-9_:]*\b(\s*\()?`)
)

// operators are the words that stand where a metric could.
var operators = []string{"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"}

// Names returns the metrics that a query of PromQL reads, sorted, each once. It knows as much of the language as
// ours are written in.
func Names(expr string) []string {
	for _, no := range noNames {
		expr = no.ReplaceAllString(expr, " ")
	}
	var names []string
	for _, m := range word.FindAllStringSubmatch(expr, -1) {
		if function := m[1] != ""; !function && !slices.Contains(operators, m[0]) {
			names = append(names, m[0])
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
