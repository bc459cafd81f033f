package text

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzCheck: what is taken can be written to a database, a log and JSON and
// read back, and can be seen.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"Laptop", " ", "a\nb", "\xff", "\ufffd", "\u200b", "日本語", strings.Repeat("ü", MaxLength+1), "a\x7f", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := Check("item", s); err != nil {
			if wrong, ok := errors.AsType[*InvalidError](err); !ok || wrong.Field != "item" || wrong.Problem == "" || !utf8.ValidString(err.Error()) {
				t.Errorf("Check(%q) = %v; want an *InvalidError that says what is wrong", s, err)
			}
			return
		}
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r\n\t\x1b\ufffd") || strings.TrimSpace(s) == "" || utf8.RuneCountInString(s) > MaxLength {
			t.Errorf("Check(%q) = nil", s)
		}
	})
}
