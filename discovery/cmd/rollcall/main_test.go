package main

import (
	"bytes"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

var update = flag.Bool("update", false, "write testdata and the reference anew, in place of comparing with them")

// actVariable has the test binary be the command.
const actVariable = "ROLLCALL_TEST_ACT"

func TestMain(m *testing.M) {
	if address := os.Getenv(serveVariable); address != "" {
		os.Exit(serve(address))
	}
	if os.Getenv(actVariable) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// result is what a command printed, and its exit code.
type result struct {
	code      int
	out, errs string
}

// rollcall runs the command with these words.
func rollcall(t *testing.T, words ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), words, strings.NewReader(""), &out, &errs)
	return result{code, out.String(), errs.String()}
}

// screen is what a session writes to, for any number of goroutines.
type screen struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// take returns what was written since the last time.
func (s *screen) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.text.String()
	s.text.Reset()
	return text
}

// sessionOf is a session with an agent in memory.
func sessionOf(client *api.Client, out io.Writer) *session {
	log := slog.New(slog.DiscardHandler)
	return &session{
		in: strings.NewReader(""), out: out, errs: io.Discard, consul: client, timeout: 5 * time.Second, log: log,
		mesh: discovery.Config{Consul: discovery.Consul{Client: client}, Log: log},
	}
}

// eachConsul runs a test with our own Consul, and with a real one where there is one: the
// commands ask it by CONSUL_HTTP_ADDR.
func eachConsul(t *testing.T, do func(t *testing.T, client *api.Client)) {
	t.Run("consultest", func(t *testing.T) {
		agent := consultest.New(t)
		address, err := agent.Listen()
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("CONSUL_HTTP_ADDR", address)
		do(t, agent.Client())
	})
	t.Run("Consul", func(t *testing.T) {
		server := consultest.Real(t)
		t.Setenv("CONSUL_HTTP_ADDR", server.Addr())
		do(t, server.Client())
	})
}

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	compare(t, filepath.Join("testdata", name+".golden"), got)
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what it was; if that is meant, go test -update (-want +got):\n%s", file, diff)
	}
}

func TestExitCodeSaysWhatWentWrong(t *testing.T) {
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		env   map[string]string
		words []string
		code  int
		errs  string
	}{
		{name: "version", words: []string{"version"}},
		{name: "help", words: []string{"--help"}},
		{name: "a command's help", words: []string{"ls", "--help"}},
		{name: "no command", code: exitUsage, errs: "see rollcall --help"},
		{name: "unknown command", words: []string{"lst"}, code: exitUsage, errs: `unexpected argument lst`},
		{name: "unknown flag", words: []string{"ls", "--nope"}, code: exitUsage, errs: "see rollcall ls --help"},
		{name: "negative timeout", words: []string{"ls", "--timeout=-1s"}, code: exitUsage, errs: "--timeout is -1s; want more than 0"},
		{name: "too many requests", words: []string{"call", "order", "-n", "100001"}, code: exitUsage, errs: "--requests is 100001; want 1 to 100000"},
		{name: "no slash", words: []string{"call", "order", "orders"}, code: exitUsage, errs: `the path is "orders"`},
		{name: "instance without service", words: []string{"explain", "order-1"}, code: exitUsage, errs: "want service/ID"},
		{name: "no name of a service", words: []string{"ls", "a b"}, code: exitUsage, errs: "the service name is"},
		{name: "bad address", env: map[string]string{"CONSUL_HTTP_ADDR": "x"}, words: []string{"ls"}, code: exitUsage, errs: `CONSUL_HTTP_ADDR is "x"`},
		{name: "unknown service", words: []string{"ls", "nobody"}, code: exitNo, errs: "no instance of nobody"},
		{name: "no Consul", env: map[string]string{"CONSUL_HTTP_ADDR": "127.0.0.1:1"}, words: []string{"ls"}, code: exitNoConsul, errs: "or set CONSUL_HTTP_ADDR"},
		{name: "no Consul for one service", env: map[string]string{"CONSUL_HTTP_ADDR": "127.0.0.1:1"}, words: []string{"call", "order"}, code: exitNoConsul, errs: "or set CONSUL_HTTP_ADDR"},
		{name: "other scheme", env: map[string]string{"CONSUL_HTTP_ADDR": "https://" + address}, words: []string{"ls"}, code: exitNoConsul, errs: "use http in place of https"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("CONSUL_HTTP_ADDR", address)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			got := rollcall(t, c.words...)
			if got.code != c.code || !strings.Contains(got.errs, c.errs) {
				t.Errorf("got exit code %d and %q; want %d and %q", got.code, got.errs, c.code, c.errs)
			}
			if c.errs != "" && !strings.HasPrefix(got.errs, "rollcall: ") {
				t.Errorf("the error is %q; want it to begin with the program's name", got.errs)
			}
		})
	}
}

func TestTokenIsSaidToBeTheTroubleWhereItIs(t *testing.T) {
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	agent.Tokens("good")
	t.Setenv("CONSUL_HTTP_ADDR", address)
	t.Setenv("CONSUL_HTTP_TOKEN", "unknown")
	for _, words := range [][]string{{"ls"}, {"ls", "order"}, {"resolve", "order"}} {
		if got := rollcall(t, words...); got.code != exitNoConsul || !strings.Contains(got.errs, "set CONSUL_HTTP_TOKEN") {
			t.Errorf("%v: got exit code %d and %q; want %d and what to do", words, got.code, got.errs, exitNoConsul)
		}
	}
	t.Setenv("CONSUL_HTTP_TOKEN", "good")
	if got := rollcall(t, "ls"); got.code != 0 {
		t.Errorf("with the token: got exit code %d and %q; want 0", got.code, got.errs)
	}
}

func TestConsulThatIsSilentIsWaitedForUntilTheTimeout(t *testing.T) {
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", address)
	agent.Break("/v1/", consultest.Silent())
	for _, words := range [][]string{{"ls"}, {"ls", "order"}, {"watch", "--for", "100ms"}} {
		if got := rollcall(t, append(words, "--timeout", "50ms")...); got.code != exitNoConsul {
			t.Errorf("%v: got exit code %d and %q; want %d", words, got.code, got.errs, exitNoConsul)
		}
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	for _, command := range model(t).Children {
		_, examples, _ := strings.Cut(command.Detail, "Example")
		if !strings.Contains(examples, "rollcall "+command.Name) {
			t.Errorf("rollcall %s --help has no example of it:\n%s", command.Name, command.Detail)
		}
	}
}

func model(t *testing.T) *kong.Application {
	t.Helper()
	parser, err := newParser(new(cli), io.Discard, io.Discard, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return parser.Model
}

func TestVersionIsThatOfTheBuild(t *testing.T) {
	got := rollcall(t, "version")
	if !regexp.MustCompile(`^rollcall \S+ \(` + regexp.QuoteMeta(runtime.Version()) + `\)\n$`).MatchString(got.out) {
		t.Errorf("got %q; want a version and that of Go", got.out)
	}
}

// command is the program itself, as a process.
func command(t *testing.T, words ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], words...)
	cmd.Env = append(os.Environ(), actVariable+"=1")
	return cmd
}
