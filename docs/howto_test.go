package docs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything here may take, on a machine that is busy.
const patience = time.Minute

// withConsul runs a test against consultest's agent, and against a real Consul.
func withConsul(t *testing.T, do func(t *testing.T, consul string)) {
	t.Helper()
	t.Run("a Consul in the test", func(t *testing.T) {
		address, err := consultest.New(t).Listen()
		if err != nil {
			t.Fatal(err)
		}
		do(t, address)
	})
	t.Run("a real Consul", func(t *testing.T) { do(t, consultest.Real(t).Addr()) })
}

// howTo is the commands of a page, put to a Consul of the test.
type howTo struct {
	consul   string
	commands []string
}

func commandsOf(t *testing.T, page, consul string) *howTo {
	t.Helper()
	h := &howTo{consul: consul}
	for _, m := range regexp.MustCompile(`(?m)^ *\$ (curl .*)$`).FindAllStringSubmatch(read(t, page), -1) {
		h.commands = append(h.commands, m[1])
	}
	return h
}

// run runs the only command of the page that has the word.
func (h *howTo) run(t *testing.T, word string) string {
	t.Helper()
	var found []string
	for _, c := range h.commands {
		if strings.Contains(c, word) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("the page has %d commands with %q; want 1: %q", len(found), word, found)
	}
	if !strings.Contains(found[0], "localhost:8500") {
		t.Fatalf("%s asks no Consul", found[0])
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skipf("needs curl: %v", err)
	}
	command := strings.Replace(found[0], "localhost:8500", h.consul, 1)
	command = strings.Replace(command, "curl ", "curl --fail --silent --show-error --noproxy '*' ", 1)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// await returns when the only instance of the service is as wanted.
func await(t *testing.T, mesh *discovery.Mesh, service, what string, ok func(all []catalog.Instance) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		s, err := mesh.Latest(ctx, service)
		if err != nil {
			t.Fatal(err)
		}
		var all []catalog.Instance
		for i := range s.All() {
			all = append(all, i)
		}
		if ok(all) {
			return
		}
		select {
		case <-s.Superseded():
		case <-ctx.Done():
			t.Fatalf("%s is %+v; want it %s", service, all, what)
		}
	}
}

func is(state catalog.State) func([]catalog.Instance) bool {
	return func(all []catalog.Instance) bool { return len(all) == 1 && all[0].State == state }
}

func open(t *testing.T, consul string) *discovery.Mesh {
	t.Helper()
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: consul}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mesh.Close() })
	return mesh
}

func ask(t *testing.T, mesh *discovery.Mesh, url string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := mesh.Client().Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// billing answers as docs/how-to/other-languages.md says.
func billing(w http.ResponseWriter, r *http.Request) {
	switch meant := r.Header.Get("Rollcall-Service"); meant {
	case "billing":
		w.Header().Set("Rollcall-Service", "billing")
	case "":
	default:
		w.WriteHeader(http.StatusMisdirectedRequest)
	}
}

func TestEntryOfAnotherLanguageIsUsedUntilItDrains(t *testing.T) {
	const page = "docs/how-to/other-languages.md"
	body := regexp.MustCompile("(?s)```json\n(.*?)```").FindStringSubmatch(read(t, page))
	if body == nil {
		t.Fatalf("%s has no entry", page)
	}
	withConsul(t, func(t *testing.T, consul string) {
		server := httptest.NewServer(http.HandlerFunc(billing))
		defer server.Close()
		port := fmt.Sprint(server.Listener.Addr().(*net.TCPAddr).Port)
		entry := strings.NewReplacer("10.0.0.7", "127.0.0.1", `"Port": 9000`, `"Port": `+port, ":9000/", ":"+port+"/").Replace(body[1])
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+consul+"/v1/agent/service/register", strings.NewReader(entry))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("registering: %s", resp.Status)
		}

		mesh, how := open(t, consul), commandsOf(t, page, consul)
		await(t, mesh, "billing", "passing", is(catalog.StatePassing))
		if err := ask(t, mesh, "http://billing/invoices"); err != nil {
			t.Error(err)
		}
		how.run(t, `"Output":"serving"`)
		await(t, mesh, "billing", "passing", is(catalog.StatePassing))

		how.run(t, `"Output":"draining"`)
		await(t, mesh, "billing", "draining", is(catalog.StateDraining))
		if err := ask(t, mesh, "http://billing/invoices"); !errors.Is(err, discovery.ErrNoInstance) {
			t.Errorf("while the only instance drains: got %v; want ErrNoInstance", err)
		}
		how.run(t, "/deregister/")
		await(t, mesh, "billing", "gone", func(all []catalog.Instance) bool { return len(all) == 0 })
		if out := how.run(t, "/v1/health/service/order?passing"); strings.TrimSpace(out) != "[]" {
			t.Errorf("order is offered: %s", out)
		}
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
}

func TestInstanceInMaintenanceIsOutOfUseUntilThatEnds(t *testing.T) {
	const page = "docs/how-to/drain-by-hand.md"
	id := regexp.MustCompile(`/maintenance/([^?]+)\?enable=true`).FindStringSubmatch(read(t, page))
	if id == nil {
		t.Fatalf("%s puts nothing into maintenance", page)
	}
	withConsul(t, func(t *testing.T, consul string) {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		defer server.Close()
		mesh, how := open(t, consul), commandsOf(t, page, consul)
		_, err := mesh.Register(registration.Config{Service: "order", ID: id[1], Port: server.Listener.Addr().(*net.TCPAddr).Port})
		if err != nil {
			t.Fatal(err)
		}
		await(t, mesh, "order", "passing", is(catalog.StatePassing))
		if out := how.run(t, "/v1/agent/services"); !strings.Contains(out, id[1]) {
			t.Errorf("the agent lists %s; want %s in it", out, id[1])
		}

		how.run(t, "enable=true")
		await(t, mesh, "order", "in maintenance", func(all []catalog.Instance) bool {
			return is(catalog.StateMaintenance)(all) && all[0].Reason == "looking at its disk"
		})
		if err := ask(t, mesh, "http://order/"); !errors.Is(err, discovery.ErrNoInstance) {
			t.Errorf("while the only instance is in maintenance: got %v; want ErrNoInstance", err)
		}

		how.run(t, "enable=false")
		await(t, mesh, "order", "passing", is(catalog.StatePassing))
		if err := ask(t, mesh, "http://order/"); err != nil {
			t.Error(err)
		}
	})
}
