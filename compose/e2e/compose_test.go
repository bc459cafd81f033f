package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http/httpproxy"
)

// longestDrain is what a service may need from SIGTERM to its exit.
const longestDrain = 10 * time.Second

// ports is every published port: its variable, its default, and where it leads.
var ports = []struct {
	variable string
	preset   string
	service  string
	target   uint32
	protocol string
}{
	{"ROLLCALL_GATEWAY_PORT", "8080", "gateway", 8080, "tcp"},
	{"ROLLCALL_GATEWAY_ADMIN_PORT", "8081", "gateway", 8081, "tcp"},
	{"ROLLCALL_USERS_PORT", "5000", "gateway", 5000, "tcp"},
	{"ROLLCALL_ORDERS_PORT", "5001", "gateway", 5001, "tcp"},
	{"ROLLCALL_CONSUL_PORT", "8500", "consul", 8500, "tcp"},
	{"ROLLCALL_CONSUL_DNS_PORT", "8600", "consul", 8600, "tcp"},
	{"ROLLCALL_CONSUL_DNS_PORT", "8600", "consul", 8600, "udp"},
	{"ROLLCALL_PROMETHEUS_PORT", "9090", "prometheus", 9090, "tcp"},
}

// root is the checkout's root folder.
func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// project loads compose.yaml, and overlays over it, as `docker compose` would with this environment, and no .env.
func project(t *testing.T, env map[string]string, overlays ...string) *types.Project {
	t.Helper()
	dir := root(t)
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	files := []string{filepath.Join(dir, "compose.yaml")}
	for _, overlay := range overlays {
		files = append(files, filepath.Join(dir, overlay))
	}
	opts, err := cli.NewProjectOptions(
		files,
		cli.WithWorkingDirectory(dir),
		cli.WithEnv(list),
	)
	if err != nil {
		t.Fatal(err)
	}
	p, err := opts.LoadProject(context.Background())
	if err != nil {
		t.Fatalf("load compose.yaml: %v", err)
	}
	return p
}

func eachService(t *testing.T, check func(t *testing.T, s types.ServiceConfig)) {
	t.Helper()
	p := project(t, nil)
	for _, name := range p.ServiceNames() {
		t.Run(name, func(t *testing.T) { check(t, p.Services[name]) })
	}
}

// ours are the services built from this repository.
func ours(s types.ServiceConfig) bool { return s.Build != nil }

func TestComposeNamesServicesAndVolumesAsTheCatalogDoes(t *testing.T) {
	p := project(t, nil)
	if p.Name != "rollcall" {
		t.Errorf("the project's name is %q; want rollcall", p.Name)
	}
	services := p.ServiceNames()
	slices.Sort(services)
	if d := cmp.Diff([]string{"consul", "gateway", "order", "prometheus", "user"}, services); d != "" {
		t.Errorf("services (-want +got):\n%s", d)
	}
	volumes := p.VolumeNames()
	slices.Sort(volumes)
	if d := cmp.Diff([]string{"consul-data", "order-data", "prometheus-data", "user-data"}, volumes); d != "" {
		t.Errorf("volumes (-want +got):\n%s", d)
	}
	for name, v := range p.Volumes {
		if v.Name != p.Name+"_"+name || bool(v.External) {
			t.Errorf("volume %s is %q, external %v; want the project's own", name, v.Name, v.External)
		}
	}
}

func TestComposePublishesOnLoopbackAtItsDefaultPorts(t *testing.T) {
	want := map[string]bool{}
	for _, p := range ports {
		want[fmt.Sprintf("%s 127.0.0.1:%s->%d/%s", p.service, p.preset, p.target, p.protocol)] = true
	}
	if d := cmp.Diff(want, published(project(t, nil))); d != "" {
		t.Errorf("published ports (-want +got):\n%s", d)
	}
}

func TestComposeMovesEachPortByItsVariable(t *testing.T) {
	for _, moved := range ports {
		t.Run(moved.variable+"/"+moved.protocol, func(t *testing.T) {
			want := map[string]bool{}
			for _, p := range ports {
				port := p.preset
				if p.variable == moved.variable {
					port = "12345"
				}
				want[fmt.Sprintf("%s 127.0.0.1:%s->%d/%s", p.service, port, p.target, p.protocol)] = true
			}
			if d := cmp.Diff(want, published(project(t, map[string]string{moved.variable: "12345"}))); d != "" {
				t.Errorf("published ports with %s=12345 (-want +got):\n%s", moved.variable, d)
			}
		})
	}
}

