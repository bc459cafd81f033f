package kitmesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/kitmesh"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
)

// patience is for a busy machine; every wait ends as soon as it can.
const patience = 30 * time.Second

// answers notes what the instances of a service were asked.
type answers struct {
	mu    sync.Mutex
	asked map[string][]string // "method path body" by instance
}

// instance starts one copy of the service until the test ends.
func (a *answers) instance(t *testing.T, service, id string) catalog.Instance {
	t.Helper()
	server := httptest.NewServer(httpmesh.RequireService(service, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		if a.asked == nil {
			a.asked = map[string][]string{}
		}
		a.asked[id] = append(a.asked[id], strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, body)))
		a.mu.Unlock()
		fmt.Fprintf(w, `{"by":%q}`, id)
	})))
	t.Cleanup(server.Close)
	return catalog.Instance{ID: id, Host: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port}
}

// dead is an instance whose port nobody listens at.
func dead(t *testing.T) catalog.Instance {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	port := server.Listener.Addr().(*net.TCPAddr).Port
	server.Close()
	return catalog.Instance{ID: "dead", Host: "127.0.0.1", Port: port}
}

func meshOver(t *testing.T, service string, instances ...catalog.Instance) *discovery.Mesh {
	t.Helper()
	var source catalog.Fixed
	if err := source.Set(service, instances...); err != nil {
		t.Fatal(err)
	}
	return open(t, discovery.Config{Source: &source})
}

func open(t *testing.T, cfg discovery.Config) *discovery.Mesh {
	t.Helper()
	mesh, err := discovery.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mesh.Close(); err != nil {
			t.Error(err)
		}
	})
	return mesh
}

func byPath(_ context.Context, r *http.Request, path any) error {
	r.URL.Path = path.(string)
	return nil
}

func who(_ context.Context, r *http.Response) (any, error) {
	var answer struct{ By string }
	err := json.NewDecoder(r.Body).Decode(&answer)
	return answer.By, err
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestEndpointSpreadsOverTheInstances(t *testing.T) {
	var a answers
	mesh := meshOver(t, "user", a.instance(t, "user", "user-1"), a.instance(t, "user", "user-2"))
	call, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "user", byPath, who)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 40
	for i := range calls {
		by, err := call(within(t), fmt.Sprintf("/users/%d", i))
		if err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		asked := a.asked[by.(string)]
		a.mu.Unlock()
		if got, want := asked[len(asked)-1], fmt.Sprintf("GET /users/%d", i); got != want {
			t.Fatalf("%s was asked %q; want %q", by, got, want)
		}
	}
	for _, id := range []string{"user-1", "user-2"} {
		if n := len(a.asked[id]); n < calls/4 {
			t.Errorf("%s served %d of %d; want a fair share", id, n, calls)
		}
	}
}

func TestEndpointSendsAPostAgainThatReachedNobody(t *testing.T) {
	var a answers
	mesh := meshOver(t, "user", dead(t), a.instance(t, "user", "user-1"))
	call, err := kitmesh.Endpoint(mesh.Client(), http.MethodPost, "user/users", kithttp.EncodeJSONRequest, who)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 10
	for range calls {
		if _, err := call(within(t), map[string]string{"name": "Dave"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.asked["user-1"]); n != calls {
		t.Errorf("the living instance was asked %d times; want %d", n, calls)
	}
	for _, asked := range a.asked["user-1"] {
		if want := `POST /users {"name":"Dave"}`; asked != want {
			t.Fatalf("asked %q; want %q", asked, want)
		}
	}
}

func TestEndpointOfAServiceNobodyOffersIsErrNoInstance(t *testing.T) {
	mesh := meshOver(t, "user")
	call, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "user", byPath, who)
	if err != nil {
		t.Fatal(err)
	}
	_, err = call(within(t), "/users/1")
	if !errors.Is(err, catalog.ErrNoInstance) {
		t.Errorf("got %v; want ErrNoInstance", err)
	}
	if _, ok := errors.AsType[*httpmesh.Error](err); !ok {
		t.Errorf("got %T; want an *httpmesh.Error in it", err)
	}
}

func TestEndpointDecodesWhateverStatusComes(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(server.Close)
	mesh := meshOver(t, "user", catalog.Instance{ID: "user-1", Host: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port})
	call, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "user", byPath, func(_ context.Context, r *http.Response) (any, error) { return r.StatusCode, nil })
	if err != nil {
		t.Fatal(err)
	}
	if got, err := call(within(t), "/"); err != nil || got != http.StatusServiceUnavailable {
		t.Errorf("got %v, %v; want 503 and no error", got, err)
	}
}

