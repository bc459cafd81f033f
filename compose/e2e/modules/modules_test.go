// Package modules tests the project's Go modules as others get them: from a
// module proxy, which is made of this checkout.
package modules

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// prefix begins the path of each module of ours.
const prefix = "github.com/rollcall-mesh/rollcall"

// version is the one that our modules require of each other.
const version = "v0.1.0"

// mod is one of our modules: its path, and its folder in this checkout.
type mod struct{ path, dir string }

var tidy = flag.Bool("tidy", false, "make the modules tidy, in place of telling that they are not")

// A setup has a module proxy that serves our modules, and a module cache which
// holds nothing else.
type setup struct {
	root    string
	modules []mod
	env     []string
	cache   string
}

func prepare(t *testing.T) *setup {
	t.Helper()
	if testing.Short() {
		t.Skip("packs and builds modules")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	s := &setup{root: root, cache: t.TempDir()}
	data, err := os.ReadFile(filepath.Join(root, "go.work"))
	if err != nil {
		t.Fatal(err)
	}
	work, err := modfile.ParseWork("go.work", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range work.Use {
		dir := filepath.Join(root, use.Path)
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		s.modules = append(s.modules, mod{modfile.ModulePath(data), dir})
	}
	proxy := t.TempDir()
	for _, m := range s.modules {
		s.pack(t, proxy, m)
	}
	get := func(name string) string { return strings.TrimSpace(s.run(t, root, nil, "env", name)) }
	// What was downloaded before is taken from there.
	sources := []string{"file://" + proxy, "file://" + filepath.Join(get("GOMODCACHE"), "cache", "download"), get("GOPROXY")}
	s.env = []string{
		"GOWORK=off", "GOPROXY=" + strings.Join(sources, ","), "GOMODCACHE=" + s.cache,
		"GONOSUMDB=" + prefix + "," + prefix + "/*", "GOFLAGS=-modcacherw",
	}
	return s
}

// pack writes a module into the proxy, of what git has or would take. What
// belongs to a module below it is left out by the zip package.
func (s *setup) pack(t *testing.T, proxy string, m mod) {
	t.Helper()
	stage := t.TempDir()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
	list.Dir = m.dir
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(m.dir, name))
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(stage, name), data)
	}
	at := filepath.Join(proxy, m.path, "@v")
	var packed bytes.Buffer
	if err := zip.CreateFromDir(&packed, module.Version{Path: m.path, Version: version}, stage); err != nil {
		t.Fatalf("%s can't be published: %v", m.path, err)
	}
	write(t, filepath.Join(at, version+".zip"), packed.Bytes())
	goMod, err := os.ReadFile(filepath.Join(m.dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(at, version+".mod"), goMod)
	write(t, filepath.Join(at, version+".info"), fmt.Appendf(nil, `{"Version":%q}`, version))
	write(t, filepath.Join(at, "list"), []byte(version+"\n"))
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// try runs the go command; its output is stdout, else what it complained of.
func (s *setup) try(t *testing.T, dir string, env []string, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Dir, command.Stdout, command.Stderr = dir, &stdout, &stderr
	command.Env = append(append(os.Environ(), s.env...), env...)
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("go %s in %s: %w\n%s", strings.Join(args, " "), dir, err, stderr.String())
	}
	return stdout.String(), nil
}