func TestConsulLinksToPrometheusWhereItIsPublished(t *testing.T) {
	p := project(t, map[string]string{"ROLLCALL_PROMETHEUS_PORT": "12345"})
	if c := strings.Join(p.Services["consul"].Command, " "); !strings.Contains(c, "http://localhost:12345/") {
		t.Errorf("Consul's command is %q; want a dashboard URL with Prometheus' port", c)
	}
}

func published(p *types.Project) map[string]bool {
	got := map[string]bool{}
	for _, s := range p.Services {
		for _, port := range s.Ports {
			got[fmt.Sprintf("%s %s:%s->%d/%s", s.Name, port.HostIP, port.Published, port.Target, port.Protocol)] = true
		}
	}
	return got
}

func TestComposeScalesUserAndOrder(t *testing.T) {
	p := project(t, nil)
	for service, want := range map[string]int{"user": 2, "order": 3, "gateway": 1, "consul": 1, "prometheus": 1} {
		s := p.Services[service]
		if got := s.GetScale(); got != want {
			t.Errorf("%s ×%d; want ×%d", service, got, want)
		}
		if s.ContainerName != "" {
			t.Errorf("%s has container_name %q: it can't scale, nor can a second fleet run", service, s.ContainerName)
		}
		if s.Hostname != "" {
			t.Errorf("%s has hostname %q: its instances' IDs would be the same", service, s.Hostname)
		}
		for name, n := range s.Networks {
			if n != nil && (n.Ipv4Address != "" || n.Ipv6Address != "") {
				t.Errorf("%s has a fixed address in network %s", service, name)
			}
		}
		if (service == "user" || service == "order") && len(s.Ports) > 0 {
			t.Errorf("%s publishes %v; what scales has no host port", service, s.Ports)
		}
		if s.NetworkMode != "" && s.NetworkMode != "bridge" {
			t.Errorf("%s has network_mode %q", service, s.NetworkMode)
		}
	}
}

func TestComposeGivesContainersNoRights(t *testing.T) {
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		user, group, _ := strings.Cut(s.User, ":")
		if uid, err := strconv.Atoi(user); err != nil || uid == 0 || group == "0" {
			t.Errorf("user is %q; want a numeric one that is not root, which Docker can check", s.User)
		}
		if !s.ReadOnly {
			t.Error("the root file system can be written to; want read_only")
		}
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 {
			t.Errorf("cap_drop %v, cap_add %v; want ALL and none", s.CapDrop, s.CapAdd)
		}
		if !slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
			t.Errorf("security_opt is %v; want no-new-privileges:true", s.SecurityOpt)
		}
		if s.Privileged || s.Pid != "" || s.Ipc != "" || len(s.Devices) > 0 {
			t.Errorf("privileged %v, pid %q, ipc %q, devices %v; want none", s.Privileged, s.Pid, s.Ipc, s.Devices)
		}
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeBind && !v.ReadOnly {
				t.Errorf("the host's %s is mounted and can be written to", v.Source)
			}
			if strings.HasSuffix(v.Source, "docker.sock") {
				t.Error("Docker's socket is mounted")
			}
		}
	})
}

func TestComposeBoundsMemoryProcessesAndLogs(t *testing.T) {
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		memory, pids := int64(s.MemLimit), s.PidsLimit
		if s.Deploy != nil && s.Deploy.Resources.Limits != nil {
			memory, pids = int64(s.Deploy.Resources.Limits.MemoryBytes), s.Deploy.Resources.Limits.Pids
		}
		if memory < 64<<20 || memory > 1<<30 {
			t.Errorf("the memory limit is %d bytes; want 64 MiB to 1 GiB", memory)
		}
		if pids < 16 || pids > 1024 {
			t.Errorf("the pids limit is %d; want 16 to 1024", pids)
		}
		if l := s.Logging; l == nil || l.Driver != "json-file" && l.Driver != "local" ||
			l.Options["max-size"] == "" || l.Options["max-file"] == "" {
			t.Errorf("logging is %+v; want json-file or local with max-size and max-file", l)
		}
		if env := s.Environment["GOMEMLIMIT"]; env == nil {
			t.Error("GOMEMLIMIT is not set: Go's collector does not know of the limit")
		}
	})
}

