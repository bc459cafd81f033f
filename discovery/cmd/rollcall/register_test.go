package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

// serveVariable has the test binary be a program that knows nothing of Consul, and
// listens at this address.
const serveVariable = "ROLLCALL_TEST_SERVE"

// serve is that program.
func serve(address string) int {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 98
	}
	defer l.Close()
	for s := range signals {
		fmt.Println("the program got", s)
		if s == syscall.SIGTERM {
			return 7
		}
	}
	return 97
}

// freeAddress is where nothing listens.
func freeAddress(t *testing.T) (address, port string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return l.Addr().String(), port
}

// patience is how long anything here may take, on a machine that is busy.
const patience = time.Minute

// awaitService waits until the catalog has what is wanted of a service.
func awaitService(t *testing.T, client *api.Client, service, what string, ok func(entries []*api.ServiceEntry) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var index uint64
	for {
		entries, meta, err := client.Health().Service(service, "", false, (&api.QueryOptions{WaitIndex: index, WaitTime: patience}).WithContext(ctx))
		if err != nil {
			t.Fatalf("the catalog never had %s of %s: %v", what, service, err)
		}
		if ok(entries) {
			return
		}
		index = meta.LastIndex
	}
}

// awaitText waits until the text has come.
func awaitText(t *testing.T, said *logtest.Buffer, text string) {
	t.Helper()
	limit, tick := time.NewTimer(patience), time.NewTicker(time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !strings.Contains(said.String(), text) {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("it never said %q:\n%s", text, said.String())
		}
	}
}

func passes(entries []*api.ServiceEntry) bool {
	return len(entries) == 1 && entries[0].Checks.AggregatedStatus() == api.HealthPassing
}

func isGone(entries []*api.ServiceEntry) bool { return len(entries) == 0 }

// inOrder checks that the text has these words in this order.
func inOrder(t *testing.T, text string, words ...string) {
	t.Helper()
	rest := text
	for _, word := range words {
		_, after, found := strings.Cut(rest, word)
		if !found {
			t.Errorf("%q is not where it should be; want %q in this order in\n%s", word, words, text)
			return
		}
		rest = after
	}
}

func TestRegisteredProgramIsAMemberUntilItHasEnded(t *testing.T) {
	eachConsul(t, func(t *testing.T, client *api.Client) {
		address, port := freeAddress(t)
		var said logtest.Buffer
		cmd := command(t, "register", "--name", "legacy", "--port", port, "--host", "127.0.0.1", "--id", "legacy-1", "--tag", "v1", "--meta", "owner=us", "--check-ttl", "15s",
			"--", "env", serveVariable+"="+address, os.Args[0])
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitService(t, client, "legacy", "an entry that passes", passes)
		entries, _, err := client.Health().Service("legacy", "", true, nil)
		if err != nil || !passes(entries) {
			t.Fatalf("got %v, %v; want the entry", entries, err)
		}
		if s := entries[0].Service; s.ID != "legacy-1" || net.JoinHostPort(s.Address, fmt.Sprint(s.Port)) != address || !slices.Contains(s.Tags, "v1") || s.Meta["owner"] != "us" {
			t.Errorf("got %+v; want what was asked for", s)
		}
		awaitText(t, &said, "legacy/legacy-1 is registered")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		text := said.String()
		if code := cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("got the exit code %d (%v); want the program's own, 7:\n%s", code, err, text)
		}
		inOrder(t, text, "legacy/legacy-1 is registered", "legacy/legacy-1 is draining", "the program got terminated", "legacy/legacy-1 is deregistered")
		awaitService(t, client, "legacy", "no entry", isGone)
	})
}

func TestWhatRunsElsewhereIsAMemberUntilTheInterrupt(t *testing.T) {
	eachConsul(t, func(t *testing.T, client *api.Client) {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		var said logtest.Buffer
		cmd := command(t, "register", "--name", "db", "--port", port, "--host", "127.0.0.1", "--check-tcp")
		cmd.Stdout, cmd.Stderr = &said, &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitService(t, client, "db", "an entry that passes", passes)
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("got %v; want the exit code 0:\n%s", err, said.String())
		}
		awaitService(t, client, "db", "no entry", isGone)
	})
}

// asked is an agent for the command, which tells what it was asked.
func asked(t *testing.T) *consultest.Agent {
	t.Helper()
	agent := consultest.New(t)
	address, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", address)
	return agent
}

func TestProgramThatEndsAtOnceIsNotRegistered(t *testing.T) {
	agent := asked(t)
	_, port := freeAddress(t)
	got := rollcall(t, "register", "--name", "legacy", "--port", port, "--", "sh", "-c", "exit 5")
	if got.code != 5 || !strings.Contains(got.errs, "not registered") {
		t.Errorf("got the exit code %d and %q; want the program's own, and why it is no member", got.code, got.errs)
	}
	if n := len(agent.Requests("/v1/agent/service/register")); n != 0 {
		t.Errorf("it was registered %d times", n)
	}
}

func TestWrongSettingIsToldBeforeTheProgramIsStarted(t *testing.T) {
	asked(t)
	_, port := freeAddress(t)
	started := filepath.Join(t.TempDir(), "started")
	for _, words := range [][]string{
		{"--name", "a b", "--port", port},
		{"--name", "legacy", "--port", "0"},
		{"--name", "legacy", "--port", port, "--host", "0.0.0.0"},
		{"--name", "legacy", "--port", port, "--check-http", "healthz"},
		{"--name", "legacy", "--port", port, "--protocol", "tcp"},
		{"--name", "legacy", "--port", port, "--check-tcp", "--check-http", "/"},
		{"--name", "legacy"},
	} {
		got := rollcall(t, append(append([]string{"register"}, words...), "--", "touch", started)...)
		if got.code != exitUsage || !strings.HasPrefix(got.errs, "rollcall: ") {
			t.Errorf("%v: got the exit code %d and %q; want %d and what is wrong", words, got.code, got.errs, exitUsage)
		}
	}
	if _, err := os.Stat(started); err == nil {
		t.Error("the program was started")
	}
}

func TestPortThatIsTakenIsTold(t *testing.T) {
	asked(t)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	got := rollcall(t, "register", "--name", "legacy", "--port", port, "--", "sh", "-c", "exit 0")
	if got.code != 1 || !strings.Contains(got.errs, port) || !strings.Contains(got.errs, "stop it") {
		t.Errorf("got the exit code %d and %q; want 1, and that something answers at the port", got.code, got.errs)
	}
	if got := rollcall(t, "register", "--name", "legacy", "--port", "1", "--", "no-such-program-anywhere"); got.code != 127 {
		t.Errorf("got the exit code %d and %q of a program that there is not; want 127", got.code, got.errs)
	}
}

func TestCheckIsAsConsulIsToRunIt(t *testing.T) {
	for _, c := range []struct {
		cmd  registerCmd
		path string
		n    int
	}{
		{registerCmd{}, "", 0},
		{registerCmd{CheckTCP: true}, "", 1},
		{registerCmd{CheckHTTP: "/healthz", TLS: true}, "/healthz", 1},
	} {
		c.cmd.Name, c.cmd.Port, c.cmd.Host = "legacy", 9000, "10.0.0.1"
		cfg := c.cmd.settings()
		if len(cfg.Checks) != c.n || c.n == 1 && (cfg.Checks[0].Path != c.path || cfg.Checks[0].TLSSkipVerify != c.cmd.TLS) {
			t.Errorf("got %+v of %+v", cfg.Checks, c.cmd)
		}
	}
}