func TestEndpointHeedsOptionsButForAnotherClient(t *testing.T) {
	var a answers
	mesh := meshOver(t, "user", a.instance(t, "user", "user-1"))
	after := 0
	options := make([]kithttp.ClientOption, 0, 8) // room to spare, which Endpoint must not write to
	options = append(options, kithttp.SetClient(&http.Client{}), kithttp.ClientAfter(func(ctx context.Context, _ *http.Response) context.Context {
		after++
		return ctx
	}))
	call, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "user", byPath, who, options...)
	if err != nil {
		t.Fatal(err)
	}
	if options[:3][2] != nil {
		t.Error("the caller's options were written to")
	}
	if by, err := call(within(t), "/"); err != nil || by != "user-1" || after != 1 {
		t.Errorf("got %v, %v, option called %d times; want user-1 through the mesh, and once", by, err, after)
	}
}

func TestEndpointEndsWithItsContext(t *testing.T) {
	arrived, leave := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-leave
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(leave) })
	mesh := meshOver(t, "user", catalog.Instance{ID: "user-1", Host: "127.0.0.1", Port: server.Listener.Addr().(*net.TCPAddr).Port})
	call, err := kitmesh.Endpoint(mesh.Client(), http.MethodGet, "user", byPath, who)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(within(t))
	go func() {
		<-arrived
		cancel()
	}()
	if _, err := call(ctx, "/"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want canceled", err)
	}
}

func TestEndpointNamesTheArgumentThatIsWrong(t *testing.T) {
	client := &http.Client{}
	for _, tt := range []struct {
		name   string
		client *http.Client
		method string
		target string
		enc    kithttp.EncodeRequestFunc
		dec    kithttp.DecodeResponseFunc
		want   string // "" means that it is right
	}{
		{"a service", client, "GET", "user", byPath, who, ""},
		{"a service and a path", client, "GET", "user/users/", byPath, who, ""},
		{"dots and dashes", client, "REPORT", "user.v2-b_c", byPath, who, ""},
		{"TLS", client, "GET", "https://user/users", byPath, who, ""},
		{"TLS at a port", client, "GET", "https://user:443/users", byPath, who, `target is "https://user:443/users"`},
		{"no client", nil, "GET", "user", byPath, who, "client is nil"},
		{"no enc", client, "GET", "user", nil, who, "enc is nil"},
		{"no dec", client, "GET", "user", byPath, nil, "dec is nil"},
		{"no method", client, "", "user", byPath, who, "method is empty"},
		{"a method that is none", client, "GET IT", "user", byPath, who, `method is "GET IT"`},
		{"no target", client, "GET", "", byPath, who, `target is ""`},
		{"only a path", client, "GET", "/users", byPath, who, `target is "/users"`},
		{"a URL", client, "GET", "http://user/users", byPath, who, `target is "http://user/users"`},
		{"a port", client, "GET", "user:80", byPath, who, `target is "user:80"`},
		{"a password", client, "GET", "me@user", byPath, who, `target is "me@user"`},
		{"a query", client, "GET", "user/users?id=1", byPath, who, `target is "user/users?id=1"`},
		{"a bad escape", client, "GET", "user/%zz", byPath, who, `target is "user/%zz"`},
		{"a name too long", client, "GET", strings.Repeat("u", 129), byPath, who, "up to 128"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			call, err := kitmesh.Endpoint(tt.client, tt.method, tt.target, tt.enc, tt.dec)
			if tt.want == "" {
				if err != nil || call == nil {
					t.Errorf("got %v; want an endpoint", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || call != nil {
				t.Errorf("got %v; want an error with %q and no endpoint", err, tt.want)
			}
		})
	}
}

func TestRegistrarAndEndpointMeetThroughConsul(t *testing.T) {
	agent := consultest.New(t)
	addr, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	var a answers
	server, client := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}}), open(t, discovery.Config{Consul: discovery.Consul{Address: addr}})
	registrar := kitmesh.NewRegistrar(server, registration.Config{Service: "user", ID: "user-1", Port: a.instance(t, "user", "user-1").Port}, nil)
	call, err := kitmesh.Endpoint(client.Client(), http.MethodGet, "user", byPath, who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call(within(t), "/"); !errors.Is(err, catalog.ErrNoInstance) {
		t.Fatalf("before Register: got %v; want ErrNoInstance", err)
	}
	registrar.Register()
	eventually(t, func() error {
		_, err := call(within(t), "/")
		return err
	})
	if err := registrar.Registered().Drain(within(t)); err != nil {
		t.Fatal(err)
	}
	registrar.Deregister()
	eventually(t, func() error {
		if _, err := call(within(t), "/"); !errors.Is(err, catalog.ErrNoInstance) {
			return fmt.Errorf("after Deregister: got %w; want ErrNoInstance", err)
		}
		return nil
	})
}

func eventually(t *testing.T, do func() error) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		err := do()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatal(err)
		}
	}
}
