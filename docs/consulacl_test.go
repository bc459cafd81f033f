package docs_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/internal/logtest"
)

const policies = "compose/with/acl/policies/"

// rulesOf are the rules of a role's policy, a line each.
func rulesOf(t *testing.T, role string) []string {
	t.Helper()
	var rules []string
	for line := range strings.Lines(read(t, policies+role+".hcl")) {
		if !strings.HasPrefix(line, "#") {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	return rules
}

// newToken makes a token that has these rights, and returns how to delete it.
func newToken(t *testing.T, admin *api.Client, rules ...string) (secret string, remove func()) {
	t.Helper()
	name := fmt.Sprintf("p%d", time.Now().UnixNano())
	if _, _, err := admin.ACL().PolicyCreate(&api.ACLPolicy{Name: name, Rules: strings.Join(rules, "\n")}, nil); err != nil {
		t.Fatal(err)
	}
	made, _, err := admin.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{Name: name}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return made.SecretID, func() {
		if _, err := admin.ACL().TokenDelete(made.AccessorID, nil); err != nil {
			t.Error(err)
		}
	}
}

// joins does what a role of the fleet does with its token, and returns what is in the
// way.
func joins(t *testing.T, consul, token string, port int, registers string, calls ...string) error {
	t.Helper()
	mesh, err := discovery.Open(t.Context(), discovery.Config{
		Consul: discovery.Consul{Address: consul, Token: token}, InitialFetchTimeout: time.Second, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if registers != "" {
		err = registersAs(t, mesh, registers, port)
	}
	for _, service := range calls {
		if err == nil {
			err = ask(t, mesh, "http://"+service+"/")
		}
	}
	return err
}

// registersAs registers an instance, and returns what is in the way.
func registersAs(t *testing.T, mesh *discovery.Mesh, service string, port int) error {
	t.Helper()
	r, err := mesh.Register(registration.Config{Service: service, ID: fmt.Sprintf("%s-%d", service, time.Now().UnixNano()), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.Wait(ctx) }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			// Other trouble may pass.
			if err := r.Status().Err; err != nil && (strings.Contains(err.Error(), "Permission denied") || strings.Contains(err.Error(), "the token may not")) {
				cancel()
				if <-done == nil {
					return nil // meanwhile
				}
				return err
			}
		}
	}
}

// TestNoRuleOfAPolicyCanBeSpared takes each rule away, and looks for the words by which
// a person learns what is missing.
func TestNoRuleOfAPolicyCanBeSpared(t *testing.T) {
	consul := consultest.RealWithACLs(t)
	admin := consul.Client()
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(server.Close) // the subtests go on when this function has ended
	for _, service := range []string{"user", "order"} {
		entry := &api.AgentServiceRegistration{ID: service, Name: service, Address: "127.0.0.1", Port: portOf(server)}
		if err := admin.Agent().ServiceRegister(entry); err != nil {
			t.Fatal(err)
		}
	}
	const left = "Consul left out what our token may not read"
	prometheus := func(t *testing.T, token string) error {
		for _, ask := range [][2]string{
			{"/v1/catalog/services", `"user":`},
			{"/v1/health/service/user", `"Service":"user"`},
			{"/v1/agent/metrics?format=prometheus", ""},
		} {
			if err := has(t, consul.Addr(), token, ask[0], ask[1]); err != nil {
				return err
			}
		}
		return nil
	}
	for role, does := range map[string]struct {
		do   func(t *testing.T, token string) error
		lack []string // what is said without the first rule, and so on
	}{
		"user": {
			func(t *testing.T, token string) error { return joins(t, consul.Addr(), token, portOf(server), "user") },
			[]string{`lacks permission 'service:write' on "user"`, "want node:read"},
		},
		"order": {
			func(t *testing.T, token string) error {
				return joins(t, consul.Addr(), token, portOf(server), "order", "user")
			},
			[]string{`lacks permission 'service:write' on "order"`, left, "want node:read"},
		},
		"gateway": {
			func(t *testing.T, token string) error {
				return joins(t, consul.Addr(), token, portOf(server), "gateway", "order", "user")
			},
			[]string{`lacks permission 'service:write' on "gateway"`, left, left, "want node:read"},
		},
		"reader": {
			func(t *testing.T, token string) error {
				return joins(t, consul.Addr(), token, portOf(server), "", "order", "user")
			},
			[]string{left, left},
		},
		"prometheus": {prometheus, []string{"/v1/catalog/services: 200 OK {}", "/v1/catalog/services: 200 OK {}", "lacks permission 'agent:read'"}},
		"health": {
			func(t *testing.T, token string) error {
				return has(t, consul.Addr(), token, "/v1/operator/raft/configuration", "Servers")
			},
			[]string{"lacks permission 'operator:read'"},
		},
	} {
		rules := rulesOf(t, role)
		if len(rules) != len(does.lack) {
			t.Fatalf("%s has %d rules; want %d", role, len(rules), len(does.lack))
		}
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			token, _ := newToken(t, admin, renamed(rules)...)
			if err := does.do(t, token); err != nil {
				t.Errorf("with all rules: %v", err)
			}
		})
		for n, rule := range rules {
			t.Run(role+" without "+rule, func(t *testing.T) {
				t.Parallel()
				token, _ := newToken(t, admin, renamed(slices.Delete(slices.Clone(rules), n, n+1))...)
				if err := does.do(t, token); err == nil || !strings.Contains(err.Error(), does.lack[n]) {
					t.Errorf("got %v; want it to say %q", err, does.lack[n])
				}
			})
		}
	}
}

// renamed are rules for the node of consultest, which is not the fleet's.
func renamed(rules []string) []string {
	for n := range rules {
		rules[n] = strings.Replace(rules[n], `agent "consul"`, `agent "`+consultest.NodeName+`"`, 1)
	}
	return append([]string{"# at least an empty policy"}, rules...)
}

// has asks Consul's API, and returns an error if the answer has not what is wanted.
func has(t *testing.T, consul, token, path, want string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+consul+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
		return fmt.Errorf("%s: %s %s", path, resp.Status, body)
	}
	return nil
}

