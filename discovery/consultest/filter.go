package consultest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
)

// filterTerm is the one form of comparison that is understood here.
var filterTerm = regexp.MustCompile(`^\s*([A-Za-z.]+)(?:\["([^"]*)"\])?\s*(==|!=)\s*(?:"([^"]*)"|` + "`([^`]*)`" + `)\s*`)

// filterOr is what joins two.
var filterOr = regexp.MustCompile(`^(?i:or)\b`)

// filter returns a test for one entry, given its fields by selector. It
// understands `Selector == "x"` and !=, `Selector["key"] == "x"` of what maps
// returns, where a key that is missing equals nothing, and several of them joined
// with or.
func filter[T any](expr string, fields map[string]func(T) string, maps ...func(T) map[string]string) (func(T) bool, error) {
	if expr == "" {
		return func(T) bool { return true }, nil
	}
	var terms []func(T) bool
	for rest := expr; ; {
		m := filterTerm.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		field := fields[m[1]]
		if (m[1] == "Meta" || m[1] == "Service.Meta") && len(maps) > 0 {
			field = keyed(maps[0], m[2])
		}
		if field == nil {
			return nil, &httpError{http.StatusInternalServerError, fmt.Sprintf("Failed to create boolean expression evaluator: Selector %q is not valid", m[1])}
		}
		want, equal := m[4]+m[5], m[3] == "=="
		terms = append(terms, func(v T) bool { return (field(v) == want) == equal })
		if rest = rest[len(m[0]):]; rest == "" {
			return func(v T) bool {
				return slices.ContainsFunc(terms, func(term func(T) bool) bool { return term(v) })
			}, nil
		}
		or := filterOr.FindString(rest)
		if or == "" {
			break
		}
		rest = rest[len(or):]
	}
	return nil, badRequest(`consultest understands filters of the form Selector == "x", joined with or; got %s`, expr)
}

// keyed is the field of a key. No value of Consul's has a NUL, so a key that is
// missing equals none.
func keyed[T any](of func(T) map[string]string, key string) func(T) string {
	return func(v T) string {
		if s, ok := of(v)[key]; ok {
			return s
		}
		return "\x00"
	}
}
