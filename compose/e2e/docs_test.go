package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/compose/e2e/console"
	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// greeterPort is the default host port of the tutorial's own service.
const greeterPort = 8082

// TestDocumentsShowWhatHappens runs the commands of the README, and those of the tutorial, each on a fleet in
// its first state, and compares what they print. The convention is that of package console.
//
// The fleet is another one than a reader's: its ports and its project's name are put into the commands, and
// those of the reader's back into what is printed. `git clone` and `make test` are left out; `make up` starts
// the fleet if the document has taken it down, and does nothing else.
func TestDocumentsShowWhatHappens(t *testing.T) {
	tutorial, err := filepath.Glob(filepath.Join(root(t), "docs/tutorial/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []struct {
		name  string
		files []string
	}{
		{"README", []string{filepath.Join(root(t), "README.md")}},
		{"tutorial", tutorial},
	} {
		t.Run(doc.name, func(t *testing.T) {
			var commands []console.Command
			for _, file := range doc.files {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				rel, err := filepath.Rel(root(t), file)
				if err != nil {
					t.Fatal(err)
				}
				c, err := console.Parse(rel, string(b))
				if err != nil {
					t.Fatal(err)
				}
				commands = append(commands, c...)
			}
			if len(commands) == 0 {
				t.Fatalf("there is no command in %v", doc.files)
			}
			runCommands(t, clean(t), commands)
		})
	}
}

func runCommands(t *testing.T, m *mesh, commands []console.Command) {
	t.Helper()
	tr, err := newTranslation(t.Context(), m.Fleet)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := console.NewShell(m.Dir, append(m.Environ(), fmt.Sprintf("GREETER_PORT=%d", tr.greeter)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shell.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range commands {
		switch what := kindOf(c); what {
		case leftOut:
			t.Logf("%s: left out: %s", c.Where(), c.Text)
		case startsFleet:
			if err := m.Up(t.Context()); err != nil {
				t.Fatalf("%s: %s: %v", c.Where(), c.Text, err)
			}
		default:
			if err := runCommand(t.Context(), shell, tr, c); err != nil {
				// What follows builds on it.
				t.Fatalf("%s: %s: %v\n%s", c.Where(), c.Text, err, m.dump())
			}
			t.Logf("%s: %s", c.Where(), c.Text)
		}
	}
}

// patience is how long a command that only looks may go on printing something else than the document shows.
const patience = 20 * time.Second

func runCommand(ctx context.Context, shell *console.Shell, tr *translation, c console.Command) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	began := time.Now()
	for {
		out, err := shell.Run(ctx, tr.command(c.Text))
		out = console.Output{Stdout: tr.output(out.Stdout), Stderr: tr.output(out.Stderr)}
		if err != nil {
			err = fmt.Errorf("%w\n%s%s", err, out.Stderr, out.Stdout)
		} else {
			err = console.Match(c.Want, out)
		}
		if err == nil || !console.Repeatable(c.Text) || time.Since(began) > patience {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(250 * time.Millisecond):
		}
	}
}

const (
	isRun = iota
	leftOut
	startsFleet
)

func kindOf(c console.Command) int {
	command, _, _ := strings.Cut(c.Text, "#")
	command = strings.TrimSpace(command)
	switch {
	case c.NotRun != "", strings.HasPrefix(command, "git clone"), command == "make test":
		return leftOut
	case command == "make up":
		return startsFleet
	}
	return isRun
}

// translation between a reader's fleet and this one.
type translation struct {
	project string
	greeter int
	ports   map[int]int // a reader's to ours
}

func newTranslation(ctx context.Context, f *fleet.Fleet) (*translation, error) {
	greeter, err := fleet.FreePort(ctx)
	if err != nil {
		return nil, err
	}
	tr := &translation{project: f.Project, greeter: greeter, ports: map[int]int{greeterPort: greeter}}
	ours := f.Ports.Env()
	for name, port := range fleet.Defaults.Env() {
		tr.ports[port] = ours[name]
	}
	return tr, nil
}

// A port is one if it follows a host of this machine, or dig's -p.
var port = regexp.MustCompile(`((?:localhost|127\.0\.0\.1|0\.0\.0\.0):|-p )(\d{4,5})\b`)

// Names that Compose derives from the project's.
var derived = regexp.MustCompile(`\brollcall([-_](?:consul|prometheus|user|order|gateway|greeter|default)\b)`)

func (tr *translation) command(s string) string {
	s = replacePorts(s, tr.ports)
	return derived.ReplaceAllString(s, tr.project+"$1")
}

func (tr *translation) output(s string) string {
	back := map[int]int{}
	for theirs, ours := range tr.ports {
		back[ours] = theirs
	}
	return strings.ReplaceAll(replacePorts(s, back), tr.project, "rollcall")
}

func replacePorts(s string, to map[int]int) string {
	return port.ReplaceAllStringFunc(s, func(match string) string {
		m := port.FindStringSubmatch(match)
		n, err := strconv.Atoi(m[2])
		if p, ok := to[n]; err == nil && ok {
			return m[1] + strconv.Itoa(p)
		}
		return match
	})
}

func TestTranslationGoesBothWays(t *testing.T) {
	tr := &translation{project: "rollcall-e2e-abc", ports: map[int]int{8080: 41234, 8600: 45678}}
	for theirs, ours := range map[string]string{
		"curl localhost:8080/users/1":                     "curl localhost:41234/users/1",
		"dig @127.0.0.1 -p 8600 order.service.consul":     "dig @127.0.0.1 -p 45678 order.service.consul",
		"docker stop rollcall-order-1":                    "docker stop rollcall-e2e-abc-order-1",
		"docker volume inspect rollcall_order-data":       "docker volume inspect rollcall-e2e-abc_order-data",
		"curl http://localhost:8080 # of rollcall-mesh":   "curl http://localhost:41234 # of rollcall-mesh",
		"docker run --rm -p 127.0.0.1:8080:80 rollcall/x": "docker run --rm -p 127.0.0.1:41234:80 rollcall/x",
		"echo 8080 localhost:9999":                        "echo 8080 localhost:9999",
	} {
		if got := tr.command(theirs); got != ours {
			t.Errorf("command(%q) is %q; want %q", theirs, got, ours)
		}
		if got := tr.output(ours); got != theirs {
			t.Errorf("output(%q) is %q; want %q", ours, got, theirs)
		}
	}
}

func TestDocumentsCommandsAreReadable(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.md", "docs/*/*.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := console.Parse(file, string(b)); err != nil {
			t.Error(err)
		}
	}
}