func (s *setup) run(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	out, err := s.try(t, dir, env, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// versions returns the versions of what the services are built of, ours aside.
func (s *setup) versions(t *testing.T, env string) map[string]string {
	t.Helper()
	found := map[string]string{}
	out := s.run(t, filepath.Join(s.root, "services"), []string{env}, "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{.Version}}{{end}}", "./cmd/...")
	for line := range strings.Lines(out) {
		path, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path != "" && !strings.HasPrefix(path, prefix) {
			found[path] = version
		}
	}
	return found
}

// tidy has go mod tidy write a module's files. The sums of our own modules are
// taken out: they are known once these are published.
func (s *setup) tidy(t *testing.T, m mod) {
	t.Helper()
	s.run(t, m.dir, nil, "mod", "tidy")
	sums, err := os.ReadFile(filepath.Join(m.dir, "go.sum"))
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	var others []byte
	for line := range bytes.Lines(sums) {
		if !bytes.HasPrefix(line, []byte(prefix)) {
			others = append(others, line...)
		}
	}
	write(t, filepath.Join(m.dir, "go.sum"), others)
}

// files are those that the go command writes beside the code: the workspace's sums, and
// the go.mod and go.sum of each module. By their names; what is not there is empty.
func (s *setup) files(t *testing.T) map[string]string {
	t.Helper()
	names := []string{filepath.Join(s.root, "go.work.sum")}
	for _, m := range s.modules {
		names = append(names, filepath.Join(m.dir, "go.mod"), filepath.Join(m.dir, "go.sum"))
	}
	files := map[string]string{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		files[name] = string(data)
	}
	return files
}

func TestModules(t *testing.T) {
	s := prepare(t)
	before := s.files(t)

	t.Run("have no replace line", func(t *testing.T) {
		for _, m := range s.modules {
			data, err := os.ReadFile(filepath.Join(m.dir, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := modfile.Parse("go.mod", data, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(parsed.Replace) > 0 || len(parsed.Exclude) > 0 {
				t.Errorf("%s replaces or excludes; want neither, or it can't be installed by its version", m.path)
			}
		}
	})

	// A go.mod that says less than the code needs is found out only where the
	// workspace does not fill the gap.
	t.Run("are tidy without the workspace", func(t *testing.T) {
		for _, m := range append(slices.Clone(s.modules), mod{prefix + "/compose/e2e", filepath.Join(s.root, "compose", "e2e")}) {
			if *tidy {
				s.tidy(t, m)
				continue
			}
			out, err := s.try(t, m.dir, nil, "mod", "tidy", "-diff")
			if err != nil && out == "" {
				t.Error(err)
			}
			for line := range strings.Lines(out) {
				changes := strings.HasPrefix(line, "+") && !strings.HasPrefix(line, "+++") ||
					strings.HasPrefix(line, "-") && !strings.HasPrefix(line, "---")
				// The sums of our own modules are known once they are published.
				if changes && !strings.HasPrefix(line[1:], prefix) {
					t.Errorf("%s is not tidy, see `make tidy`:\n%s", m.path, out)
					break
				}
			}
		}
	})

	// Else the images, which are built in the workspace, are not what is
	// installed by version.
	t.Run("are built with the same versions in the workspace", func(t *testing.T) {
		// The sums of our own modules, which are not published, are noted in a copy.
		dir := t.TempDir()
		for _, name := range []string{"go.mod", "go.sum"} {
			write(t, filepath.Join(dir, name), []byte(before[filepath.Join(s.root, "services", name)]))
		}
		alone := s.versions(t, "GOFLAGS=-modcacherw -mod=mod -modfile="+filepath.Join(dir, "go.mod"))
		for path, version := range s.versions(t, "GOWORK="+filepath.Join(s.root, "go.work")) {
			if alone[path] != version {
				t.Errorf("services: %s is %s in the workspace and %s alone; want one version", path, version, alone[path])
			}
		}
	})

	// Without cgo, as the images are built: one compilation is enough for both.
	t.Run("can be installed", func(t *testing.T) {
		bin := t.TempDir()
		s.run(t, bin, []string{"GOBIN=" + bin, "CGO_ENABLED=0"}, "install", "-trimpath", prefix+"/services/cmd/user@"+version)
		if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "user"), "--help").CombinedOutput(); err != nil {
			t.Errorf("user --help: %v\n%s", err, out)
		}
	})

	t.Run("bring a client only what it needs", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "go.mod"), []byte("module example.com/client\n\ngo 1.26\n"))
		write(t, filepath.Join(dir, "main.go"), []byte("package main\n\nimport _ \""+prefix+"/discovery\"\n\nfunc main() {}\n"))
		own := t.TempDir()
		env := []string{"GOMODCACHE=" + own, "CGO_ENABLED=0"}
		s.run(t, dir, env, "get", prefix+"/discovery@"+version)
		s.run(t, dir, env, "build", "-trimpath", "-o", filepath.Join(dir, "client"), ".")
		var needed []string
		decoder := json.NewDecoder(strings.NewReader(s.run(t, dir, env, "list", "-deps", "-json=Module", ".")))
		for decoder.More() {
			var pkg struct{ Module *struct{ Path string } }
			if err := decoder.Decode(&pkg); err != nil {
				t.Fatal(err)
			}
			if pkg.Module != nil && !slices.Contains(needed, pkg.Module.Path) {
				needed = append(needed, pkg.Module.Path)
			}
		}
		slices.Sort(needed)
		for _, path := range needed {
			for _, heavy := range []string{"modernc.org/", "google.golang.org/", "github.com/pressly/", "github.com/alecthomas/", "github.com/go-kit/", "github.com/prometheus/", "go.opentelemetry.io/"} {
				if strings.HasPrefix(path, heavy) {
					t.Errorf("a client is built from %s; want it in the modules that use it only", path)
				}
			}
		}
		size, count := int64(0), 0
		err := filepath.WalkDir(filepath.Join(own, "cache", "download"), func(name string, _ os.DirEntry, err error) error {
			if info, e := os.Stat(name); e == nil && strings.HasSuffix(name, ".zip") {
				size += info.Size()
				count++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("a client builds from %d modules and downloads %d, %.1f MB: %s", len(needed), count, float64(size)/1e6, strings.Join(needed, " "))
	})
	// Else what is built after the test is not what was checked out.
	t.Run("are left as they were", func(t *testing.T) {
		if *tidy {
			t.Skip("it was to change them")
		}
		for name, now := range s.files(t) {
			if now != before[name] {
				t.Errorf("the test has changed %s", name)
			}
		}
	})
}
