package app

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/rollcall-mesh/rollcall/services/internal/fault"
)

// gate is a handler whose requests wait until it opens.
type gate struct{ inside, open chan struct{} }

func newGate() *gate { return &gate{inside: make(chan struct{}, 8), open: make(chan struct{})} }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.inside <- struct{}{}
	select {
	case <-g.open:
		fmt.Fprint(w, "served")
	case <-r.Context().Done():
	}
}

// send asks in the background, and returns the status to come.
func (p *program) send(url string) <-chan int {
	status := make(chan int, 1)
	go func() {
		code, _, err := p.get(url)
		if err != nil {
			code = -1
		}
		status <- code
	}()
	return status
}

func TestServiceShedsWhatIsTooMuchAndStaysReady(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := begin(t, nobody(t), g, "--overload-from=2")
	first, second := p.send(p.traffic+"/"), p.send(p.traffic+"/")
	wait(t, g.inside)
	wait(t, g.inside)
	if code := wait(t, p.send(p.traffic+"/")); code != 503 {
		t.Errorf("the third request got %d; want 503", code)
	}
	for _, path := range []string{"/livez", "/readyz"} {
		if code, body, err := p.get(p.admin + path); err != nil || code != 200 {
			t.Errorf("%s: %d %s, %v; want 200, since health has a port of its own", path, code, body, err)
		}
	}
	_, page, err := p.get(p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`http_server_requests_shed_total{kind="read",service="user"} 1`,
		`http_server_requests_at_work{kind="read",service="user"} 2`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if !strings.Contains(p.log.String(), "the rest is shed") {
		t.Errorf("the log does not tell of the overload:\n%s", p.log)
	}
	close(g.open)
	if a, b := wait(t, first), wait(t, second); a != 200 || b != 200 {
		t.Errorf("those within the limit got %d and %d; want 200", a, b)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}

func TestEdgeHasNoLimitOfRequests(t *testing.T) {
	t.Parallel()
	g := newGate()
	p := beginAs(t, Spec{Name: "gateway", Edge: true}, nobody(t), g, "--overload-from=1")
	var streams []<-chan int
	for range 3 {
		streams = append(streams, p.send(p.traffic+"/"))
		wait(t, g.inside)
	}
	close(g.open)
	for _, s := range streams {
		if code := wait(t, s); code != 200 {
			t.Errorf("got %d; want 200: a stream may last as long as it likes", code)
		}
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}

// The same test holds for both builds: go test -tags faults runs the other half.
func TestFaultsAreTakenByTheTestBuildAndByNoOther(t *testing.T) {
	p := begin(t, nobody(t), hello)
	put := func(setting string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, p.admin+"/faults", strings.NewReader(setting))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	wantPut, wantTraffic := 404, 200
	if fault.Enabled {
		wantPut, wantTraffic = 200, 500
	}
	if code := put(`{"status":500}`); code != wantPut {
		t.Errorf("PUT /faults is answered %d; want %d", code, wantPut)
	}
	if code, body, err := p.get(p.traffic + "/"); err != nil || code != wantTraffic {
		t.Errorf("then traffic is answered %d %s, %v; want %d", code, body, err, wantTraffic)
	}
	if code, _, err := p.get(p.admin + "/readyz"); err != nil || code != 200 {
		t.Errorf("then /readyz is answered %d, %v; want 200", code, err)
	}
	if code := put(`{}`); code != wantPut {
		t.Errorf("PUT /faults is answered %d; want %d", code, wantPut)
	}
	if code, _, err := p.get(p.traffic + "/"); err != nil || code != 200 {
		t.Errorf("healed, traffic is answered %d, %v; want 200", code, err)
	}
	if warned := strings.Contains(p.log.String(), "test build"); warned != fault.Enabled {
		t.Errorf("the log warns of a test build: %v; want %v", warned, fault.Enabled)
	}
	p.signals <- syscall.SIGTERM
	p.exit(ExitDrained)
}
