package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// engineOfConsul stands in for docker where a container of Consul is asked for: each is Consul's own binary on this
// machine, which is told of other paths, addresses and ports than in a container.
const engineOfConsul = `#!/usr/bin/env bash
printf '%s\n' "$*" >>"$FAKE/asked"
config=$CHECKOUT/compose/.secrets/acl/consul
translate() {
  mkdir -p "$FAKE/config" && cp "$config"/* "$FAKE/config/" && chmod u+w "$FAKE/config"/* &&
    for file in "$FAKE/config"/*.hcl; do sed "s#/consul/config#$FAKE/config#" <"$file" >"$file.new" && mv "$file.new" "$file"; done
}
case "$*" in
  'compose run '*' consul tls '*)
    while [ "$1" != consul ]; do
      [ "$1" != --volume ] || folder=${2%:/tls}
      shift
    done
    shift
    cd "$folder" && exec "$CONSUL_BIN" "$@"
    ;;
  'compose up --detach consul')
    if [ -e "$FAKE/pid" ] && kill -0 "$(cat "$FAKE/pid")" 2>/dev/null; then exit; fi
    translate
    nohup "$CONSUL_BIN" agent -server -bootstrap-expect=1 -node=consul -data-dir="$FAKE/data" -config-dir="$FAKE/config" \
      -bind=127.0.0.1 -client=127.0.0.1 -hcl "ports { $PORTS }" -hcl 'performance { raft_multiplier = 1 }' >"$FAKE/log" 2>&1 &
    echo $! >"$FAKE/pid"
    ;;
  'compose exec -T -e CONSUL_HTTP_TOKEN_FILE=/consul/config/management consul /bin/consul '*)
    shift 7
    [ "$1" != reload ] || translate
    CONSUL_HTTP_ADDR=https://localhost:$HTTPS CONSUL_CACERT=$config/ca.pem CONSUL_HTTP_TOKEN_FILE=$config/management exec "$CONSUL_BIN" "$@"
    ;;
  *) exit 1 ;;
esac
`

// aclFleet is what the script of the overlay acl works on.
type aclFleet struct {
	*scripts
	https, dns int
}

func newACLFleet(t *testing.T) *aclFleet {
	t.Helper()
	binary := os.Getenv("CONSUL_BIN")
	if binary == "" {
		t.Skip("needs a real Consul: CONSUL_BIN is not set")
	}
	f := &aclFleet{scripts: newScripts(t)}
	f.write(t, filepath.Join(f.fake, "bin", "docker"), engineOfConsul)
	f.set("CHECKOUT", f.dir)
	f.set("CONSUL_BIN", binary)
	f.set("HTTP_PROXY", "")
	var ports []int
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	f.https, f.dns = ports[0], ports[1]
	f.set("HTTPS", strconv.Itoa(f.https))
	f.set("PORTS", fmt.Sprintf("https = %d, dns = %d, server = %d, serf_lan = %d, serf_wan = -1, grpc = -1, grpc_tls = -1", ports[0], ports[1], ports[2], ports[3]))
	t.Cleanup(func() { f.kill(t) })
	return f
}

// kill ends Consul, if it runs.
func (f *aclFleet) kill(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.fake, "pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for syscall.Kill(pid, 0) == nil {
		time.Sleep(5 * time.Millisecond)
	}
}

func (f *aclFleet) acl(t *testing.T, args ...string) {
	t.Helper()
	if out, err := f.run(t, "with/acl.sh", args...); err != nil {
		t.Fatalf("acl.sh %q: %v\n%s", args, err, out)
	}
}

// file of compose/.secrets/acl.
func (f *aclFleet) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.dir, "compose/.secrets/acl", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// get asks Consul's API with a token.
func (f *aclFleet) get(t *testing.T, token, path string) (status int, body string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(f.file(t, "user/ca.pem")))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://localhost:%d%s", f.https, path), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token) // as Prometheus sends it
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// aclRoles are the roles that there is a policy for.
func aclRoles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "compose/with/acl/policies/*.hcl"))
	if err != nil || len(files) < 8 {
		t.Fatalf("%d policies, %v", len(files), err)
	}
	var roles []string
	for _, file := range files {
		roles = append(roles, strings.TrimSuffix(filepath.Base(file), ".hcl"))
	}
	return roles
}

