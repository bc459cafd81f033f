// Package console reads the commands that a Markdown document shows, and compares what they print with what
// the document says they print.
//
// A document shows commands in fenced blocks marked console:
//
//		```console
//		$ curl localhost:8080/users/1
//		{"id":1,"name":"Alice"}
//		$ curl -i localhost:8080/users/9 \
//		>     -H 'Accept: application/json'
//		HTTP/1.1 404 Not Found
//		...
//		```
//
//	  - "$ " begins a command; it goes on in lines that begin with "> ".
//	  - The lines beneath it are what it prints. Without any, the output may be anything.
//	  - "..." on a line of its own stands for any number of lines, "..." within a line for any text.
//	  - A command must exit with 0.
//	  - A comment `<!-- not run: why -->` before the block takes its commands out.
package console

import (
	"fmt"
	"regexp"
	"strings"
)

// Command is one command of a document.
type Command struct {
	File string
	Line int
	Text string   // lines are joined by newlines
	Want []string // the lines shown beneath it
	// NotRun is why the document says that it is not to be run; "" means that it is.
	NotRun string
}

// Where names the command for a reader.
func (c Command) Where() string { return fmt.Sprintf("%s:%d", c.File, c.Line) }

var notRun = regexp.MustCompile(`^<!--\s*not run:\s*(.+?)\s*-->$`)

// Parse finds the commands of a document.
func Parse(file, markdown string) ([]Command, error) {
	p := parser{file: file}
	for i, line := range strings.Split(markdown, "\n") {
		line = strings.TrimRight(line, " \t\r")
		bare := strings.TrimLeft(line, " ")
		switch {
		case p.fence == "":
			p.text(i+1, bare)
		case bare == p.fence:
			p.fence, p.why = "", ""
		case p.ours:
			if err := p.console(i+1, line, bare); err != nil {
				return nil, err
			}
		}
	}
	if p.fence != "" {
		return nil, fmt.Errorf("%s:%d: the block is never closed", file, p.opened)
	}
	for i := range p.found {
		// Blank lines between a command's output and the next command are layout.
		w := p.found[i].Want
		for len(w) > 0 && w[len(w)-1] == "" {
			w = w[:len(w)-1]
		}
		p.found[i].Want = w
	}
	return p.found, nil
}

// parser is where Parse is in a document.
type parser struct {
	file   string
	found  []Command
	fence  string // of the block we are in; "" outside
	opened int
	ours   bool   // the block is a console
	shown  bool   // the block has had a command
	why    string // of the last "not run" comment, until the next block
}

// text reads a line outside of blocks.
func (p *parser) text(n int, bare string) {
	if ticks := len(bare) - len(strings.TrimLeft(bare, "`")); ticks >= 3 {
		info := strings.TrimSpace(bare[ticks:])
		p.fence, p.opened, p.ours, p.shown = bare[:ticks], n, info == "console", false
	} else if m := notRun.FindStringSubmatch(bare); m != nil {
		p.why = m[1]
	} else if bare != "" {
		p.why = ""
	}
}

// console reads a line of a console.
func (p *parser) console(n int, line, bare string) error {
	switch last := len(p.found) - 1; {
	case strings.HasPrefix(bare, "$ "):
		p.found = append(p.found, Command{File: p.file, Line: n, Text: bare[2:], NotRun: p.why})
		p.shown = true
	case !p.shown && line == "":
	case !p.shown:
		return fmt.Errorf(`%s:%d: a console block begins with %q; want a command that begins with "$ "`, p.file, n, line)
	case (strings.HasPrefix(bare, "> ") || bare == ">") && len(p.found[last].Want) == 0:
		p.found[last].Text += "\n" + strings.TrimPrefix(strings.TrimPrefix(bare, ">"), " ")
	default:
		p.found[last].Want = append(p.found[last].Want, line)
	}
	return nil
}

// Output is what a command printed.
type Output struct{ Stdout, Stderr string }

// Match compares what a command printed with what the document shows, and returns an error that shows both if
// they differ. A document may show the standard output alone, or after the standard error.
func Match(want []string, got Output) error {
	if len(want) == 0 {
		return nil
	}
	stdout := lines(got.Stdout)
	both := append(lines(got.Stderr), stdout...)
	if matchLines(want, stdout) || matchLines(want, both) {
		return nil
	}
	return fmt.Errorf("it printed\n%s\nthe document shows\n%s", indent(both), indent(want))
}

func lines(s string) []string {
	s = strings.TrimRight(s, " \t\r\n")
	if s == "" {
		return nil
	}
	l := strings.Split(s, "\n")
	for i := range l {
		l[i] = strings.TrimRight(l[i], " \t\r")
	}
	return l
}

func matchLines(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if isGap(want[0]) {
		for skip := range len(got) + 1 {
			if matchLines(want[1:], got[skip:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && matchLine(want[0], got[0]) && matchLines(want[1:], got[1:])
}

func isGap(line string) bool {
	line = strings.TrimSpace(line)
	return line == "..." || line == "…"
}

func matchLine(want, got string) bool {
	want = strings.ReplaceAll(want, "…", "...")
	if !strings.Contains(want, "...") {
		return want == got
	}
	parts := strings.Split(want, "...")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(got)
}

func indent(lines []string) string { return "    " + strings.Join(lines, "\n    ") }
