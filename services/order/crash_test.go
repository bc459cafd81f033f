package order

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/services/internal/idempotency"
)

// process starts testdata/crash on a database; url is where it serves.
func process(t *testing.T, program, database string) (cmd *exec.Cmd, url string) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), program, database)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err, cmd.Wait())
	}
	return cmd, "http://" + strings.TrimSpace(address)
}

func TestOrderKilledBetweenCommitAndAnswerIsThereOnceAndAnsweredAgain(t *testing.T) {
	program := filepath.Join(t.TempDir(), "crash")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "faults", "-o", program, "./testdata/crash").CombinedOutput(); err != nil {
		t.Fatalf("build the test build: %v\n%s", err, out)
	}
	database := filepath.Join(t.TempDir(), "order.db")

	first, url := process(t, program, database)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	ask := func(method, path, body string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(idempotency.Header, "k")
		resp, err := client.Do(r)
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	if resp, err := ask(http.MethodPut, "/faults", `{"crash":"order.committed"}`); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT /faults: %v, %v", resp, err)
	}
	if resp, err := ask(http.MethodPost, "/orders/1", `{"item":"Desk"}`); err == nil {
		t.Fatalf("the first is answered %s; want the process dead before", resp.Status)
	}
	_ = first.Wait() // it was killed
	if status, ok := first.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("it ended with %v; want SIGKILL", first.ProcessState)
	}

	second, url := process(t, program, database)
	const want = "201 Created /orders/1/104 {\"order_id\":104,\"item\":\"Desk\"}\n"
	for range 2 {
		if got, replayed := placeAt(t, client, url+"/orders/1", "k", `{"item":"Desk"}`); got != want || !replayed {
			t.Errorf("after the restart: %s, replayed %v; want the order that was committed, replayed", got, replayed)
		}
	}
	if err := second.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = second.Wait() // it was killed

	store := openStore(t, database)
	var desks int
	var integrity string
	if err := store.db.Reads().QueryRowContext(t.Context(), "SELECT count(*) FROM orders WHERE item = 'Desk'").Scan(&desks); err != nil || desks != 1 {
		t.Errorf("the order is there %d times, %v; want once", desks, err)
	}
	if err := store.db.Reads().QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&integrity); err != nil || integrity != "ok" {
		t.Errorf("integrity_check: %s, %v; want ok", integrity, err)
	}
}
