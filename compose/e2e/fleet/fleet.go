// Package fleet starts a composed fleet of its own for a test, and removes it.
//
// A Fleet runs from a copy of the checkout, under a project name and on host ports of its own, so that neither
// the checkout (`make up` writes .env) nor a fleet that runs already is touched. Down removes containers,
// volumes, networks, images and the copy, also those that an earlier run which was killed left behind.
// A Fleet may be used by several goroutines, Up and Down excepted.
package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fleet is one composed fleet.
type Fleet struct {
	Project string // Compose's project name
	Dir     string // the copy of the checkout it runs from
	Ports   Ports
	images  string // "source" where the checkout's own `make up` found that images can't be pulled; else ""
	tags    string // Go build tags of the services; "" in an ordinary build
	out     io.Writer

	mu      sync.Mutex // guards what follows
	extra   []string   // environment, see Overlay
	halted  bool
	running map[*exec.Cmd]context.CancelFunc
}

// services of the fleet, those that are built here first.
var services = []string{"user", "order", "gateway", "consul", "prometheus"}

// Image is the name of the image that the fleet builds for a service.
func (f *Fleet) Image(service string) string { return f.Project + "/" + service + ":" + f.version() }

// version tags the images that a fleet builds.
func (f *Fleet) version() string { return "0.0.0-" + strings.TrimPrefix(f.Project, "rollcall-") }

// Config of a fleet.
type Config struct {
	// Root of the checkout. Required.
	Root string
	// Kind is the part of the project's name that says what the fleet is for: fleets of two kinds may run at
	// once. "" means e2e.
	Kind string
	// Tags are the Go build tags of the services, as ROLLCALL_TAGS takes them. "" means none: an ordinary build.
	Tags string
	// Out is where progress goes. nil means nowhere.
	Out io.Writer
}

// New prepares an ordinary fleet from the checkout at root. Progress goes to out.
func New(ctx context.Context, root string, out io.Writer) (*Fleet, error) {
	return Prepare(ctx, Config{Root: root, Out: out})
}

// Prepare a fleet: it removes what an earlier one of the same checkout and kind left behind, copies the
// checkout, and chooses free ports.
func Prepare(ctx context.Context, cfg Config) (*Fleet, error) {
	root, err := filepath.Abs(cfg.Root)
	if err != nil {
		return nil, err
	}
	if cfg.Kind == "" {
		cfg.Kind = "e2e"
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	// The name is the same each time, so that what a killed run left is found again, and another for each
	// checkout, so that two of them don't remove each other's fleet.
	sum := sha256.Sum256([]byte(root))
	f := &Fleet{Project: "rollcall-" + cfg.Kind + "-" + hex.EncodeToString(sum[:3]), tags: cfg.Tags, out: cfg.Out}
	f.Dir = filepath.Join(os.TempDir(), f.Project)
	if err := f.Down(ctx); err != nil {
		return nil, fmt.Errorf("remove what an earlier run left: %w", err)
	}
	if err := copyCheckout(ctx, root, f.Dir); err != nil {
		return nil, err
	}
	if f.Ports, err = FreePorts(ctx); err != nil {
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
	if f.tags != "" {
		env = append(env, "ROLLCALL_TAGS="+f.tags)
	}
	f.mu.Lock()
	env = append(env, f.extra...)
	f.mu.Unlock()
	ports := f.Ports.Env()
	for _, k := range slices.Sorted(maps.Keys(ports)) {
		env = append(env, k+"="+strconv.Itoa(ports[k]))
	}
	return env
}

// Overlay lays a Compose file, by its path in the checkout, over the fleet's own for every `docker compose` from
// now on; env is variables (NAME=value) for it. It changes nothing that runs: that is for Compose("up"). "" takes
// the overlay away.
func (f *Fleet) Overlay(file string, env ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.extra = nil
	if file != "" {
		f.extra = append([]string{"COMPOSE_FILE=compose.yaml" + string(os.PathListSeparator) + file}, env...)
	}
}

// Up starts the fleet as a person would, by `make up`, which returns when all of it is healthy.
func (f *Fleet) Up(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := command(ctx, "make", "--no-print-directory", "up")
	cmd.Dir, cmd.Env = f.Dir, f.Environ()
	cmd.Stdout, cmd.Stderr = f.out, f.out
	if err := f.runUnlessHalted(cmd, cancel); err != nil {
		return fmt.Errorf("make up: %w", err)
	}
	return nil
}

// Down removes everything that belongs to the fleet, volumes and images too. It goes by labels, not by
// compose.yaml, so that a broken one doesn't keep it from clearing up. It may be called at any time and twice.
func (f *Fleet) Down(ctx context.Context) error {
	err := f.Clear(ctx)
	err = errors.Join(err, f.remove(ctx, []string{"image", "ls"}, []string{"image", "rm", "--force"}))
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
	out, err := f.clearing(ctx, append(list, "--quiet", "--filter", "label=com.docker.compose.project="+f.Project)...)
	if err != nil || out == "" {
		return err
	}
	_, err = f.clearing(ctx, append(rm, strings.Fields(out)...)...)
	return err
}

// Dump writes what one wants to see after a failure: the containers, and each service's last lines.
func (f *Fleet) Dump(ctx context.Context, w io.Writer, lines int) {
	ps, err := f.docker(ctx, "ps", "--all", "--filter", "label=com.docker.compose.project="+f.Project,
		"--format", "table {{.Names}}\t{{.Status}}\t{{.Ports}}")
	fmt.Fprintf(w, "--- containers of %s\n%s\n", f.Project, ps)
	if err != nil {
		fmt.Fprintln(w, err)
	}
	f.logs(ctx, w, services, []string{"--tail", strconv.Itoa(lines)}, func(c Container, log string) {
		fmt.Fprintf(w, "--- the last lines of %s at %s\n%s", c.Name, c.Address, log)
	})
}

// logs hands what the containers of some services have logged to tell; what can't be had is told to w.
func (f *Fleet) logs(ctx context.Context, w io.Writer, services, which []string, tell func(c Container, log string)) {
	for _, s := range services {
		cs, err := f.Containers(ctx, s)
		if err != nil {
			fmt.Fprintln(w, err)
			continue
		}
		for _, c := range cs {
			r, err := f.Run(ctx, "docker", slices.Concat([]string{"logs"}, which, []string{c.ID})...)
			if err != nil {
				fmt.Fprintln(w, err)
				continue
			}
			tell(c, r.Stdout+r.Stderr)
		}
	}
}

// Tell writes what the containers of the services that are ours have logged since a time, the last lines of each, but
// for the requests: what they noticed, where Dump has the very last.
func (f *Fleet) Tell(ctx context.Context, w io.Writer, since time.Time, services []string, lines int) {
	f.logs(ctx, w, services, []string{"--since", since.UTC().Format(time.RFC3339Nano)}, func(c Container, log string) {
		said := notRequests(log)
		fmt.Fprintf(w, "--- what %s at %s noticed\n", c.Name, c.Address)
		for _, line := range said[max(0, len(said)-lines):] {
			fmt.Fprintln(w, line)
		}
	})
}

// notRequests returns the lines of a log that tell of something else than a request.
func notRequests(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if line = strings.TrimRight(line, "\n"); line != "" && !strings.Contains(line, `"msg":"request"`) {
			lines = append(lines, line)
		}
	}
	return lines
}
