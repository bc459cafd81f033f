package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestWordsAreCompletedByGrammarAndCatalog(t *testing.T) {
	agent := listening(t)
	for _, id := range []string{"order-1", "order-2", "order-$(reboot)"} {
		enter(t, agent.Client(), "order", id, "10.0.0.1")
	}
	enter(t, agent.Client(), "user", "user-1", "10.0.0.9")
	for words, want := range map[string]string{
		"":                           "call completion doctor drain explain ls register resolve undrain version watch",
		"re":                         "register resolve",
		"completion ":                "bash fish zsh",
		"ls -o ":                     "json table wide yaml",
		"ls --output j":              "json",
		"ls --output = y":            "yaml",
		"ls --output =":              "json table wide yaml",
		"ls ":                        "consul order user",
		"resolve --timeout 1s or":    "order",
		"resolve --tls or":           "order",
		"watch order u":              "user",
		"ls order ":                  "",
		"resolve --not":              "--not-tag",
		"ls --no":                    "",
		"explain ":                   "consul/ order/ user/",
		"explain order/":             "order/order-1 order/order-2",
		"explain user/user-1":        "user/user-1",
		"call order --protocol ":     "",
		"resolve order --protocol g": "grpc",
		"drain order/order-1":        "order/order-1",
		"nonsense -x ":               "",
	} {
		got := rollcall(t, append([]string{completeWord}, strings.Split(words, " ")...)...)
		if got.code != 0 || got.errs != "" || strings.Join(strings.Fields(got.out), " ") != want {
			t.Errorf("%q: got %q (exit code %d, %q); want %q", words, strings.Fields(got.out), got.code, got.errs, want)
		}
	}
}

func TestCompletionIsQuietWithoutConsul(t *testing.T) {
	for _, address := range []string{"127.0.0.1:1", "nonsense"} {
		t.Setenv("CONSUL_HTTP_ADDR", address)
		if got := rollcall(t, completeWord, "ls", ""); got != (result{}) {
			t.Errorf("with Consul at %s: got %+v; want nothing", address, got)
		}
	}
}

// shell runs a script in a shell, for which rollcall is a program.
func shell(t *testing.T, name, address, script string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
	dir := t.TempDir()
	program := fmt.Sprintf("#!/bin/sh\nexec env %s=1 '%s' \"$@\"\n", actVariable, os.Args[0])
	if err := os.WriteFile(filepath.Join(dir, "rollcall"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "CONSUL_HTTP_ADDR="+address)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return string(out)
}

func TestShellsCompleteWords(t *testing.T) {
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	enter(t, agent.Client(), "order", "order-1", "10.0.0.1")
	for _, c := range []struct{ shell, script, want string }{
		{"bash", `source <(rollcall completion bash) && COMP_WORDS=(rollcall ls or) COMP_CWORD=2 && _rollcall && echo "${COMPREPLY[*]}"`, "order"},
		{"bash", `source <(rollcall completion bash) && COMP_WORDS=(rollcall completion '') COMP_CWORD=2 && _rollcall && echo "${COMPREPLY[*]}"`, "bash fish zsh"},
		{"bash", `source <(rollcall completion bash) && complete -p rollcall`, "complete -o default -F _rollcall rollcall"},
		{"zsh", `compdef() { :; }; compadd() { echo "${(P)${@[-1]}}"; }; source <(rollcall completion zsh); words=(rollcall ls or) CURRENT=3; _rollcall`, "order"},
		{"fish", `rollcall completion fish | source; complete -C 'rollcall ls or'`, "order"},
	} {
		t.Run(c.shell, func(t *testing.T) {
			if got := strings.Fields(shell(t, c.shell, address, c.script)); !slices.Equal(got, strings.Fields(c.want)) {
				t.Errorf("got %q; want %q", got, c.want)
			}
		})
	}
}