func TestComposeRestartsAndStopsWithinGrace(t *testing.T) {
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		if s.Restart != "unless-stopped" {
			t.Errorf("restart is %q; want unless-stopped", s.Restart)
		}
		if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) <= longestDrain {
			t.Errorf("stop_grace_period is %v; want more than the drain's %v", s.StopGracePeriod, longestDrain)
		}
		if s.StopSignal != "" && s.StopSignal != "SIGTERM" {
			t.Errorf("stop_signal is %q; want SIGTERM", s.StopSignal)
		}
	})
}

func TestComposeAsksHealthOfABinaryWithoutShell(t *testing.T) {
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		h := s.HealthCheck
		if h == nil || h.Disable || len(h.Test) < 3 {
			t.Fatalf("healthcheck is %+v; want CMD, the binary, a subcommand", h)
		}
		if h.Test[0] != "CMD" || !strings.HasPrefix(h.Test[1], "/bin/") {
			t.Errorf("the health check is %q; want CMD and a binary's path", h.Test)
		}
		binary := filepath.Base(h.Test[1])
		for _, shell := range []string{"sh", "bash", "busybox", "curl", "wget"} {
			if binary == shell {
				t.Errorf("the health check is %q; an image from scratch has none", h.Test)
			}
		}
		// Prometheus' own health command is promtool's, which comes with it.
		if binary != s.Name && (s.Name != "prometheus" || binary != "promtool") {
			t.Errorf("the health check runs %s; want a subcommand of %s", binary, s.Name)
		}
		if h.Interval == nil || h.Timeout == nil || h.Retries == nil || h.StartPeriod == nil {
			t.Errorf("the health check %+v leaves an interval, timeout, retries or start_period to Docker's 30 s", h)
		}
	})
}

func TestComposeStopsEverythingBeforeConsulAndStartsItWithout(t *testing.T) {
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		if s.Name == "consul" {
			if len(s.DependsOn) > 0 {
				t.Errorf("depends on %v; want nothing", s.DependsOn)
			}
			return
		}
		want := []string{"consul"}
		if got := slices.Collect(maps.Keys(s.DependsOn)); !slices.Equal(got, want) {
			t.Fatalf("depends on %v; want %v: nothing else has an order", got, want)
		}
		if c := s.DependsOn["consul"].Condition; c != types.ServiceConditionStarted {
			t.Errorf("waits for Consul to be %s; want service_started: services start without Consul", c)
		}
		if len(s.Links) > 0 || len(s.ExternalLinks) > 0 {
			t.Errorf("links %v %v; want none", s.Links, s.ExternalLinks)
		}
	})
}

func TestComposeTellsServicesOfNoAddressButConsuls(t *testing.T) {
	others := regexp.MustCompile(`(?i)\b(user|order|gateway|prometheus)(:\d+|\.)`)
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		if !ours(s) {
			return
		}
		if a := s.Environment["CONSUL_HTTP_ADDR"]; a == nil || *a != "consul:8500" {
			t.Errorf("CONSUL_HTTP_ADDR is %v; want consul:8500", a)
		}
		for k, v := range s.Environment {
			if v != nil && others.MatchString(*v) && !strings.HasPrefix(*v, "/") {
				t.Errorf("%s=%s tells where another service is; want names found in Consul only", k, *v)
			}
		}
	})
}

// A Docker client with proxies in its configuration puts them into each container's environment, under both spellings,
// where the service does not set them itself.
func TestComposeTakesNoProxyFromDockersClient(t *testing.T) {
	injected := map[string]string{}
	for name, value := range map[string]string{"HTTP_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://proxy:3128", "ALL_PROXY": "http://proxy:3128", "NO_PROXY": "localhost"} {
		injected[name], injected[strings.ToLower(name)] = value, value
	}
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		for name, value := range injected {
			t.Setenv(name, value)
		}
		for name, value := range s.Environment {
			if value != nil {
				t.Setenv(name, *value)
			}
		}
		ask := httpproxy.FromEnvironment().ProxyFunc()
		for _, to := range []string{"http://consul:8500/v1/", "http://172.18.0.4:8080/", "https://172.18.0.4:8080/"} {
			u, err := url.Parse(to)
			if err != nil {
				t.Fatal(err)
			}
			if proxy, err := ask(u); err != nil || proxy != nil {
				t.Errorf("%s is asked through %v (%v); want directly", to, proxy, err)
			}
		}
		for _, name := range []string{"NO_PROXY", "no_proxy"} {
			if os.Getenv(name) == injected[name] {
				t.Errorf("%s is left to Docker's client; programs read one of the two", name)
			}
		}
	})
}

func TestComposeKeepsDataOnVolumes(t *testing.T) {
	want := map[string]string{
		"consul": "consul-data", "user": "user-data", "order": "order-data", "prometheus": "prometheus-data", "gateway": "",
	}
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		got := ""
		for _, v := range s.Volumes {
			if v.Type == types.VolumeTypeVolume {
				got += v.Source
			}
		}
		if got != want[s.Name] {
			t.Errorf("the data is on volume %q; want %q", got, want[s.Name])
		}
	})
}

func TestComposeRunsConsulAsServerWithData(t *testing.T) {
	c := project(t, nil).Services["consul"]
	args := c.Command
	for _, want := range []string{"-server", "-bootstrap-expect=1", "-node=consul"} {
		if !slices.Contains(args, want) {
			t.Errorf("Consul's command is %q; want %s", args, want)
		}
	}
	for _, a := range args {
		if strings.HasPrefix(a, "-dev") {
			t.Errorf("Consul's command has %s: a dev agent forgets the catalog", a)
		}
	}
	hcl := ""
	for _, v := range c.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		files, err := filepath.Glob(filepath.Join(v.Source, "*.hcl"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			hcl += string(b)
		}
	}
	hcl += strings.Join(args, "\n")
	for _, want := range []string{
		`raft_multiplier\s*=\s*1\b`,
		`prometheus_retention_time\s*=\s*"[1-9]`,
		`disable_hostname\s*=\s*true`,
		`(?s)ui_config\s*{.*enabled\s*=\s*true`,
		`dashboard_url_templates`,
		`(?s)service\s*{.*name\s*=\s*"prometheus"`,
	} {
		if !regexp.MustCompile(want).MatchString(hcl) {
			t.Errorf("Consul's configuration has nothing like %s", want)
		}
	}
}

func TestComposePinsImages(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+([-.][a-z0-9.]+)?(@sha256:[0-9a-f]{64})?$`)
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		if s.Image == "" || strings.HasSuffix(s.Image, ":latest") || !strings.Contains(s.Image, ":") {
			t.Errorf("the image is %q; want a name with a version", s.Image)
		}
		if !ours(s) && !pinned.MatchString(s.Image) {
			t.Errorf("the image is %q; want it pinned to a full version", s.Image)
		}
	})
}

// dockerfiles of the repository, wherever they are.
func dockerfiles(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root(t), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if name := d.Name(); !d.IsDir() && (name == "Dockerfile" || strings.HasPrefix(name, "Dockerfile.") || strings.HasSuffix(name, ".Dockerfile")) &&
			!strings.HasSuffix(name, ".dockerignore") {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			found[path] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatal("no Dockerfile found")
	}
	return found
}

func TestDockerfilesPullNothingButPinnedImages(t *testing.T) {
	syntax := regexp.MustCompile(`(?im)^#\s*syntax\s*=`)
	from := regexp.MustCompile(`(?im)^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?`)
	arg := regexp.MustCompile(`(?im)^ARG\s+(\w+)=(\S+)`)
	for path, text := range dockerfiles(t) {
		if syntax.MatchString(text) {
			t.Errorf("%s has a syntax line, which is an image pull of its own", path)
		}
		args := map[string]string{}
		for _, m := range arg.FindAllStringSubmatch(text, -1) {
			args[m[1]] = m[2]
		}
		stages := map[string]bool{"scratch": true}
		for _, m := range from.FindAllStringSubmatch(text, -1) {
			image := os.Expand(m[1], func(k string) string { return args[k] })
			if !stages[image] && !regexp.MustCompile(`:v?\d+\.\d+`).MatchString(image) {
				t.Errorf("%s: FROM %s (%s) is not pinned to a version", path, m[1], image)
			}
			if m[2] != "" {
				stages[os.Expand(m[2], func(k string) string { return args[k] })] = true
			}
		}
	}
}

func TestServicesOfOursAreBuiltFromScratchWithLabels(t *testing.T) {
	eachService(t, func(t *testing.T, s types.ServiceConfig) {
		if !ours(s) {
			return
		}
		path := s.Build.Dockerfile
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.Build.Context, path)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if !regexp.MustCompile(`(?m)^FROM scratch\b`).MatchString(text) {
			t.Errorf("%s has no stage from scratch", path)
		}
		for _, want := range []string{"org.opencontainers.image.version", "org.opencontainers.image.licenses", "TARGETARCH"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no %s", path, want)
			}
		}
		if regexp.MustCompile(`(?m)^(ENTRYPOINT|CMD)\s+[^\[\s]`).MatchString(text) {
			t.Errorf("%s starts by a shell; want the JSON form", path)
		}
	})
}
