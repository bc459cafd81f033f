package discovery_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/outcome"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

// ghostVariable makes the test's binary an instance that is there to be killed:
// its value is Consul's address.
const ghostVariable = "ROLLCALL_TEST_GHOST"

// beGhost serves order until it is killed, or until the test that started it is
// gone. It says "seen" when it is in the catalog. For each line that it is told it
// begins to drain, and says "draining" when that was seen too.
func beGhost(consul string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server := httptest.NewServer(httpmesh.RequireService("order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ghost") })))
	mesh, err := discovery.Open(context.Background(), discovery.Config{Consul: discovery.Consul{Address: consul}})
	if err != nil {
		fail(err)
	}
	port := server.Listener.Addr().(*net.TCPAddr).Port
	r, err := mesh.Register(registration.Config{
		Service: "order", ID: os.Getenv(ghostVariable + "_ID"), Port: port, Checks: []registration.Check{{Path: "/readyz"}},
		Settle: time.Hour, SettleMax: time.Hour,
	})
	if err != nil {
		fail(err)
	}
	if err := r.Wait(context.Background()); err != nil {
		fail(err)
	}
	fmt.Println("seen")
	told := bufio.NewScanner(os.Stdin)
	for told.Scan() {
		go func() { _ = r.Drain(context.Background()) }()
		for s := r.Status(); s.State != registration.StateDraining || s.Why != "seen in the catalog"; s = r.Status() {
			time.Sleep(5 * time.Millisecond)
		}
		fmt.Println("draining")
	}
}

// ghost is such a process.
type ghost struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *bufio.Scanner
}

func haunt(t *testing.T, consul, id string) *ghost {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := &ghost{t: t, cmd: exec.CommandContext(t.Context(), self)}
	g.cmd.Env = append(os.Environ(), ghostVariable+"="+consul, ghostVariable+"_ID="+id)
	g.cmd.Stderr = os.Stderr
	if g.stdin, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.said = bufio.NewScanner(out)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.kill)
	g.says("seen")
	return g
}

func (g *ghost) says(want string) {
	g.t.Helper()
	if !g.said.Scan() || g.said.Text() != want {
		g.t.Fatalf("the process says %q (%v); want %q", g.said.Text(), g.said.Err(), want)
	}
}

// kill is SIGKILL.
func (g *ghost) kill() {
	_ = g.cmd.Process.Kill() // it may be dead
	_ = g.cmd.Wait()
}

// entry tells the status of an entry in the catalog, and what its checks say. The
// status is "" if there is none.
type entry func(id string) (status, says string)

// entriesOf looks them up over one client.
func entriesOf(t *testing.T, consul *consultest.Server) entry {
	c := consul.Client()
	return func(id string) (status, says string) {
		t.Helper()
		entries, _, err := c.Health().Service("order", "", false, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Service.ID != id {
				continue
			}
			for _, k := range e.Checks {
				says += k.CheckID + ": " + k.Output + "\n"
			}
			return e.Checks.AggregatedStatus(), says
		}
		return "", ""
	}
}

// reapLimit is how long Consul may take to remove what is dead: until a check
// fails (30s at most), a minute, and its reaper's round of 30s; and a margin.
const reapLimit = 3 * time.Minute

// vanishes waits until Consul removed an entry whose process is dead, and checks
// that it is never passing again once it failed.
func vanishes(t *testing.T, of entry, id string) {
	t.Helper()
	began, failed := time.Now(), false
	for {
		status, says := of(id)
		if status == "" {
			break
		}
		if status == "passing" && failed {
			t.Errorf("%s passes again, and is dead", id)
		}
		failed = failed || status == "critical"
		if time.Since(began) > reapLimit {
			t.Fatalf("%s is in the catalog %v after its death:\n%s", id, reapLimit, says)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%s was out of the catalog %v after its death", id, time.Since(began).Round(time.Second))
	if !failed {
		t.Errorf("%s vanished without ever being critical", id)
	}
}

// TestKilledInstanceIsOutOfUseAfterOneFailedDialAndOutOfTheCatalogSoon takes two
// minutes, most of them Consul's. The policy is the default one, to which a failed
// dial is a slow answer.
func TestKilledInstanceIsOutOfUseAfterOneFailedDialAndOutOfTheCatalogSoon(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	consul := consultest.Real(t)
	of := entriesOf(t, consul)
	g := haunt(t, consul.Addr(), "order-a")
	port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "living") }))
	living, err := open(t, discovery.Config{Consul: discovery.Consul{Address: consul.Addr()}}).Register(registration.Config{Service: "order", ID: "order-b", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	_ = living.Wait(t.Context())

	var mu sync.Mutex
	var tries []httpmesh.Try
	client := open(t, discovery.Config{
		Consul: discovery.Consul{Address: consul.Addr()},
		Trace: &discovery.Trace{HTTP: &httpmesh.Trace{Done: func(_ context.Context, r *httpmesh.Report) {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, r.Tries...)
		}}},
	})
	answers := map[string]int{}
	eventually(t, "both answer often", func() bool {
		body, err := get(t, client, "http://order/")
		if err != nil {
			t.Fatal(err)
		}
		answers[body]++
		return answers["ghost"] > 50 && answers["living"] > 50
	})
	g.kill()
	mu.Lock()
	tries = nil
	mu.Unlock()
	for n := range 300 {
		if body, err := get(t, client, "http://order/"); err != nil || body != "living" {
			t.Fatalf("request %d after the death: got %q, %v; want it served by the one that lives", n, body, err)
		}
	}
	mu.Lock()
	dead, dialled := 0, 0
	for _, try := range tries {
		if try.Instance.ID != "order-a" {
			continue
		}
		if dead++; dialled > 0 {
			t.Errorf("tried the dead one (%s) after its first failed dial", try.Outcome)
		}
		if try.Outcome == outcome.Unreachable {
			dialled++
		}
	}
	mu.Unlock()
	if dialled != 1 || dead > 3 {
		t.Errorf("%d tries at the dead one, %d failed dials; want one failed dial and no more", dead, dialled)
	}
	vanishes(t, of, "order-a")
	if status, _ := of("order-b"); status != "passing" {
		t.Error("the one that lives does not pass any more")
	}
}

// TestInstanceKilledInTheMiddleOfADrainLeavesACriticalEntryThatConsulRemoves takes
// as long.
func TestInstanceKilledInTheMiddleOfADrainLeavesACriticalEntryThatConsulRemoves(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes two minutes")
	}
	consul := consultest.Real(t)
	of := entriesOf(t, consul)
	g := haunt(t, consul.Addr(), "order-a")
	if _, err := io.WriteString(g.stdin, "drain\n"); err != nil {
		t.Fatal(err)
	}
	g.says("draining")
	g.kill()
	status, says := of("order-a")
	if status != "critical" || !strings.Contains(says, ":rollcall: draining") {
		t.Fatalf("the entry is %q, and says:\n%s want it critical and draining", status, says)
	}
	client := open(t, discovery.Config{Consul: discovery.Consul{Address: consul.Addr()}})
	if _, err := get(t, client, "http://order/"); !errors.Is(err, discovery.ErrNoInstance) {
		t.Errorf("got %v; want ErrNoInstance, since what drains is not used, in panic mode neither", err)
	}
	vanishes(t, of, "order-a")
}
