package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rollcall-mesh/rollcall/compose/e2e/fleet"
)

// engine stands in for docker: a script of that name, first on the PATH, that answers from files of the test and
// keeps what it was asked in a file `asked`.
//
//	images   lines of " ID label=value label=value ", for `docker image ls --filter label=…`
//	running  what `docker inspect` says of the containers
//	hang     a command of `docker compose`, which says so in the file `hangs`, goes on until it is interrupted, and
//	         then fails with many words
const engine = `#!/usr/bin/env bash
cd "$FAKE" || exit
printf '%s\n' "$*" >>asked
case "$*" in
  'version '*) echo 20.10.24 ;;
  'compose version'*) echo 2.40.3 ;;
  'image ls'*)
    [[ $* =~ label=([^ ]*) ]] && label=${BASH_REMATCH[1]}
    touch images
    grep -F " $label " images | awk '{ print $1 }'
    ;;
  'ps '*) [ ! -e running ] || sed 's/.*/id/' running ;;
  'inspect '*) [ ! -e running ] || cat running ;;
  'compose '*)
    if [ -e hang ] && [[ " $* " = *" $(cat hang) "* ]]; then
      trap 'echo CANCELED; exit 1' INT
      touch hangs
      sleep 60
    fi
    ;;
esac
exit 0
`

// scripts is a copy of the scripts and Compose files, and an engine for them.
type scripts struct {
	dir  string // the copy
	fake string // the engine's files
	env  []string
}

func newScripts(t *testing.T) *scripts {
	t.Helper()
	s := &scripts{dir: filepath.Join(t.TempDir(), "checkout"), fake: t.TempDir()}
	for _, pattern := range []string{"compose.yaml", "compose/*.sh", "compose/*.yaml", "compose/Dockerfile", "compose/tools/build.sh"} {
		files, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			rel, err := filepath.Rel(root(t), file)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s.write(t, filepath.Join(s.dir, rel), string(b))
		}
	}
	s.write(t, filepath.Join(s.fake, "bin", "docker"), engine)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "ROLLCALL_") && !strings.HasPrefix(kv, "COMPOSE_") {
			s.env = append(s.env, kv)
		}
	}
	s.set("FAKE", s.fake)
	s.set("PATH", filepath.Join(s.fake, "bin")+string(os.PathListSeparator)+os.Getenv("PATH"))
	s.set("ROLLCALL_VERSION", "test")
	s.set("XDG_CACHE_HOME", t.TempDir())
	ports, err := fleet.FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, port := range ports.Env() {
		s.set(name, strconv.Itoa(port))
	}
	return s
}

func (s *scripts) set(name, value string) { s.env = append(s.env, name+"="+value) }

func (s *scripts) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// tell the engine what a file of it holds.
func (s *scripts) tell(t *testing.T, file, text string) {
	t.Helper()
	s.write(t, filepath.Join(s.fake, file), text)
}

func (s *scripts) asked(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.fake, "asked"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s *scripts) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(s.dir, "compose", script))
	cmd.Env = s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// run a script to its end; out is all that it said.
func (s *scripts) run(t *testing.T, script string) (out string, err error) {
	t.Helper()
	b, err := s.command(t.Context(), script).CombinedOutput()
	return string(b), err
}

func TestMakeCleanRemovesTheImagesOfItsOwnProjectOnly(t *testing.T) {
	const source = "org.opencontainers.image.source=https://github.com/rollcall-mesh/rollcall"
	for project, want := range map[string]string{"": "sha-ours", "other": "sha-others"} {
		t.Run("project "+project, func(t *testing.T) {
			s := newScripts(t)
			s.tell(t, "images", "sha-ours com.docker.compose.project=rollcall "+source+" \n"+
				"sha-others com.docker.compose.project=other "+source+" \n"+
				"sha-e2e com.docker.compose.project=rollcall-e2e-abc "+source+" \n")
			s.set("COMPOSE_PROJECT_NAME", project)
			if out, err := s.run(t, "clean.sh"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			removed := regexp.MustCompile(`(?m)^image rm .*$`).FindAllString(s.asked(t), -1)
			if diff := cmp.Diff([]string{"image rm --force " + want}, removed); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}

func TestImagesCarryTheirProjectsName(t *testing.T) {
	p := project(t, map[string]string{"COMPOSE_PROJECT_NAME": "another", "ROLLCALL_VERSION": "1"})
	for _, name := range []string{"user", "order", "gateway"} {
		if got, want := p.Services[name].Image, "another/"+name+":1"; got != want {
			t.Errorf("the image of %s is %s; want %s", name, got, want)
		}
	}
}
