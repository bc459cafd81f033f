package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Shell: ${enum}."`
}

// Help is shown by --help.
func (*completionCmd) Help() string {
	return `It completes commands, flags, and the names of services and instances, for which it asks
Consul.

Examples:

    source <(rollcall completion bash)
    source <(rollcall completion zsh)
    rollcall completion fish | source`
}

// scripts have the shell ask for the words that may come next, see complete.
var scripts = map[string]string{
	"bash": `_rollcall() {
	local word
	COMPREPLY=()
	while IFS= read -r word; do
		COMPREPLY+=("$word")
	done < <(rollcall ` + completeWord + ` "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]]; then
		compopt -o nospace 2>/dev/null
	fi
	return 0
}
complete -o default -F _rollcall rollcall
`,
	"zsh": `_rollcall() {
	local -a found
	found=("${(@f)$(rollcall ` + completeWord + ` "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ ${#found} == 1 && $found[1] == */ ]]; then
		compadd -S '' -a found
	else
		compadd -a found
	fi
}
compdef _rollcall rollcall
`,
	"fish": `function __rollcall_complete
	set -l before (commandline -opc | tail -n +2)
	set -l current (commandline -ct)
	rollcall ` + completeWord + ` $before "$current" 2>/dev/null
end
complete -c rollcall -f -a '(__rollcall_complete)'
`,
}

// Run prints the script.
func (c *completionCmd) Run(_ context.Context, s *session) error {
	_, err := io.WriteString(s.out, scripts[c.Shell])
	return err
}

const (
	// completeWord has the program complete what follows; it is no command, for it takes
	// any words as they are.
	completeWord = "__complete"
	// completeWithin is how long Consul may take to answer: somebody waits with a finger
	// on the key.
	completeWithin = time.Second
)

// complete prints the words that the last one of words may become, one a line. Trouble
// makes them fewer.
func complete(ctx context.Context, parser *kong.Kong, words []string, out io.Writer) int {
	at := locate(parser.Model.Node, words)
	found := at.words()
	if at.named() == "service" || at.named() == "instance" {
		s, closeIdle, err := newSession(globals{Timeout: completeWithin}, strings.NewReader(""), out, io.Discard)
		if err == nil {
			found = at.ask(ctx, s)
			closeIdle()
		}
	}
	slices.Sort(found)
	for _, word := range found {
		// What a shell would take for more than a word is not put on its line.
		if strings.HasPrefix(word, at.current) && !strings.ContainsFunc(word, inNoWord) {
			fmt.Fprintln(out, word)
		}
	}
	return 0
}

func inNoWord(r rune) bool {
	isWord := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+,", r)
	return !isWord
}

// location is where in the grammar the word stands that is to be completed.
type location struct {
	node     *kong.Node
	flag     *kong.Flag // whose value it is; nil: it is none's
	argument int
	current  string
}

// locate follows the words from a node on.
func locate(node *kong.Node, words []string) location {
	l := location{node: node}
	if len(words) == 0 {
		return l
	}
	for _, word := range words[:len(words)-1] {
		switch {
		case word == "=": // as bash cuts --flag=value
		case l.flag != nil:
			l.flag = nil
		case strings.HasPrefix(word, "-"):
			l.flag = l.takesValue(word)
		case l.child(word) != nil:
			l.node, l.argument = l.child(word), 0
		default:
			l.argument++
		}
	}
	l.current = words[len(words)-1]
	if l.flag != nil && l.current == "=" {
		l.current = ""
	}
	return l
}

func (l location) child(name string) *kong.Node {
	for _, child := range l.node.Children {
		if child.Name == name {
			return child
		}
	}
	return nil
}

// flags are those that may stand here.
func (l location) flags() (all []*kong.Flag) {
	for _, group := range l.node.AllFlags(true) {
		all = append(all, group...)
	}
	return all
}

// takesValue returns the flag of a word, if the next word is its value.
func (l location) takesValue(word string) *kong.Flag {
	for _, flag := range l.flags() {
		if (word == "--"+flag.Name || flag.Short != 0 && word == "-"+string(flag.Short)) && !flag.IsBool() {
			return flag
		}
	}
	return nil
}

// words are those that the grammar has for the place.
func (l location) words() (all []string) {
	switch {
	case l.flag != nil:
		return enum(l.flag.Value)
	case strings.HasPrefix(l.current, "-"):
		for _, flag := range l.flags() {
			all = append(all, "--"+flag.Name)
		}
		return all
	}
	for _, child := range l.node.Children {
		if !child.Hidden && l.argument == 0 {
			all = append(all, child.Name)
		}
	}
	if value := l.value(); value != nil {
		all = append(all, enum(value)...)
	}
	return all
}

func enum(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// value is the argument that the word is; nil: it is none.
func (l location) value() *kong.Value {
	all := l.node.Positional
	switch {
	case l.flag != nil || strings.HasPrefix(l.current, "-") || len(all) == 0:
		return nil
	case l.argument < len(all):
		return all[l.argument]
	case all[len(all)-1].IsCumulative():
		return all[len(all)-1]
	}
	return nil
}

// named is the name of the argument; empty: it is none.
func (l location) named() string {
	if value := l.value(); value != nil {
		return value.Name
	}
	return ""
}

// ask asks Consul for the services, or the instances, that the word may become.
func (l location) ask(ctx context.Context, s *session) (all []string) {
	service, _, whole := strings.Cut(l.current, "/")
	if l.named() == "instance" && whole {
		sets, err := s.ask(ctx, service)
		if err != nil {
			return nil
		}
		for i := range sets[0].All() {
			all = append(all, service+"/"+i.ID)
		}
		return all
	}
	names, _ := s.services(ctx)
	if l.named() == "instance" {
		for n := range names {
			names[n] += "/"
		}
	}
	return names
}
