package clip_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rollcall-mesh/rollcall/internal/clip"
)

func TestTextIsCutAtACharactersEdge(t *testing.T) {
	for _, tc := range []struct {
		s    string
		most int
		want string
	}{
		{"", 3, ""},
		{"abc", 3, "abc"},
		{"abcd", 3, "abc…"},
		{"añb", 2, "a…"},
		{"añb", 3, "añ…"},
		{"😀", 3, "…"},
	} {
		if got := clip.To(tc.most, tc.s); got != tc.want {
			t.Errorf("To(%d, %q) = %q; want %q", tc.most, tc.s, got, tc.want)
		}
	}
}

func FuzzTo(f *testing.F) {
	f.Add("añb😀", 3)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 0 {
			return
		}
		got := clip.To(most, s)
		if kept, cut := strings.CutSuffix(got, "…"); got != s && (!cut || len(kept) > most || !strings.HasPrefix(s, kept)) {
			t.Errorf("To(%d, %q) = %q", most, s, got)
		}
		if utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("To(%d, %q) = %q, which is no text any more", most, s, got)
		}
	})
}
