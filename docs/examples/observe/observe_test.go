package observe

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get returns the status and the body that a handler answers.
func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.Header.Set("X-Request-Id", "id-1")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestProgramShowsWhatItDoes(t *testing.T) {
	addr, err := consultest.New(t).Listen()
	if err != nil {
		t.Fatal(err)
	}
	var asked string
	user := httptest.NewServer(httpmesh.RequireService("user", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("X-Request-Id")
		_, _ = io.WriteString(w, "Ann owes nothing.")
	})))
	defer user.Close()
	host, port, err := net.SplitHostPort(user.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	others, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}})
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	if _, err := others.Register(registration.Config{Service: "user", ID: "user-1", Host: host, Port: number}); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	p, err := New(t.Context(), addr, func(context.Context) error { return nil }, &log)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Register("127.0.0.1", 8080); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, body := get(t, p.Admin, "/readyz"); !strings.Contains(body, `"why"`) {
			if _, body := get(t, p.Admin, "/debug/discovery"); strings.Contains(body, `"user-1"`) {
				break
			}
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("the program never knows user-1")
		}
	}
	if code, body := get(t, p.Traffic, "/bills/ann"); code != 200 || body != "Ann owes nothing." || asked != "id-1" {
		t.Errorf("got %d %q, and user was asked with the ID %q; want its answer, asked as id-1", code, body, asked)
	}
	for path, want := range map[string][]string{
		"/livez":           {`"live"`},
		"/readyz":          {`"ready"`, `"store"`, `"user"`},
		"/debug/discovery": {`"user-1"`, `"billing"`},
		"/metrics": {
			`http_server_request_duration_seconds_count{code="200",method="GET",route="GET /bills/{user}",service="billing"} 1`,
			`rollcall_client_request_duration_seconds_count{outcome="ok",peer="user",service="billing"} 1`,
			`rollcall_instances{peer="user",protocol="http",service="billing",state="passing"} 1`,
			`rollcall_build_info{`, `go_goroutines `,
		},
	} {
		code, body := get(t, p.Admin, path)
		for _, want := range want {
			if code != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: got %d without %s:\n%s", path, code, want, body)
			}
		}
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, body := get(t, p.Admin, "/metrics"); strings.Contains(body, `rollcall_registration_state{service="billing",state="registered"} 1`) {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("/metrics never says that billing is registered")
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if !regexp.MustCompile(`"msg":"request".*"route":"GET /bills/\{user\}".*"status":200.*"request_id":"id-1"`).MatchString(log.String()) {
		t.Errorf("the log has no line of the request:\n%s", &log)
	}
}

func TestPageShowsTheCodeOfThisProgram(t *testing.T) {
	page, err := os.ReadFile("../../how-to/observe-your-own-program.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("observe.go")
	if err != nil {
		t.Fatal(err)
	}
	flat := func(text []byte) string { return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(string(text), "") }
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 4 {
		t.Errorf("the page has %d pieces of code; want 4 or more", len(blocks))
	}
	for _, b := range blocks {
		if !strings.Contains(flat(source), flat(b[1])) {
			t.Errorf("observe.go lacks this code of the page:\n%s", b[1])
		}
	}
}
