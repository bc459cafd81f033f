package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestReferenceIsTheGrammars(t *testing.T) {
	compare(t, filepath.FromSlash("../../../docs/reference/command.md"), reference(model(t)))
}

// reference is the page about the command.
func reference(app *kong.Application) string {
	var b strings.Builder
	b.WriteString(`# The command ` + "`rollcall`" + `

<!-- Written by go test -update in discovery/cmd/rollcall: change the command's own help. -->

` + "```console" + `
$ go install github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall@latest
` + "```" + `

Which Consul is asked say Consul's own variables (` + "`CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN`" + ` and
the others); without them it is the agent at 127.0.0.1:8500. It needs ` + "`service:read`" + ` and
` + "`node:read`" + `. Text is in colour on a terminal only, and not with ` + "`NO_COLOR`" + `.

| exit code | means |
| --- | --- |
`)
	for _, row := range []struct {
		code  int
		means string
	}{
		{0, "all is well"},
		{exitNo, "the answer is no: nothing was found, a call has failed, something is to mend"},
		{exitUsage, "the command line or a variable is wrong"},
		{exitNoConsul, "Consul can't be asked: it is not there, or refuses"},
		{exitInterrupted, "interrupted; " + "`watch`" + " ends with 0"},
	} {
		fmt.Fprintf(&b, "| %d | %s |\n", row.code, row.means)
	}
	b.WriteString("\nThat of `register` is its program's.\n\n## Every command\n")
	flags(&b, app.Flags)
	for _, command := range app.Children {
		if !command.Hidden {
			describe(&b, command)
		}
	}
	return b.String()
}

func describe(b *strings.Builder, command *kong.Node) {
	fmt.Fprintf(b, "\n## rollcall %s\n\n%s\n", command.Name, command.Help)
	fmt.Fprintf(b, "\n```text\nrollcall %s\n```\n", command.Summary())
	if command.Detail != "" {
		fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(command.Detail))
	}
	if len(command.Positional) > 0 {
		b.WriteString("\n| argument | meaning |\n| --- | --- |\n")
		for _, argument := range command.Positional {
			fmt.Fprintf(b, "| `%s` | %s |\n", argument.Summary(), cell(argument.Help))
		}
	}
	flags(b, command.Flags)
}

func flags(b *strings.Builder, all []*kong.Flag) {
	if len(all) == 0 {
		return
	}
	b.WriteString("\n| flag | default | meaning |\n| --- | --- | --- |\n")
	for _, flag := range all {
		if flag.Hidden {
			continue
		}
		standard := ""
		if flag.HasDefault {
			standard = "`" + flag.Default + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", flag, standard, cell(flag.Help))
	}
}

// cell is a text in a table of Markdown.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
