package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// clean returns text of strangers as a terminal may have it: what is not printable, or
// changes the direction of writing, is shown as an escape.
func clean(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case !unprintable(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// colours of words that say how something is, where they are a whole cell of a table.
var colours = map[string]string{
	"passing": green, "ok": green, "ready": green, "joined": green, "back": green, "found": green,
	"warning": yellow, "warn": yellow, "missing": yellow, "draining": yellow, "maintenance": yellow,
	"critical": red, "fail": red, "lost": red, "failed": red, "left": red, "refused": red,
}

const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	bold   = "\x1b[1m"
	plain  = "\x1b[0m"
)

// painted returns a word in its colour, followed by pad.
func painted(s *session, word, pad string) string {
	if colour := colours[word]; s.colour && colour != "" {
		return colour + word + plain + pad
	}
	return word + pad
}

const (
	gap      = 2 // columns between two of a table
	least    = 8 // columns that a cell keeps when a table is too wide
	ellipsis = "…"
)

// table prints rows below a header, in columns that fit the session's width: they are cut
// from the right on, and end with an ellipsis where they are. The cells may hold anything;
// a row may be shorter than the header.
func table(s *session, header []string, rows [][]string) {
	all := make([][]string, 0, len(rows)+1)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(header))
		for n := range cells {
			if n < len(row) {
				cells[n] = clean(row[n])
			}
		}
		all = append(all, cells)
	}
	widths := fit(s.width, all)
	var b strings.Builder
	for n, row := range all {
		b.Reset()
		for column, cell := range row {
			cell = cut(widths[column], cell)
			pad := ""
			if column < len(row)-1 {
				pad = strings.Repeat(" ", widths[column]-utf8.RuneCountInString(cell)+gap)
			}
			switch {
			case n > 0:
				b.WriteString(painted(s, cell, pad))
			case s.colour:
				b.WriteString(bold + cell + plain + pad)
			default:
				b.WriteString(cell + pad)
			}
		}
		fmt.Fprintln(s.out, strings.TrimRight(b.String(), " "))
	}
}

// fit returns the widths of the columns, with most columns of the terminal in all; 0
// means any number.
func fit(most int, rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	total := gap * (len(widths) - 1)
	for column := range widths {
		for _, row := range rows {
			widths[column] = max(widths[column], utf8.RuneCountInString(row[column]))
		}
		total += widths[column]
	}
	for column := len(widths) - 1; most > 0 && column >= 0; column-- {
		less := max(0, min(total-most, widths[column]-least))
		widths[column], total = widths[column]-less, total-less
	}
	return widths
}

// compact leaves out the columns in which no row has anything.
func compact(header []string, rows [][]string) ([]string, [][]string) {
	var kept []int
	for column := range header {
		if slices.ContainsFunc(rows, func(row []string) bool { return row[column] != none }) {
			kept = append(kept, column)
		}
	}
	pick := func(row []string) []string {
		cells := make([]string, 0, len(kept))
		for _, column := range kept {
			cells = append(cells, row[column])
		}
		return cells
	}
	all := make([][]string, 0, len(rows))
	for _, row := range rows {
		all = append(all, pick(row))
	}
	return pick(header), all
}

// cut shortens a cell to so many columns.
func cut(most int, cell string) string {
	if utf8.RuneCountInString(cell) <= most {
		return cell
	}
	runes := []rune(cell)
	return string(runes[:most-1]) + ellipsis
}

// form is how a command prints what it found.
type form struct {
	Output string `short:"o" enum:"table,wide,json,yaml" default:"table" help:"Form: ${enum}. wide has more columns, and does not cut them."`
}

// wide reports whether all columns are wanted. If so nothing of them is cut from now on.
func (f form) wide(s *session) bool {
	if f.Output == "wide" {
		s.width = 0
	}
	return f.Output == "wide"
}

// document prints a value as JSON or YAML, and reports whether that was asked for.
func (f form) document(s *session, value any) (done bool, err error) {
	if f.Output != "json" && f.Output != "yaml" {
		return false, nil
	}
	text, err := encode(value)
	if err == nil && f.Output == "yaml" {
		text, err = toYAML(text)
	}
	if err != nil {
		return true, err
	}
	_, err = s.out.Write(text)
	return true, err
}

// encode returns the value as indented JSON, with a line's end. What a terminal would
// take for a command is escaped, as JSON allows it to be.
func encode(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return escaped(b.Bytes()), nil
}

// escaped returns JSON or YAML in which each character that is not printable is escaped:
// the encoders leave marks of direction as they are, JSON's DEL and C1 controls as well.
// All of these are in quotes.
func escaped(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, r := range string(text) {
		switch {
		case r == '\n', !unprintable(r):
			out = utf8.AppendRune(out, r)
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}

// toYAML returns JSON as YAML, in the same order. Strings stay in quotes, so that none is
// taken for something else ("no", "1.10").
func toYAML(text []byte) ([]byte, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	unfold(&document, false)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := cmp.Or(encoder.Encode(&document), encoder.Close()); err != nil {
		return nil, err
	}
	return escaped(b.Bytes()), nil
}

// unfold gives each list and map of a node lines of its own, and takes the quotes off
// keys.
func unfold(n *yaml.Node, isKey bool) {
	if n.Kind != yaml.ScalarNode || isKey {
		n.Style = 0
	}
	for i, child := range n.Content {
		unfold(child, n.Kind == yaml.MappingNode && i%2 == 0)
	}
}