// check that each role's file has a token with its policy, and returns them.
func (f *aclFleet) check(t *testing.T) map[string]string {
	t.Helper()
	tokens := map[string]string{}
	for _, role := range aclRoles(t) {
		tokens[role] = f.file(t, role+"/token")
		_, body := f.get(t, tokens[role], "/v1/acl/token/self")
		var self struct{ Policies []struct{ Name string } }
		if err := json.Unmarshal([]byte(body), &self); err != nil || len(self.Policies) != 1 || self.Policies[0].Name != role {
			t.Errorf("%s has the token of %s", role, body)
		}
	}
	until(t, 30*time.Second, "the agent's own service is in the catalog", func(context.Context) error {
		if status, body := f.get(t, tokens["reader"], "/v1/catalog/service/prometheus"); !strings.Contains(body, `"ServiceID":"prometheus"`) { //nolint:contextcheck // it ends with the test
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	until(t, 30*time.Second, "DNS answers", func(ctx context.Context) error {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", f.dns))
		}}
		got, err := resolver.LookupHost(ctx, "consul.service.consul.")
		if err == nil && !slices.Equal(got, []string{"127.0.0.1"}) {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	return tokens
}

func TestOverlayACLGivesEachRoleItsTokenAndRotatesIt(t *testing.T) {
	f := newACLFleet(t)
	f.acl(t)
	first := f.check(t)
	if _, body := f.get(t, "", "/v1/catalog/services"); body != "{}" {
		t.Errorf("without a token the catalog is %s; want nothing", body)
	}
	if status, body := f.get(t, first["health"], "/v1/operator/raft/configuration"); status != http.StatusOK {
		t.Errorf("the health check of Consul's container gets %d %s", status, body)
	}
	if status, body := f.get(t, first["prometheus"], "/v1/agent/metrics?format=prometheus"); status != http.StatusOK {
		t.Errorf("Prometheus gets %d %s", status, body)
	}

	f.acl(t)
	if diff := cmp.Diff(first, f.check(t)); diff != "" {
		t.Errorf("a second `make up` changes tokens: %s", diff)
	}

	f.acl(t, "rotate", "order", "agent", "reader")
	second := f.check(t)
	for role, token := range first {
		rotated := role == "order" || role == "agent" || role == "reader"
		if (second[role] != token) != rotated {
			t.Errorf("%s has another token: %t; want %t", role, second[role] != token, rotated)
		}
		if status, _ := f.get(t, token, "/v1/acl/token/self"); (status == http.StatusForbidden) != rotated {
			t.Errorf("the first token of %s is answered %d; want it refused: %t", role, status, rotated)
		}
	}
	if curl := f.file(t, "consul.curl"); !strings.Contains(curl, second["reader"]) {
		t.Errorf("make up asks Consul with %s; want the new token", curl)
	}

	// As after `docker compose down --volumes`: Consul has lost what it knew.
	f.kill(t)
	if err := os.RemoveAll(filepath.Join(f.fake, "data")); err != nil {
		t.Fatal(err)
	}
	f.acl(t)
	third := f.check(t)

	info, err := os.Stat(filepath.Join(f.dir, "compose/.secrets/acl"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of secrets: %v %v; want it closed to others", info.Mode(), err)
	}
	asked := f.asked(t)
	for _, tokens := range []map[string]string{first, second, third, {"management": f.file(t, "consul/management")}} {
		for role, token := range tokens {
			if strings.Contains(asked, token) {
				t.Errorf("the token of %s was an argument of a command", role)
			}
		}
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}$`)
	if token := f.file(t, "consul/management"); !uuid.MatchString(token) {
		t.Errorf("the management token is %q; want a random UUID", token)
	}
	if out, err := f.run(t, "with/acl.sh", "rotate", "nobody"); err == nil || !strings.Contains(out, "there is no role nobody") {
		t.Errorf("got %v for a role that there is not:\n%s", err, out)
	}
	if err := exec.CommandContext(t.Context(), "bash", "-n", filepath.Join(root(t), "compose/with/acl.sh")).Run(); err != nil {
		t.Error(err)
	}
}

func TestOverlayACLPutsTokensIntoFilesAndNowhereElse(t *testing.T) {
	p := project(t, nil, "compose/with/acl.yaml")
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		for key, value := range s.Environment {
			if strings.Contains(key, "TOKEN") && key != "CONSUL_HTTP_TOKEN_FILE" {
				t.Errorf("%s has a token in its environment: %s", name, key)
			}
			if ours(s) && key == "CONSUL_HTTP_ADDR" && *value != "https://consul:8501" {
				t.Errorf("%s asks Consul at %s", name, *value)
			}
		}
		own := false
		for _, v := range s.Volumes {
			if !strings.Contains(v.Source, ".secrets") {
				continue
			}
			own = true
			if want := filepath.Join(root(t), "compose/.secrets/acl", name); v.Source != want || !v.ReadOnly {
				t.Errorf("%s mounts %s, read-only %t; want %s, which it can't write to", name, v.Source, v.ReadOnly, want)
			}
		}
		if !own {
			t.Errorf("%s has no secrets", name)
		}
	}
	want := published(project(t, nil))
	delete(want, "consul 127.0.0.1:8500->8500/tcp")
	want["consul 127.0.0.1:8500->8501/tcp"] = true
	if d := cmp.Diff(want, published(p)); d != "" {
		t.Errorf("published ports (-want +got):\n%s", d)
	}
	if b, err := os.ReadFile(filepath.Join(root(t), ".gitignore")); err != nil || !strings.Contains(string(b), "\n/compose/.secrets/\n") {
		t.Errorf("compose/.secrets may be committed (%v)", err)
	}
}

func TestPrometheusOfTheOverlayACLDiffersInHowItAsksConsulOnly(t *testing.T) {
	lines := func(file string, drop ...string) []string {
		b, err := os.ReadFile(filepath.Join(root(t), file))
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Split(strings.TrimSpace(string(b)), "\n")
		all = all[slices.Index(all, "global:"):]
		return slices.DeleteFunc(all, func(line string) bool { return slices.Contains(drop, strings.TrimSpace(line)) })
	}
	want := lines("observability/prometheus/prometheus.yml")
	for n := range want {
		want[n] = strings.Replace(want[n], "consul:8500", "consul:8501", 1)
	}
	got := lines("compose/with/acl/prometheus.yml", "scheme: https", "tls_config: {ca_file: /run/consul/ca.pem}", "authorization: {credentials_file: /run/consul/token}")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("compose/with/acl/prometheus.yml (-want +got):\n%s", d)
	}
}
