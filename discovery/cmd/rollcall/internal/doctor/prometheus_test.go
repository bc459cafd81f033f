package doctor_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rollcall-mesh/rollcall/discovery/cmd/rollcall/internal/doctor"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
)

// prometheus runs a real one with the fleet's configuration, which finds this Consul, and
// returns its URL.
func prometheus(t *testing.T, consul string) (url string) {
	t.Helper()
	binary := os.Getenv("PROMETHEUS_BIN")
	if binary == "" {
		t.Skip("needs a real Prometheus: PROMETHEUS_BIN is not set")
	}
	config, err := os.ReadFile(filepath.FromSlash("../../../../../observability/prometheus/prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	config = bytes.ReplaceAll(config, []byte("consul:8500"), []byte(consul))
	config = bytes.ReplaceAll(config, []byte("rule_files:"), []byte("# rule_files:"))
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	address := closed(t)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary,
		"--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its log is whole only then
		if t.Failed() {
			t.Logf("Prometheus says:\n%s", &log)
		}
	})
	return "http://" + address
}

func TestTargetsAreThoseOfARealPrometheus(t *testing.T) {
	s := consultest.Real(t)
	url := prometheus(t, s.Addr())
	scraped := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, "up_and_well 1\n")
	}))
	t.Cleanup(scraped.Close)
	register(t, s.Client(),
		entry(t, "order", "order-1", scraped.Listener.Addr().String(), "prometheus"),
		entry(t, "order", "order-down", closed(t), "prometheus"))
	awaitEntries(t, s.Client(), "order", 2)

	// Until it has looked for targets and scraped them, one after the other is amiss.
	limit, tick := time.NewTimer(time.Minute), time.NewTicker(250*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for {
		findings := doctor.Examine(t.Context(), doctor.Config{Client: s.Client(), HostPort: s.Addr(), DNS: s.DNS(), Prometheus: url})
		found := of(findings, "prometheus")
		if len(found) == 1 && found[0].Level == doctor.Failure && strings.Contains(found[0].Says, "can't scrape order/order-down") && strings.Contains(found[0].Says, "connection refused") {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("got %+v; want order-down alone, as down", found)
		}
	}
}
