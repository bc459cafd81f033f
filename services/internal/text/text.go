// Package text has the rule for the short texts that people give us, such as a
// user's name or an order's item: [Check]. It has no state.
package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLength is the length of the longest text, in characters (Unicode code
// points, not bytes).
const MaxLength = 200

// InvalidError says which field can't be taken, and why.
type InvalidError struct {
	Field   string // as the sender calls it
	Problem string // what is wrong, and what is wanted
}

func (e *InvalidError) Error() string { return e.Field + " " + e.Problem }

// Check says what is wrong with the text of a field: nil, or an *InvalidError.
// It refuses what is empty, only white space, longer than MaxLength, or holds a
// control character (line breaks and tabs too) or the replacement character
// U+FFFD, into which decoders turn what was no text. Everything else is the
// sender's, white space around it included.
func Check(field, value string) error {
	bad := func(format string, args ...any) error {
		return &InvalidError{Field: field, Problem: fmt.Sprintf(format, args...)}
	}
	if value == "" {
		return bad("is empty; want 1 to %d characters", MaxLength)
	}
	if !utf8.ValidString(value) {
		return bad("is not UTF-8")
	}
	if length := utf8.RuneCountInString(value); length > MaxLength {
		return bad("is %d characters long; want 1 to %d", length, MaxLength)
	}
	at := 0
	for _, r := range value {
		at++
		if unicode.IsControl(r) {
			return bad("has the control character %U as its character %d; want none", r, at)
		}
		if r == utf8.RuneError {
			return bad("has the replacement character %U as its character %d: it was no valid text before", r, at)
		}
	}
	if strings.TrimFunc(value, invisible) == "" {
		return bad("is blank; want something that can be seen")
	}
	return nil
}

// invisible reports white space and the format characters (zero-width spaces
// and joiners, direction marks) that alone show nothing.
func invisible(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }
