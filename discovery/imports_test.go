package discovery_test

import (
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rollcall-mesh/rollcall"

// Foreign code that a user of a room may be spared.
const (
	consulAPI  = "github.com/hashicorp/consul/..."
	goKit      = "github.com/go-kit/..."
	grpc       = "google.golang.org/grpc/..."
	prometheus = "github.com/prometheus/..."
	otel       = "go.opentelemetry.io/..."
	otelSDK    = "go.opentelemetry.io/otel/sdk/..."
	sqlite     = "modernc.org/..."
)

// rooms is what each room may compile, its own code and the standard library
// aside: patterns of import paths, of our module where they have no domain.
// "..." at the end matches everything below.
var rooms = []struct {
	room string
	may  []string // nil: anything but what mayNot has
	// mayNot has what must not be compiled into a user of the room, directly or through others.
	mayNot []string
}{
	{room: "internal/clip", may: []string{}},
	{room: "internal/logtest", may: []string{}},
	{room: "internal/metricstest", may: []string{}},
	{room: "internal/nettest", may: []string{}},
	{room: "internal/grpcwire", may: []string{}},
	{room: "internal/problem", may: []string{"internal/grpcwire"}},
	{room: "internal/pause", may: []string{}},
	{room: "internal/tlstest", may: []string{}},
	{room: "discovery/catalog", may: []string{"internal/clip"}},
	{room: "discovery/outcome", may: []string{}},
	{room: "discovery/outlier", may: []string{"discovery/outcome"}},
	{room: "discovery/balancer", may: []string{"internal/clip", "discovery/catalog", "discovery/outcome", "discovery/outlier"}},
	{room: "discovery/failover", may: []string{"internal/clip", "discovery/catalog"}},
	{room: "discovery/internal/tries", may: []string{"internal/clip", "internal/grpcwire", "discovery/catalog", "discovery/outcome", "discovery/outlier", "discovery/balancer"}},
	{room: "discovery/internal/rates", may: []string{}},
	{room: "discovery/httpmesh", may: []string{"internal/clip", "internal/grpcwire", "internal/problem", "discovery/catalog", "discovery/outcome", "discovery/outlier", "discovery/balancer", "discovery/internal/tries"}},
	{room: "discovery/mtls", may: []string{"internal/clip"}},
	{room: "discovery/internal/consul", mayNot: []string{
		"discovery", "discovery/catalog", "discovery/balancer", "discovery/watch", "discovery/registration", "discovery/httpmesh", "discovery/kitmesh",
		"discovery/consultest", "observability/...", "services/...", goKit, grpc, prometheus, otel, sqlite,
	}},
	{room: "discovery/watch", mayNot: []string{
		"discovery", "discovery/balancer", "discovery/registration", "discovery/httpmesh", "discovery/kitmesh", "discovery/consultest",
		"observability/...", "services/...", goKit, grpc, prometheus, otel, sqlite,
	}},
	{room: "discovery/registration", mayNot: []string{
		"discovery", "discovery/balancer", "discovery/watch", "discovery/httpmesh", "discovery/kitmesh", "discovery/consultest",
		"observability/...", "services/...", goKit, grpc, prometheus, otel, sqlite,
	}},
	{room: "discovery", mayNot: []string{
		"discovery/kitmesh", "discovery/grpcmesh", "discovery/consultest",
		"observability/...", "services/...", goKit, grpc, prometheus, otel, sqlite,
	}},
	{room: "discovery/kitmesh", mayNot: []string{
		"discovery/consultest", "observability/...", "services/...", grpc, prometheus, otel, sqlite,
	}},
	{room: "discovery/cmd/rollcall", mayNot: []string{
		"discovery/kitmesh", "discovery/consultest", "observability/...", "services/...", goKit, prometheus, otel, sqlite,
	}},
	{room: "observability/meshview", mayNot: []string{
		"discovery/kitmesh", "discovery/grpcmesh", "discovery/consultest", "services/...", goKit, grpc, prometheus, otel, sqlite,
	}},
	// The metrics and the logs of the library's users don't bring OpenTelemetry; it is handed in.
	{room: "observability/metrics", mayNot: []string{"services/...", goKit, grpc, otel, sqlite}},
	{room: "observability/logging", mayNot: []string{"discovery/...", "services/...", goKit, grpc, prometheus, otel, sqlite}},
	{room: "observability/tracing", mayNot: []string{"discovery/grpcmesh", "services/...", goKit, grpc, prometheus, otelSDK, sqlite}},
	{room: "services/user", mayNot: []string{"services/order/...", "services/gateway"}},
	{room: "services/order", mayNot: []string{"services/user", "services/gateway"}}, // but user's protobuf code,
	{room: "services/gateway", mayNot: []string{"services/user", "services/order", sqlite, grpc}},
}

func TestRoomsCompileOnlyWhatTheyMay(t *testing.T) {
	for _, r := range rooms {
		t.Run(r.room, func(t *testing.T) {
			t.Parallel()
			for _, dep := range deps(t, r.room) {
				if r.may != nil && !matchAny(r.may, dep) {
					t.Errorf("%s compiles %s; it may compile %v", r.room, dep, r.may)
				}
				if matchAny(r.mayNot, dep) {
					t.Errorf("%s compiles %s, which it may not", r.room, dep)
				}
			}
		})
	}
}

// Who imports the Consul client itself. Its users get it compiled in anyway.
func TestOnlyRoomsThatTalkToConsulImportItsClient(t *testing.T) {
	may := []string{
		"discovery", "discovery/internal/consul", "discovery/watch", "discovery/registration",
		"discovery/consultest", "discovery/cmd/...", "docs/examples/gokit/before",
	}
	for pkg, imports := range allImports(t) {
		if slices.ContainsFunc(imports, func(i string) bool { return match(consulAPI, i) }) && !matchAny(may, pkg) {
			t.Errorf("%s imports hashicorp/consul/api; only %v may", pkg, may)
		}
	}
}

func TestOnlyKitmeshAndItsUsersImportGoKit(t *testing.T) {
	for pkg, imports := range allImports(t) {
		if slices.ContainsFunc(imports, func(i string) bool { return match(goKit, i) }) &&
			!matchAny([]string{"discovery/kitmesh", "services/...", "docs/examples/gokit/..."}, pkg) {
			t.Errorf("%s imports go-kit; only kitmesh, the services and its examples may", pkg)
		}
	}
}

// deps is what a package compiles, the standard library and itself aside.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	out := goList(t, "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/"+pkg)
	all := strings.Fields(out)
	if !slices.Contains(all, module+"/"+pkg) {
		t.Fatalf("go list -deps %s does not name the package itself:\n%s", pkg, out)
	}
	return slices.DeleteFunc(all, func(p string) bool { return p == module+"/"+pkg })
}

// allImports is what each package of the module imports, tests aside.
func allImports(t *testing.T) map[string][]string {
	t.Helper()
	imports := map[string][]string{}
	for line := range strings.Lines(goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"/...")) {
		if f := strings.Fields(line); len(f) > 0 {
			imports[f[0]] = f[1:]
		}
	}
	if len(imports) < 5 {
		t.Fatalf("go list found %d packages", len(imports))
	}
	return imports
}

func goList(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if e, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it unwrapped
			stderr = e.Stderr
		}
		t.Fatalf("go list %v: %v\n%s", args, err, stderr)
	}
	return string(out)
}

func matchAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

// match tells whether an import path matches a pattern.
func match(pattern, pkg string) bool {
	if domain, _, _ := strings.Cut(pattern, "/"); !strings.Contains(domain, ".") {
		pattern = path.Join(module, pattern)
	}
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == below || strings.HasPrefix(pkg, below+"/")
	}
	return pkg == pattern
}
