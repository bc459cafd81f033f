// Package fleet starts a composed fleet of its own for a test, and removes it.
//
// A Fleet runs from a copy of the checkout, under a project name and on host ports of its own, so that neither
// the checkout (`make up` writes .env) nor a fleet that runs already is touched. Down removes containers,
// volumes, networks, images and the copy, also those that an earlier run which was killed left behind.
// A Fleet may be used by several goroutines, Up and Down excepted.
package fleet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ports are the fleet's host ports, each on 127.0.0.1.
type Ports struct {
	Gateway, GatewayAdmin, Users, Orders, Consul, ConsulDNS, Prometheus int
}

// Defaults are the ports of a fleet that was told nothing.
var Defaults = Ports{Gateway: 8080, GatewayAdmin: 8081, Users: 5000, Orders: 5001, Consul: 8500, ConsulDNS: 8600, Prometheus: 9090}

// Env is the ports as compose.yaml wants them.
func (p Ports) Env() map[string]int {
	return map[string]int{
		"ROLLCALL_GATEWAY_PORT":       p.Gateway,
		"ROLLCALL_GATEWAY_ADMIN_PORT": p.GatewayAdmin,
		"ROLLCALL_USERS_PORT":         p.Users,
		"ROLLCALL_ORDERS_PORT":        p.Orders,
		"ROLLCALL_CONSUL_PORT":        p.Consul,
		"ROLLCALL_CONSUL_DNS_PORT":    p.ConsulDNS,
		"ROLLCALL_PROMETHEUS_PORT":    p.Prometheus,
	}
}

// Fleet is one composed fleet.
type Fleet struct {
	Project string // Compose's project name
	Dir     string // the copy of the checkout it runs from
	Ports   Ports
	images  string // "source" where the checkout's own `make up` found that images can't be pulled; else ""
	out     io.Writer
}

// services of the fleet, those that are built here first.
var services = []string{"user", "order", "gateway", "consul", "prometheus"}

// Image is the name of the image that the fleet builds for a service.
func (f *Fleet) Image(service string) string { return "rollcall/" + service + ":" + f.version() }

// version tags the images that a fleet builds.
func (f *Fleet) version() string { return "0.0.0-" + strings.TrimPrefix(f.Project, "rollcall-") }

// New prepares a fleet from the checkout at root: it removes what an earlier one of the same checkout left
// behind, copies the checkout, and chooses free ports. Progress goes to out.
func New(ctx context.Context, root string, out io.Writer) (*Fleet, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	// The name is the same each time, so that what a killed run left is found again, and another for each
	// checkout, so that two of them don't remove each other's fleet.
	sum := sha256.Sum256([]byte(root))
	f := &Fleet{Project: "rollcall-e2e-" + hex.EncodeToString(sum[:3]), out: out}
	f.Dir = filepath.Join(os.TempDir(), f.Project)
	if err := f.Down(ctx); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	}
	if err := copyCheckout(ctx, root, f.Dir); err != nil {
		return nil, err
	}
	if f.Ports, err = freePorts(ctx); err != nil {
		return nil, err
	}
	// What the checkout knows already need not be found out again, which can mean a long wait for a registry.
	if b, err := os.ReadFile(filepath.Join(root, ".env")); err == nil && strings.Contains(string(b), "ROLLCALL_BINARIES=host") {
		f.images = "source"
	}
	return f, nil
}

// Environ is the process environment of everything that is run against the fleet.
func (f *Fleet) Environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		// A setting of the fleet that runs beside this one must not reach it. Where images come from is the
		// machine's business, not the fleet's.
		return strings.HasPrefix(kv, "ROLLCALL_") && !strings.HasPrefix(kv, "ROLLCALL_IMAGES=") ||
			strings.HasPrefix(kv, "COMPOSE_") || strings.HasPrefix(kv, "MAKE") || strings.HasPrefix(kv, "MFLAGS")
	})
	env = append(env, "COMPOSE_PROJECT_NAME="+f.Project, "ROLLCALL_VERSION="+f.version(), "COMPOSE_ANSI=never")
	if f.images != "" && os.Getenv("ROLLCALL_IMAGES") == "" {
		env = append(env, "ROLLCALL_IMAGES="+f.images)
	}
	ports := f.Ports.Env()
	for _, k := range slices.Sorted(maps.Keys(ports)) {
		env = append(env, k+"="+strconv.Itoa(ports[k]))
	}
	return env
}

// Up starts the fleet as a person would, by `make up`, which returns when all of it is healthy.
func (f *Fleet) Up(ctx context.Context) error {
	cmd := command(ctx, "make", "--no-print-directory", "up")
	cmd.Dir, cmd.Env = f.Dir, f.Environ()
	cmd.Stdout, cmd.Stderr = f.out, f.out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make up: %w", err)
	}
	return nil
}

