// Package clip shortens text of strangers, as it goes into errors, logs and answers.
package clip

import "unicode/utf8"

// To returns s, or as much of its beginning as most bytes hold, cut at a
// character's edge, with an ellipsis behind.
func To(most int, s string) string {
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