func TestTokenInAFileIsRotatedUnderLoad(t *testing.T) {
	t.Parallel()
	consul := consultest.RealWithACLs(t)
	admin := consul.Client()
	file := filepath.Join(t.TempDir(), "token")
	give := func() (remove func()) {
		secret, remove := newToken(t, admin, rulesOf(t, "order")[0], `node_prefix "" { policy = "read" }`)
		if err := os.WriteFile(file+".new", []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		return remove
	}
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	remove := give()
	var log logtest.Buffer
	mesh, err := discovery.Open(t.Context(), discovery.Config{
		Consul: discovery.Consul{Address: consul.Addr(), TokenFile: file}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	r, err := mesh.Register(registration.Config{Service: "order", ID: "order-1", Port: portOf(server), HeartbeatInterval: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		last := remove
		remove = give()
		last()
		for began := time.Now(); time.Since(began) < 1200*time.Millisecond; time.Sleep(5 * time.Millisecond) {
			if err := ask(t, mesh, "http://order/"); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is told with the new token arrives in the catalog.
	if err := r.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	await(t, mesh, "order", "draining", is(catalog.StateDraining))
}

func portOf(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

// script is the blocks of sh of a page, which are run in a folder of the test, with a
// real Consul's command on the PATH.
type script struct {
	dir    string
	env    []string
	blocks []string
}

func scriptOf(t *testing.T, page string) *script {
	t.Helper()
	binary := os.Getenv("CONSUL_BIN")
	if binary == "" {
		t.Skip("needs a real Consul: CONSUL_BIN is not set")
	}
	s := &script{dir: t.TempDir()}
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "consul")); err != nil {
		t.Fatal(err)
	}
	s.env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(read(t, page), -1) {
		s.blocks = append(s.blocks, m[1])
	}
	return s
}

// next runs the next block.
func (s *script) next(t *testing.T) {
	t.Helper()
	if len(s.blocks) == 0 {
		t.Fatal("the page has no further commands")
	}
	block := s.blocks[0]
	s.blocks = s.blocks[1:]
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", block)
	cmd.Dir, cmd.Env = s.dir, s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s\n%v\n%s", block, err, out)
	}
}

// file of the script's folder, with a line's end cut off.
func (s *script) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestCommandsOfTheHowToOfACLsMakeTokensAndRotateOne(t *testing.T) {
	t.Parallel()
	s := scriptOf(t, "docs/how-to/consul-acl.md")
	consul := consultest.RealWithACLs(t)
	admin := consul.Client()
	all, _, err := admin.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLLink{{Name: "global-management"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.env = append(s.env, "CONSUL_HTTP_ADDR="+consul.Addr(), "CONSUL_HTTP_TOKEN="+all.SecretID)
	for _, role := range []string{"order", "agent", "dns"} {
		if err := os.WriteFile(filepath.Join(s.dir, role+".hcl"), []byte(read(t, policies+role+".hcl")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.next(t)
	first := s.file(t, "order.token")
	if err := joins(t, consul.Addr(), first, 1, "order"); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "order.token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file of a token: %v, %v; want it closed to others", info, err)
	}
	s.next(t)
	s.next(t)
	if err := joins(t, consul.Addr(), s.file(t, "order.token"), 1, "order"); err != nil {
		t.Error(err)
	}
	if _, _, err := consul.ClientWith(first).ACL().TokenReadSelf(nil); err == nil {
		t.Error("the old token is still there")
	}
	if len(s.blocks) > 0 {
		t.Errorf("not run: %q", s.blocks)
	}
}

func TestCommandsOfTheHowToOfTLSMakeCertificatesAndReplaceOne(t *testing.T) {
	t.Parallel()
	s := scriptOf(t, "docs/how-to/consul-tls.md")
	s.next(t)
	at := func(name string) string { return filepath.Join(s.dir, name) }
	consul := consultest.RealWithTLS(t, consultest.TLS{
		CAFile: at("consul-agent-ca.pem"), CertFile: at("dc1-server-consul-0.pem"), KeyFile: at("dc1-server-consul-0-key.pem"),
	})
	var log logtest.Buffer
	mesh, err := discovery.Open(t.Context(), discovery.Config{
		Consul: discovery.Consul{
			Address: "https://" + consul.Addr(), CAFile: at("consul-agent-ca.pem"),
			CertFile: at("dc1-client-consul-0.pem"), KeyFile: at("dc1-client-consul-0-key.pem"),
		},
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()
	if err := registersAs(t, mesh, "order", 1); err != nil {
		t.Error(err)
	}
	s.next(t)
	consul.Kill()
	consul.Restart()
	if err := registersAs(t, mesh, "order", 2); err != nil {
		t.Error(err)
	}
	for began := time.Now(); !strings.Contains(log.String(), "the TLS files were replaced"); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("the new certificate was not taken:\n%s", log.String())
		}
	}
	if strings.Contains(log.String(), "the TLS files can't be used") {
		t.Errorf("the log says:\n%s", log.String())
	}
}