// Down removes everything that belongs to the fleet, volumes and images too. It goes by labels, not by
// compose.yaml, so that a broken one doesn't keep it from clearing up. It may be called at any time and twice.
func (f *Fleet) Down(ctx context.Context) error {
	err := f.Clear(ctx)
	// Images that were built under the project's own name, such as those of a tutorial's service.
	err = errors.Join(err, f.remove(ctx, []string{"image", "ls"}, []string{"image", "rm", "--force"}))
	for _, s := range []string{"user", "order", "gateway"} {
		if out, e := f.docker(ctx, "image", "ls", "--quiet", f.Image(s)); e == nil && out != "" {
			_, e = f.docker(ctx, "image", "rm", "--force", f.Image(s))
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, os.RemoveAll(f.Dir))
}

// Clear removes containers, volumes and networks: the next Up is a first one.
func (f *Fleet) Clear(ctx context.Context) error {
	return errors.Join(
		f.remove(ctx, []string{"container", "ls", "--all"}, []string{"container", "rm", "--force", "--volumes"}),
		f.remove(ctx, []string{"volume", "ls"}, []string{"volume", "rm", "--force"}),
		f.remove(ctx, []string{"network", "ls"}, []string{"network", "rm"}),
	)
}

// remove runs rm on everything of the project that list lists.
func (f *Fleet) remove(ctx context.Context, list, rm []string) error {
	out, err := f.docker(ctx, append(list, "--quiet", "--filter", "label=com.docker.compose.project="+f.Project)...)
	if err != nil || out == "" {
		return err
	}
	_, err = f.docker(ctx, append(rm, strings.Fields(out)...)...)
	return err
}

// Compose runs `docker compose` in the fleet's folder and returns its standard output.
func (f *Fleet) Compose(ctx context.Context, args ...string) (string, error) {
	return f.docker(ctx, append([]string{"compose"}, args...)...)
}

// Docker runs `docker` and returns its standard output, trimmed.
func (f *Fleet) Docker(ctx context.Context, args ...string) (string, error) {
	return f.docker(ctx, args...)
}

func (f *Fleet) docker(ctx context.Context, args ...string) (string, error) {
	r, err := f.Run(ctx, "docker", args...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("docker %s: exit code %d: %s", strings.Join(args, " "), r.Code, tail(r.Stderr, 2000))
	}
	return strings.TrimSpace(r.Stdout), err
}

// Result of a command that ran to its end.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run any command in the fleet's folder and environment. Its exit code is no error.
func (f *Fleet) Run(ctx context.Context, name string, args ...string) (Result, error) {
	cmd := command(ctx, name, args...)
	cmd.Env = f.Environ()
	if _, err := os.Stat(f.Dir); err == nil {
		cmd.Dir = f.Dir
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Code: -1}
	if cmd.ProcessState != nil {
		r.Code = cmd.ProcessState.ExitCode()
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return r, nil
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(r.Stderr, 2000))
	}
	return r, err
}

// Dump writes what one wants to see after a failure: the containers, and each service's last lines.
func (f *Fleet) Dump(ctx context.Context, w io.Writer, lines int) {
	ps, err := f.docker(ctx, "ps", "--all", "--filter", "label=com.docker.compose.project="+f.Project,
		"--format", "table {{.Names}}\t{{.Status}}\t{{.Ports}}")
	fmt.Fprintf(w, "--- containers of %s\n%s\n", f.Project, ps)
	if err != nil {
		fmt.Fprintln(w, err)
	}
	for _, s := range services {
		cs, err := f.Containers(ctx, s)
		if err != nil {
			fmt.Fprintln(w, err)
			continue
		}
		for _, c := range cs {
			r, err := f.Run(ctx, "docker", "logs", "--tail", strconv.Itoa(lines), c.ID)
			if err != nil {
				fmt.Fprintln(w, err)
				continue
			}
			fmt.Fprintf(w, "--- the last lines of %s at %s\n%s%s", c.Name, c.Address, r.Stdout, r.Stderr)
		}
	}
}

// command runs in a process group of its own, so that an interrupt from the terminal reaches this process
// alone, which then clears up; and a context that ends ends the whole group.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// copyCheckout copies the files that a clone of the checkout would have, with changes that are not committed
// yet: what Git ignores (.env, caches) stays behind.
func copyCheckout(ctx context.Context, from, to string) error {
	cmd := exec.CommandContext(ctx, "git", "-C", from, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("list the checkout's files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
	}
	return nil
}

func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil // in the index, no longer in the tree
	}
	if err != nil {
		return err
	}
	// World-readable whatever the umask: containers that are not root read some of them.
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, info.Mode().Perm())
}

// freePorts finds ports that nobody listens on. All are held until the last is found, so that none is given twice.
func freePorts(ctx context.Context) (Ports, error) {
	var p Ports
	var held []io.Closer
	defer func() {
		for _, c := range held {
			_ = c.Close()
		}
	}()
	for _, port := range []*int{&p.Gateway, &p.GatewayAdmin, &p.Users, &p.Orders, &p.Consul, &p.Prometheus} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return Ports{}, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, l)
		*port = l.Addr().(*net.TCPAddr).Port
	}
	// Consul's DNS needs the same port free for UDP and TCP.
	for range 20 {
		u, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", "127.0.0.1:0")
		if err != nil {
			return Ports{}, fmt.Errorf("find a free port: %w", err)
		}
		held = append(held, u)
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", u.LocalAddr().String())
		if err != nil {
			continue
		}
		held = append(held, l)
		p.ConsulDNS = l.Addr().(*net.TCPAddr).Port
		return p, nil
	}
	return Ports{}, errors.New("find a port that is free for UDP and TCP: none in 20 tries")
}

// FreePort finds one more port that nobody listens on.
func FreePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
