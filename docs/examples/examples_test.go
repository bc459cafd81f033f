package examples_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	_ "github.com/rollcall-mesh/rollcall/discovery/kitmesh" // gokit is made of it
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything here may take, on a machine that is busy.
const patience = time.Minute

func TestExamplesFindAndAskEachOther(t *testing.T) {
	// The programs are built by a command, of which go test does not know: what it
	// reads and imports here decides whether a cached result still holds.
	sources, err := filepath.Glob("*/main.go")
	if err != nil || len(sources) != 4 {
		t.Fatalf("found the programs %v (%v); want 4", sources, err)
	}
	for _, file := range sources {
		if _, err := os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	programs := t.TempDir()
	command := exec.CommandContext(t.Context(), "go", "build", "-o", programs+string(filepath.Separator), "./...")
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for _, consul := range []struct {
		name  string
		start func(t *testing.T) (address string)
	}{
		{"a Consul in the test", func(t *testing.T) string {
			address, err := consultest.New(t).Listen()
			if err != nil {
				t.Fatal(err)
			}
			return address
		}},
		{"a real Consul", func(t *testing.T) string { return consultest.Real(t).Addr() }},
	} {
		t.Run(consul.name, func(t *testing.T) {
			f := &fleet{programs: programs, consul: consul.start(t)}
			server := f.start(t, "server")
			f.await(t, "greeter", 1)
			f.prints(t, "^Hello, Ann!\n$", "client", "http://greeter/greet/Ann")
			f.prints(t, "^Hello, Ann!\nserved by greeter-.*, one of 1, in 1 try\n$", "httpclient", "http://greeter/greet/Ann")

			kit := f.start(t, "gokit")
			f.await(t, "welcome", 1)
			f.prints(t, "^Welcome. Hello, Ann Lee!\n$", "client", "http://welcome/welcome/Ann%20Lee")

			for _, p := range []*program{kit, server} {
				p.stop(t)
			}
			f.await(t, "greeter", 0)
			f.await(t, "welcome", 0)
		})
	}
}

// fleet is the examples around one Consul.
type fleet struct {
	programs, consul string
	env              []string // of each program, besides Consul's address
}

func (f *fleet) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	path := filepath.Join(f.programs, name)
	if filepath.Ext(name) == ".py" {
		path, args = "python3", append([]string{filepath.Join("python", name)}, args...)
	}
	c := exec.CommandContext(ctx, path, args...)
	c.Env = append([]string{"CONSUL_HTTP_ADDR=" + f.consul}, f.env...)
	return c
}

// prints runs a program and compares what it prints.
func (f *fleet) prints(t *testing.T, want, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := f.command(ctx, name, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, &stderr)
	}
	if !regexp.MustCompile(want).Match(out) {
		t.Errorf("%s %q prints %q; want %q", name, args, out, want)
	}
}

// await returns when Consul says that so many instances of the service pass, and
// no other is there.
func (f *fleet) await(t *testing.T, service string, passing int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	mesh, err := discovery.Open(ctx, discovery.Config{Consul: discovery.Consul{Address: f.consul}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	for {
		s, err := mesh.Latest(ctx, service)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i := range s.All() {
			if i.State == catalog.StatePassing {
				found++
			}
		}
		if found == passing && s.Len() == passing {
			return
		}
		select {
		case <-s.Superseded():
		case <-ctx.Done():
			t.Fatalf("%d of %d instances of %s pass; want %d", found, s.Len(), service, passing)
		}
	}
}

// program is an example that runs until it is told to stop.
type program struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{} // closed when it has
	err    error         // valid then
}

func (f *fleet) start(t *testing.T, name string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{cmd: f.command(ctx, name), ended: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.ended
	})
	return p
}

// stop tells it to, and wants it to have left in order.
func (p *program) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
		if p.err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(p.cmd.Path), p.err, &p.stderr)
		}
	case <-time.After(patience):
		t.Errorf("%s has not stopped within %v", filepath.Base(p.cmd.Path), patience)
	}
}
