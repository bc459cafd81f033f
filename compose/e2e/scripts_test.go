package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
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
	for _, pattern := range []string{"compose.yaml", "compose/*.sh", "compose/*.yaml", "compose/Dockerfile", "compose/tools/build.sh", "compose/consul/*.hcl", "compose/with/*", "compose/with/acl/*", "compose/with/acl/policies/*"} {
		files, err := filepath.Glob(filepath.Join(root(t), pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && info.IsDir() {
				continue
			}
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

func (s *scripts) command(ctx context.Context, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", append([]string{filepath.Join(s.dir, "compose", script)}, args...)...)
	cmd.Env = s.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// run a script to its end; out is all that it said.
func (s *scripts) run(t *testing.T, script string, args ...string) (out string, err error) {
	t.Helper()
	b, err := s.command(t.Context(), script, args...).CombinedOutput()
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

// listen holds a port.
func listen(t *testing.T, port int) int {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Skipf("port %d: %v", port, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

// suggested is what a line about a port names instead.
func suggested(t *testing.T, out, name string) (first, last int) {
	t.Helper()
	m := regexp.MustCompile(name + `=(\d+)(?:-(\d+))? in \.env`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("the script suggests nothing for %s:\n%s", name, out)
	}
	first, _ = strconv.Atoi(m[1])
	last = first
	if m[2] != "" {
		last, _ = strconv.Atoi(m[2])
	}
	return first, last
}

func TestHintAboutABusyPortNamesOneThatIsFree(t *testing.T) {
	s := newScripts(t)
	// The first that comes to mind is busy too, and the next belongs to another setting.
	busy := listen(t, 0)
	for busy > 44000 {
		busy = listen(t, 0)
	}
	next := listen(t, busy+10000)
	s.set("ROLLCALL_GATEWAY_PORT", strconv.Itoa(busy))
	s.set("ROLLCALL_USERS_PORT", strconv.Itoa(next+1))
	out, err := s.run(t, "check.sh")
	if err == nil || !strings.Contains(out, fmt.Sprintf("port %d is in use", busy)) {
		t.Fatalf("got %v; want an error about port %d:\n%s", err, busy, out)
	}
	got, _ := suggested(t, out, "ROLLCALL_GATEWAY_PORT")
	if got == next || got == next+1 || !fleet.Free(t.Context(), got) {
		t.Errorf("it suggests port %d; want one that is free and that no setting names:\n%s", got, out)
	}
}

func TestTwoHintsNameTwoPorts(t *testing.T) {
	s := newScripts(t)
	busy := listen(t, 0)
	for busy > 44000 {
		busy = listen(t, 0)
	}
	listen(t, busy+1)
	listen(t, busy+10000)
	s.set("ROLLCALL_GATEWAY_PORT", strconv.Itoa(busy))
	s.set("ROLLCALL_USERS_PORT", strconv.Itoa(busy+1))
	out, _ := s.run(t, "check.sh")
	one, _ := suggested(t, out, "ROLLCALL_GATEWAY_PORT")
	two, _ := suggested(t, out, "ROLLCALL_USERS_PORT")
	if one == two {
		t.Errorf("both get port %d:\n%s", one, out)
	}
}

// TestTwoGatewaysNeedTwoPortsAndAreToldSo does what it is told to until nothing is
// left to do: a port that was free may be another program's a moment later.
func TestTwoGatewaysNeedTwoPortsAndAreToldSo(t *testing.T) {
	s := newScripts(t)
	s.set("ROLLCALL_GATEWAY_REPLICAS", "2")
	names := []string{"ROLLCALL_GATEWAY_PORT", "ROLLCALL_GATEWAY_ADMIN_PORT", "ROLLCALL_USERS_PORT", "ROLLCALL_ORDERS_PORT"}
	out, err := s.run(t, "check.sh")
	if err == nil {
		t.Fatalf("no error for two gateways at one port:\n%s", out)
	}
	for _, name := range names {
		if first, last := suggested(t, out, name); last != first+1 {
			t.Errorf("for %s it suggests %d-%d; want two", name, first, last)
		}
	}
	for range 5 {
		for _, name := range names {
			if strings.Contains(out, name) {
				first, last := suggested(t, out, name)
				s.set(name, fmt.Sprintf("%d-%d", first, last))
			}
		}
		if out, err = s.run(t, "check.sh"); err == nil {
			return
		}
	}
	t.Errorf("with what it suggested, five times: %v\n%s", err, out)
}

func TestComposeTakesARangeOfPortsForTwoGateways(t *testing.T) {
	p := project(t, map[string]string{"ROLLCALL_GATEWAY_REPLICAS": "2", "ROLLCALL_GATEWAY_PORT": "18080-18081"})
	gateway := p.Services["gateway"]
	if got := gateway.GetScale(); got != 2 {
		t.Errorf("gateway ×%d; want ×2", got)
	}
	if got := published(p); !got["gateway 127.0.0.1:18080-18081->8080/tcp"] {
		t.Errorf("published are %v; want the range at port 8080", got)
	}
}

// around is Consul, Prometheus and the gateway for up.sh, at the ports that it expects them at.
type around struct {
	catalog map[string]string // service to its passing entries
	targets string
}

func (a around) start(t *testing.T, s *scripts) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/health/service/"):
			_, _ = io.WriteString(w, "["+a.catalog[strings.TrimPrefix(r.URL.Path, "/v1/health/service/")]+"]")
		case r.URL.Path == "/api/v1/targets":
			_, _ = io.WriteString(w, `{"status":"success","data":{"activeTargets":[`+a.targets+`]}}`)
		}
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"GATEWAY", "GATEWAY_ADMIN", "USERS", "ORDERS", "CONSUL", "PROMETHEUS"} {
		s.set("ROLLCALL_"+name+"_PORT", at.Port())
	}
	// What would stand in the way of a start is not what these tests are about.
	s.write(t, filepath.Join(s.dir, "compose", "check.sh"), "#!/usr/bin/env bash\n")
}

func entry(service, address string) string {
	return fmt.Sprintf(`{"Node":{"ID":"x","Node":"consul","Address":"10.0.0.2"},"Service":{"ID":"%s-1","Service":"%s","Tags":["prometheus"],"Address":"%s","TaggedAddresses":{"lan_ipv4":{"Address":"%s","Port":8080}},"Port":8080},"Checks":[]}`, service, service, address, address)
}

func upTarget(at, health string) string {
	return fmt.Sprintf(`{"discoveredLabels":{"__address__":"%s"},"labels":{"instance":"x"},"scrapePool":"mesh","scrapeUrl":"http://%s/metrics","lastError":"","health":"%s"}`, at, at, health)
}

const allHealthy = `consul healthy 10.0.0.2 
user healthy 10.0.0.3 
order healthy 10.0.0.4 
gateway healthy 10.0.0.5 
prometheus healthy 10.0.0.6 
`

func wellAround() around {
	return around{
		catalog: map[string]string{
			"consul":     entry("consul", ""),
			"user":       entry("user", "10.0.0.3"),
			"order":      entry("order", "10.0.0.4"),
			"gateway":    entry("gateway", "10.0.0.5"),
			"prometheus": entry("prometheus", "prometheus"),
		},
		targets: strings.Join([]string{
			upTarget("localhost:9090", "up"), upTarget("consul:8500", "up"),
			upTarget("10.0.0.3:8081", "up"), upTarget("10.0.0.4:8081", "up"), upTarget("10.0.0.5:8081", "up"),
		}, ","),
	}
}

func TestMakeUpBearsWithWhatOthersHaveInTheCatalog(t *testing.T) {
	s := newScripts(t)
	a := wellAround()
	a.catalog["order"] += "," + entry("order", "192.168.7.7")
	a.targets += "," + upTarget("192.168.7.7:8081", "down") + "," + upTarget("10.9.9.9:8080", "up")
	a.start(t, s)
	s.tell(t, "running", allHealthy)
	s.set("ROLLCALL_WAIT", "20")
	if out, err := s.run(t, "up.sh"); err != nil || !strings.Contains(out, "order 1/1") || !strings.Contains(out, "scraped 5/5, healthy 5/5") {
		t.Errorf("got %v; want all up:\n%s", err, out)
	}
}

func TestMakeUpWaitsUntilDockerSaysHealthyToo(t *testing.T) {
	s := newScripts(t)
	wellAround().start(t, s)
	s.tell(t, "running", strings.Replace(allHealthy, "order healthy", "order starting", 1))
	s.set("ROLLCALL_WAIT", "1")
	if out, err := s.run(t, "up.sh"); err == nil || !strings.Contains(out, "healthy 4/5") {
		t.Errorf("got %v with a container that is starting; want it waited for:\n%s", err, out)
	}
}

func TestMakeUpWaitsForEachOfItsOwn(t *testing.T) {
	for name, spoil := range map[string]func(*around){
		"one isn't in the catalog": func(a *around) { a.catalog["order"] = entry("order", "192.168.7.7") },
		"one isn't scraped": func(a *around) {
			a.targets = strings.Replace(a.targets, upTarget("10.0.0.4:8081", "up"), upTarget("10.0.0.4:8081", "down"), 1)
		},
		"Prometheus isn't in the catalog": func(a *around) { a.catalog["prometheus"] = "" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripts(t)
			a := wellAround()
			spoil(&a)
			a.start(t, s)
			s.tell(t, "running", allHealthy)
			s.set("ROLLCALL_WAIT", "1")
			if out, err := s.run(t, "up.sh"); err == nil || !strings.Contains(out, "not up after 1 s") {
				t.Errorf("got %v; want it waited for:\n%s", err, out)
			}
		})
	}
}

// interrupt runs up.sh and presses Ctrl-C once a file of the engine is there.
func (s *scripts) interrupt(t *testing.T, once string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := s.command(ctx, "up.sh")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for ctx.Err() == nil {
		if _, err := os.Stat(filepath.Join(s.fake, once)); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Errorf("the script was interrupted and says that all went well:\n%s", out.String())
	}
	if ctx.Err() != nil {
		t.Fatalf("no end:\n%s", out.String())
	}
	return out.String()
}

func TestCtrlCInTheMiddleOfMakeUpSaysSoInOneLine(t *testing.T) {
	t.Run("while it starts", func(t *testing.T) {
		s := newScripts(t)
		s.tell(t, "hang", "up")
		s.tell(t, "running", "consul starting 10.0.0.2 \nuser starting 10.0.0.3 \n")
		out := s.interrupt(t, "hangs")
		_, after, _ := strings.Cut(out, "Starting the fleet\n")
		if want := "error: interrupted; 2 of the fleet's containers run: `make up` goes on, `make down` stops them\n"; after != want {
			t.Errorf("it says %q; want %q at its end", out, want)
		}
	})
	t.Run("while it builds", func(t *testing.T) {
		s := newScripts(t)
		s.tell(t, "hang", "build")
		out := s.interrupt(t, "hangs")
		if want := "Building the images of the services\nerror: interrupted; nothing was started, and what was built is kept for the next `make up`\n"; out != want {
			t.Errorf("it says %q; want %q", out, want)
		}
	})
	t.Run("before it starts", func(t *testing.T) {
		s := newScripts(t)
		s.write(t, filepath.Join(s.dir, "compose", "check.sh"), "#!/usr/bin/env bash\ntouch \"$FAKE/checks\"\nsleep 60\n")
		out := s.interrupt(t, "checks")
		if want := "error: interrupted; nothing was started, and what was built is kept for the next `make up`\n"; out != want {
			t.Errorf("it says %q; want %q", out, want)
		}
	})
}

// withOverlays is a fleet that is well, and two overlays in place of those there are; the second has a script.
func withOverlays(t *testing.T) *scripts {
	t.Helper()
	s := newScripts(t)
	wellAround().start(t, s)
	s.tell(t, "running", allHealthy)
	s.set("ROLLCALL_WAIT", "20")
	if err := os.RemoveAll(filepath.Join(s.dir, "compose/with")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two"} {
		s.write(t, filepath.Join(s.dir, "compose/with", name+".yaml"), "services: {user: {environment: {WITH_"+strings.ToUpper(name)+": yes}}}\n")
	}
	s.write(t, filepath.Join(s.dir, "compose/with/two.sh"), "#!/usr/bin/env bash\necho 'script two' >>\"$FAKE/asked\"\n")
	return s
}

// dotEnv is .env of the copy.
func (s *scripts) dotEnv(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, ".env"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// user is the environment of the service user, as `docker compose` in the copy loads it.
func (s *scripts) user(t *testing.T) map[string]bool {
	t.Helper()
	t.Chdir(s.dir)
	opts, err := cli.NewProjectOptions(nil, cli.WithWorkingDirectory(s.dir), cli.WithEnvFiles(), cli.WithDotEnv,
		cli.WithConfigFileEnv, cli.WithDefaultConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	p, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for name := range p.Services["user"].Environment {
		has[name] = true
	}
	return has
}

func TestMakeUpWithOverlaysHoldsForEachLaterCompose(t *testing.T) {
	s := withOverlays(t)
	s.write(t, filepath.Join(s.dir, ".env"), "MINE=1\n")
	out, err := s.run(t, "up.sh", "one,two")
	if err != nil || !strings.Contains(out, "Starting the fleet, with one two\n") {
		t.Fatalf("got %v:\n%s", err, out)
	}
	asked := s.asked(t)
	script, up := strings.Index(asked, "script two"), strings.Index(asked, "compose up")
	if script < 0 || up < script {
		t.Errorf("the overlay's script was to run once, before the start: %s", asked)
	}
	if has := s.user(t); !has["WITH_ONE"] || !has["WITH_TWO"] {
		t.Errorf("docker compose sees %v; want both overlays, as .env says:\n%s", has, s.dotEnv(t))
	}
	if env := s.dotEnv(t); !strings.HasPrefix(env, "MINE=1\n") || !strings.Contains(env, "ROLLCALL_VERSION=test\n") {
		t.Errorf(".env is\n%s\nwant what was in it, and the choice of images", env)
	}
	if out, err := s.run(t, "up.sh", ""); err != nil || !strings.Contains(out, "with one two\n") {
		t.Errorf("without a word of overlays: got %v; want them as they were:\n%s", err, out)
	}
	if out, err := s.run(t, "up.sh", "two"); err != nil || !strings.Contains(out, "with two\n") {
		t.Errorf("with another choice: got %v:\n%s", err, out)
	}
	if has := s.user(t); has["WITH_ONE"] || !has["WITH_TWO"] {
		t.Errorf("docker compose sees %v; want the second overlay alone", has)
	}
	if out, err := s.run(t, "up.sh", "none"); err != nil || !strings.Contains(out, "Starting the fleet\n") {
		t.Errorf("with none: got %v:\n%s", err, out)
	}
	if has := s.user(t); has["WITH_ONE"] || has["WITH_TWO"] {
		t.Errorf("docker compose sees %v; want no overlay", has)
	}
}

func TestPortsThatAnOverlayAddsAreLookedAtToo(t *testing.T) {
	s := newScripts(t)
	busy := listen(t, 0)
	s.set("ROLLCALL_GRAFANA_PORT", strconv.Itoa(busy))
	if out, err := s.run(t, "check.sh"); err != nil {
		t.Fatalf("without the overlay: %v\n%s", err, out)
	}
	s.set("COMPOSE_FILE", "compose.yaml:compose/with/acl.yaml:compose/with/grafana.yaml")
	if out, err := s.run(t, "check.sh"); err == nil || !strings.Contains(out, fmt.Sprintf("port %d is in use; choose another: ROLLCALL_GRAFANA_PORT=", busy)) {
		t.Errorf("got %v; want an error about port %d, and none about ports that are in two files:\n%s", err, busy, out)
	} else if strings.Count(out, "error: ") != 2 { // that one, and that nothing was started
		t.Errorf("it finds more:\n%s", out)
	}
}

func TestMakeUpNamesTheOverlaysThatThereAre(t *testing.T) {
	s := withOverlays(t)
	for _, with := range []string{"three", "one,three", "../one", "one,none"} {
		out, err := s.run(t, "up.sh", with)
		if err == nil || !strings.Contains(out, "error: WITH is "+with+", and there is no ") || !strings.Contains(out, "want none, or some of one, two\n") {
			t.Errorf("WITH=%s: got %v:\n%s", with, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(s.dir, ".env")); err == nil {
		t.Errorf("what there is not is remembered:\n%s", s.dotEnv(t))
	}
	s.set("COMPOSE_FILE", "mine.yaml")
	if out, err := s.run(t, "up.sh", "one"); err == nil || !strings.Contains(out, "want one of them") {
		t.Errorf("beside a COMPOSE_FILE of the environment: got %v; want an error:\n%s", err, out)
	}
}

func TestMakeUpEndsWhereAnOverlaysScriptFails(t *testing.T) {
	s := withOverlays(t)
	s.write(t, filepath.Join(s.dir, "compose/with/two.sh"), "#!/usr/bin/env bash\necho 'error: no' >&2\nexit 1\n")
	out, err := s.run(t, "up.sh", "two")
	if err == nil || !strings.Contains(out, "error: no") || strings.Contains(s.asked(t), "compose up") {
		t.Errorf("got %v, and asked\n%s\nwant nothing started:\n%s", err, s.asked(t), out)
	}
}

func TestMakeCleanForgetsOverlaysAndTheirSecrets(t *testing.T) {
	s := withOverlays(t)
	if out, err := s.run(t, "up.sh", "two"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secret := filepath.Join(s.dir, "compose/.secrets/two/key")
	s.write(t, secret, "x")
	if out, err := s.run(t, "down.sh"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(secret); err != nil || !strings.Contains(s.dotEnv(t), "compose/with/two.yaml") {
		t.Errorf("make down forgot the overlay (%v): %s", err, s.dotEnv(t))
	}
	if out, err := s.run(t, "clean.sh"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, file := range []string{secret, filepath.Join(s.dir, ".env")} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is there after make clean", file)
		}
	}
}
