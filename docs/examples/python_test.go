package examples_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

func TestServiceAndClientInPythonTakePartInTheMesh(t *testing.T) {
	version := exec.CommandContext(t.Context(), "python3", "-c", "import sys; sys.exit(sys.version_info < (3, 9))")
	if out, err := version.CombinedOutput(); err != nil {
		t.Skipf("needs python3 of version 3.9 or newer: %v %s", err, out)
	}
	// What go test does not see being read decides nothing of a cached result.
	for _, name := range []string{"service.py", "client.py"} {
		if _, err := os.ReadFile(filepath.Join("python", name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("a Consul in the test", func(t *testing.T) {
		t.Parallel()
		address, err := consultest.New(t).Listen()
		if err != nil {
			t.Fatal(err)
		}
		pythonTakesPart(t, address, "")
	})
	t.Run("a real Consul", func(t *testing.T) {
		t.Parallel()
		consul := consultest.Real(t)
		pythonTakesPart(t, consul.Addr(), consul.DNS())
	})
}

// pythonTakesPart runs two services in Python, of which one leaves while it is
// called. Where dns is empty, nothing is asked of it.
func pythonTakesPart(t *testing.T, consul, dns string) {
	// A pyenv finds its versions by HOME. The TTL makes a heartbeat of a second.
	f := &fleet{consul: consul, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TTL=3", "CONSUL_DNS_ADDR=" + dns,
	}}
	news := f.watch(t, "greeter")
	news.await(t, "0")
	leaver, stayer := f.start(t, "service.py"), f.start(t, "service.py")
	f.await(t, "greeter", 2)
	news.await(t, "2 ")

	const hello = "^Hello, Ann Lee, from Python!\n$"
	f.prints(t, hello, "client.py", "greeter", "/greet/Ann%20Lee")
	if dns != "" {
		f.prints(t, hello, "client.py", "--dns", "greeter", "/greet/Ann%20Lee")
	}

	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: consul}})
	if err != nil {
		t.Fatal(err)
	}
	defer mesh.Close()

	// One leaves while both are called: it says so, and no request is lost.
	stop := make(chan struct{})
	var callers sync.WaitGroup
	drained := false
	callers.Go(func() {
		for {
			s, err := mesh.Latest(t.Context(), "greeter")
			if err != nil {
				t.Error(err)
				return
			}
			for i := range s.All() {
				drained = drained || i.State == catalog.StateDraining
			}
			select {
			case <-s.Superseded():
			case <-stop:
				return
			}
		}
	})
	served := make([]int, 4)
	for n := range served {
		callers.Go(func() {
			for {
				if body, err := get(t.Context(), mesh, "http://greeter/greet/Bob"); err != nil || body != "Hello, Bob, from Python!\n" {
					t.Errorf("got %q and %v", body, err)
					return
				}
				served[n]++
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	leaver.stop(t)
	f.await(t, "greeter", 1)
	close(stop)
	callers.Wait()
	if !drained {
		t.Error("it left without having said that it drains")
	}
	for _, n := range served {
		if n == 0 {
			t.Error("a caller got no answer")
		}
	}
	news.await(t, "1 ")

	// An entry that is lost is written again at the next heartbeat, as other-languages.md says.
	s, err := mesh.Latest(t.Context(), "greeter")
	if err != nil {
		t.Fatal(err)
	}
	for i := range s.All() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+i.Addr()+"/greet/Ann", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Rollcall-Service", "another")
		if status, _, err := do(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, req); err != nil || status != http.StatusMisdirectedRequest {
			t.Errorf("asked for another service, it answers %d and %v; want 421", status, err)
		}
		req, err = http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+consul+"/v1/agent/service/deregister/"+i.ID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if status, body, err := do(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, req); err != nil || status != http.StatusOK {
			t.Fatalf("deregistering %s: %d %s %v", i.ID, status, body, err)
		}
	}
	news.await(t, "0")
	f.await(t, "greeter", 1)

	stayer.stop(t)
	f.await(t, "greeter", 0)
}

func get(ctx context.Context, mesh *discovery.Mesh, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	status, body, err := do(mesh.Client(), req)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d", status)
	}
	return body, err
}

func do(client *http.Client, req *http.Request) (int, string, error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// news is the lines that a client prints which watches.
type news chan string

func (f *fleet) watch(t *testing.T, service string) news {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := f.command(ctx, "client.py", "--watch", service)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	lines := make(news, 100) // more than there are changes
	read := make(chan struct{})
	go func() {
		defer close(read)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case lines <- scanner.Text():
			default:
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
		_ = command.Wait() // an error: it was killed
	})
	return lines
}

// await returns when a line that begins so is printed.
func (n news) await(t *testing.T, prefix string) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	var seen []string
	for {
		select {
		case line := <-n:
			if strings.HasPrefix(line, prefix) {
				return
			}
			seen = append(seen, line)
		case <-limit.C:
			t.Fatalf("the client that watches has printed %q since; want a line that begins with %q", seen, prefix)
		}
	}
}
