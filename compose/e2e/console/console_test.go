package console

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const document = "# Title\n" +
	"\n" +
	"```sh\n$ not ours\n```\n" +
	"```console\n" +
	"$ curl localhost:8080/users/1\n" +
	"{\"id\":1}\n" +
	"\n" +
	"$ curl -i \\\n" +
	">     localhost:8080   \n" +
	"HTTP/1.1 404 Not Found\n" +
	"...\n" +
	"```\n" +
	"   <!-- not run: it takes an hour -->\n" +
	"\n" +
	"   ```console\n" +
	"   $ sleep 3600\n" +
	"   ```\n" +
	"```console\n" +
	"$ true\n" +
	"```\n"

func TestParseFindsCommandsAndTheirOutput(t *testing.T) {
	got, err := Parse("a.md", document)
	if err != nil {
		t.Fatal(err)
	}
	want := []Command{
		{File: "a.md", Line: 7, Text: "curl localhost:8080/users/1", Want: []string{`{"id":1}`}},
		{File: "a.md", Line: 10, Text: "curl -i \\\n    localhost:8080", Want: []string{"HTTP/1.1 404 Not Found", "..."}},
		{File: "a.md", Line: 18, Text: "sleep 3600", NotRun: "it takes an hour"},
		{File: "a.md", Line: 21, Text: "true"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("commands (-want +got):\n%s", d)
	}
	if w := got[0].Where(); w != "a.md:7" {
		t.Errorf("Where is %q", w)
	}
}

func TestParseRefusesWhatItWouldMisread(t *testing.T) {
	for _, doc := range []string{"```console\n$ true\n", "```console\ncurl localhost\n```\n"} {
		if _, err := Parse("a.md", doc); err == nil || !strings.HasPrefix(err.Error(), "a.md:") {
			t.Errorf("Parse(%q): %v; want an error that says where", doc, err)
		}
	}
}

func TestMatchComparesLineByLine(t *testing.T) {
	for _, c := range []struct {
		want   string
		stdout string
		stderr string
		right  bool
	}{
		{"a", "a\n", "", true},
		{"a", "a \r\n\n", "", true},
		{"a", "b", "", false},
		{"a", "a\nb", "", false},
		{"a\nb", "a", "", false},
		{"...\nb", "a\na\nb", "", true},
		{"...\nb", "b", "", true},
		{"…\nb", "a", "", false},
		{"a\n...", "a\nb\nc", "", true},
		{"a ... c", "a b c", "", true},
		{"a ... c", "a b d", "", false},
		{"a.c ...", "abc d", "", false},
		{"...\n...\nx\n...", strings.Repeat("y\n", 100) + "x", "", true},
		{"a", "a", "progress", true},
		{"progress\na", "a", "progress", true},
		{"progress", "", "progress", true},
		{"progress", "a", "progress", false},
		{"a", "", "", false},
	} {
		err := Match(strings.Split(c.want, "\n"), Output{Stdout: c.stdout, Stderr: c.stderr})
		if (err == nil) != c.right {
			t.Errorf("want %q, got %q and %q: %v", c.want, c.stdout, c.stderr, err)
		}
	}
	if err := Match(nil, Output{Stdout: "anything"}); err != nil {
		t.Errorf("a command with no output shown may print anything; got %v", err)
	}
}

func shell(t *testing.T) *Shell {
	t.Helper()
	s, err := NewShell(t.TempDir(), []string{"PATH=/usr/local/bin:/usr/bin:/bin", "GREETING=hello"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestShellKeepsFolderAndVariables(t *testing.T) {
	s := shell(t)
	for _, c := range []struct{ command, want string }{
		{"mkdir sub && cd sub; ID=\"$(echo 4\\ 5)\"", ""},
		{"echo $(basename $PWD) \"$ID\" $GREETING", "sub 4 5 hello"},
		{"cat <<'EOF' > f\nx $y 'z'\nEOF", ""},
		{"cat f", "x $y 'z'"},
		{"echo out; echo err >&2", "out"},
	} {
		out, err := s.Run(t.Context(), c.command)
		if err != nil {
			t.Errorf("%s: %v: %s", c.command, err, out.Stderr)
		}
		if got := strings.TrimSpace(out.Stdout); got != c.want {
			t.Errorf("%s printed %q; want %q", c.command, got, c.want)
		}
	}
}

func TestShellReportsFailure(t *testing.T) {
	s := shell(t)
	if out, err := s.Run(t.Context(), "echo why >&2; false"); err == nil || out.Stderr != "why\n" {
		t.Errorf("got %+v, %v; want an error and why", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := s.Run(ctx, "sleep 60"); err == nil || time.Since(start) > 30*time.Second {
		t.Errorf("a command that does not end: %v after %v", err, time.Since(start))
	}
}

func TestShellDoesNotWaitForTheBackgroundAndEndsIt(t *testing.T) {
	s := shell(t)
	start := time.Now()
	out, err := s.Run(t.Context(), "sleep 60 & echo $!")
	if err != nil || time.Since(start) > 30*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
	pid := strings.TrimSpace(out.Stdout)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := shell(t)
	if _, err := other.Run(t.Context(), "for i in $(seq 100); do grep -qs ') [^Z]' /proc/"+pid+"/stat || exit 0; sleep 0.05; done; exit 1"); err != nil {
		t.Errorf("the background process %s still runs after Close", pid)
	}
}

func TestOnlyCommandsThatLookAreRepeatable(t *testing.T) {
	for command, want := range map[string]bool{
		"curl localhost:8080/users/1":                 true,
		"curl -i localhost:8080/users/1":              true,
		"dig @127.0.0.1 -p 8600 order.service.consul": true,
		"docker compose ps order":                     true,
		"curl -X POST localhost:8080/users":           false,
		"curl localhost:8080/users -d '{}'":           false,
		"curl localhost:8080 > f":                     false,
		"docker compose stop order":                   false,
		"make down":                                   false,
	} {
		if got := Repeatable(command); got != want {
			t.Errorf("Repeatable(%q) is %v", command, got)
		}
	}
}
