package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// ask asks the admin port.
func (p *program) ask(method, path string, body io.Reader) (status int, location, text string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.page+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Location"), string(all)
}

// register enters user-1 into the catalog.
func register(t *testing.T, consul, addr string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	entry := fmt.Sprintf(`{"ID":"user-1","Name":"user","Address":%q,"Port":%s}`, host, port)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+consul+"/v1/agent/service/register", strings.NewReader(entry))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
}

// holds waits until a page has what is wanted.
func (p *program) holds(path string, want ...string) {
	p.t.Helper()
	text := ""
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		_, _, text = p.ask(http.MethodGet, path, nil)
		missing := 0
		for _, w := range want {
			if !strings.Contains(text, w) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
	}
	p.t.Fatalf("GET %s: %s\nwant %q\n%s", path, text, want, p.log)
}

func TestAdminPortShowsTheMesh(t *testing.T) {
	user := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	t.Cleanup(user.Close)
	consul, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	register(t, consul, user.Listener.Addr().String())
	p := run(t, consul, "--pinned=/u=user strip", "--users-listen=127.0.0.1:0", "--consul-ui=http://localhost:8500/ui/dc1", "--prometheus-ui=http://localhost:9090", "--mesh-try=on")
	if status, location, _ := p.ask(http.MethodGet, "/", nil); status != http.StatusFound || location != "/mesh/" {
		t.Errorf("GET / at the admin port: %d to %s; want it to lead to /mesh/", status, location)
	}
	if status, location, _ := p.ask(http.MethodGet, "/mesh", nil); status != http.StatusTemporaryRedirect || location != "/mesh/" {
		t.Errorf("GET /mesh: %d to %s; want it to lead to /mesh/", status, location)
	}
	if status, _, text := p.ask(http.MethodGet, "/mesh/", nil); status != http.StatusOK {
		t.Errorf("GET /mesh/: %d %s", status, text)
	}
	p.holds("/mesh/picture",
		`"name":"user"`, `"name":"gateway"`, `"answered":true`, `"from":"gateway","to":"user"`,
		`"ui":"http://localhost:8500/ui/dc1"`, `"prometheus":"http://localhost:9090"`)
	p.holds("/mesh/ask?q=/u/1", `"service":"user"`, `"path":"/1"`, `"rule":"/u"`, `"turn":"first"`, `"try":true`)
	status, _, text := p.ask(http.MethodPost, "/mesh/try", strings.NewReader("q=/u/1"))
	var sent struct {
		Status int
		Tries  []struct{ Instance string }
	}
	if err := json.Unmarshal([]byte(text), &sent); err != nil || status != http.StatusOK || sent.Status != http.StatusOK || len(sent.Tries) != 1 || sent.Tries[0].Instance != "user-1" {
		t.Errorf("POST /mesh/try: %d %s; want it sent to user-1", status, text)
	}
}

func TestOpenPageDoesNotHoldUpADrain(t *testing.T) {
	consul, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	var p *program
	var res *http.Response
	transport := &http.Transport{}
	t.Cleanup(func() { // after the drain, which is run's own clean-up
		if res != nil {
			res.Body.Close()
		}
		transport.CloseIdleConnections()
		if log := p.log.String(); strings.Contains(log, "not everything") {
			t.Errorf("the drain left something\n%s", log)
		}
	})
	p = run(t, consul, "--pinned=none")
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "http://"+p.page+"/mesh/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err = transport.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if _, err := res.Body.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	// It is left open, and the drain ends it.
}
