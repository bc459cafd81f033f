package discovery_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/rollcall-mesh/rollcall/discovery"
	"github.com/rollcall-mesh/rollcall/discovery/catalog"
	"github.com/rollcall-mesh/rollcall/discovery/consultest"
	"github.com/rollcall-mesh/rollcall/discovery/httpmesh"
	"github.com/rollcall-mesh/rollcall/discovery/mtls"
	"github.com/rollcall-mesh/rollcall/discovery/registration"
	"github.com/rollcall-mesh/rollcall/discovery/watch"
)

func TestMain(m *testing.M) {
	if consul := os.Getenv(ghostVariable); consul != "" {
		beGhost(consul)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is for a busy machine; every wait ends as soon as it can.
const patience = 30 * time.Second

func listen(t *testing.T) (agent *consultest.Agent, addr string) {
	t.Helper()
	agent = consultest.New(t)
	addr, err := agent.Listen()
	if err != nil {
		t.Fatal(err)
	}
	return agent, addr
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

// serve answers for a service until the test ends, and returns its port.
func serve(t *testing.T, service string, handler http.Handler) int {
	t.Helper()
	server := httptest.NewServer(httpmesh.RequireService(service, handler))
	t.Cleanup(server.Close)
	return server.Listener.Addr().(*net.TCPAddr).Port
}

func get(t *testing.T, mesh *discovery.Mesh, url string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := mesh.Client().Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("not seen in %s: %s", patience, what)
		}
	}
}

func TestARegisteredInstanceIsFoundAndCalledByName(t *testing.T) {
	_, addr := listen(t)
	port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "laptop") }))
	server, client := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}}), open(t, discovery.Config{Consul: discovery.Consul{Address: addr}})

	registered, err := server.Register(registration.Config{Service: "order", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	_ = registered.Wait(t.Context())
	eventually(t, "an answer by name", func() bool {
		body, err := get(t, client, "http://order/orders/1")
		return err == nil && body == "laptop"
	})
	if len(client.RoundTripper().Balancers("order")) == 0 {
		t.Error("got no balancer for a service that was called")
	}
	if all := client.Status().Services; len(all) != 1 || all[0].Service != "order" || len(all[0].Instances) != 1 {
		t.Errorf("got %d services; want order, with one instance", len(all))
	}
	if err := registered.Close(); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Errorf("close after the registration was closed: %v", err)
	}
}

func TestAServiceNobodyOffersIsErrNoInstance(t *testing.T) {
	_, addr := listen(t)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}})
	if _, err := get(t, mesh, "http://order/"); !errors.Is(err, discovery.ErrNoInstance) {
		t.Errorf("got %v; want ErrNoInstance", err)
	}
	// localhost has an address in every DNS: it must not be looked up there.
	if _, err := get(t, mesh, "http://localhost/"); err == nil || !strings.Contains(err.Error(), "want the name of a service") {
		t.Errorf("got %v; want it refused", err)
	}
}

func TestAnAbsentConsulIsNoErrorAndHoldsNobodyUp(t *testing.T) {
	agent, addr := listen(t)
	agent.Break("", consultest.Refuse())
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, Follow: []string{"order"}})
	port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "laptop") }))
	registered, err := mesh.Register(registration.Config{Service: "order", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := mesh.Latest(ctx, "order"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v while nothing is known; want the caller's deadline", err)
	}
	agent.Mend()
	_ = registered.Wait(t.Context())
	eventually(t, "an answer once Consul is there", func() bool {
		_, err := get(t, mesh, "http://order/")
		return err == nil
	})
}

func TestOpenNamesTheWrongSetting(t *testing.T) {
	var source catalog.Fixed
	for _, c := range []struct {
		name string
		cfg  discovery.Config
		want string
	}{
		{"address", discovery.Config{Consul: discovery.Consul{Address: "consul"}}, `Address is "consul"`},
		{"dial timeout", discovery.Config{HTTP: httpmesh.Config{DialTimeout: -time.Second}}, "DialTimeout is -1s"},
		{"stale for", discovery.Config{Watch: watch.Config{StaleFor: -time.Second}}, "StaleFor is -1s"},
		{"follow", discovery.Config{Follow: []string{"no/name"}}, `"no/name"`},
		{"follow beside a source", discovery.Config{Source: &source, Follow: []string{"order"}}, "Follow"},
		{"watch beside a source", discovery.Config{Source: &source, Watch: watch.Config{StaleFor: time.Second}}, "Watch is set beside Source"},
		{"first answer beside a source", discovery.Config{Source: &source, InitialFetchTimeout: 1}, "InitialFetchTimeout is set beside Source"},
		{"source of a room", discovery.Config{HTTP: httpmesh.Config{Source: &source}}, "HTTP.Source is set; want Source"},
		{"source of gRPC", discovery.Config{HTTP: httpmesh.Config{GRPC: &source}}, "HTTP.GRPC is set; want Source"},
		{"trace of a room", discovery.Config{HTTP: httpmesh.Config{Trace: &httpmesh.Trace{}}}, "HTTP.Trace is set; want Trace.HTTP"},
		{"watch's trace", discovery.Config{Watch: watch.Config{Trace: &watch.Trace{}}}, "Watch.Trace is set; want Trace.Watch"},
		{"trace of TLS", discovery.Config{TLS: mtls.Config{Trace: &mtls.Trace{}}}, "TLS.Trace is set; want Trace.TLS"},
		{"TLS twice", discovery.Config{TLS: mtls.Config{ServerName: "x"}, HTTP: httpmesh.Config{TLS: func(string) *tls.Config { return nil }}}, "HTTP.TLS is set beside TLS; want one of them"},
		{"TLS without its files", discovery.Config{TLS: mtls.Config{CAFile: "/nowhere/ca.pem"}}, "discovery: TLS: mtls: CAFile: open /nowhere/ca.pem"},
		{"watch's client", discovery.Config{Watch: watch.Config{Client: new(api.Client)}}, "Watch.Client is set; want Consul.Client"},
		{"watch's log", discovery.Config{Watch: watch.Config{Log: slog.Default()}}, "Watch.Log is set; want Log"},
		{"client beside a token", discovery.Config{Consul: discovery.Consul{Client: new(api.Client), Token: "x"}}, "Consul.Client is set beside"},
		{"token", discovery.Config{Consul: discovery.Consul{Token: "two\nlines"}}, "want one line of printable ASCII"},
		{"token file", discovery.Config{Consul: discovery.Consul{TokenFile: "no-such-file"}}, "no-such-file"},
		{"certificate", discovery.Config{Consul: discovery.Consul{CAFile: "no-such-file"}}, "no-such-file"},
		{"retries", discovery.Config{HTTP: httpmesh.Config{MaxRetries: 99}}, "MaxRetries is 99"},
		{"selection", discovery.Config{Select: map[string]catalog.Selection{"order": {Protocol: "amqp"}}}, `Select["order"]: the selection's Protocol is "amqp"`},
		{"selection of no service", discovery.Config{Select: map[string]catalog.Selection{"no/name": {}}}, `Select["no/name"]`},
		{"selection said twice", discovery.Config{Select: map[string]catalog.Selection{"order": {}, "Order": {}}}, "is there twice"},
		{"wait", discovery.Config{Watch: watch.Config{Wait: time.Hour}}, "Wait is 1h0m0s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mesh, err := discovery.Open(t.Context(), c.cfg)
			if err == nil {
				_ = mesh.Close()
				t.Fatal("got no error")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q; want it to say %q", err, c.want)
			}
		})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := discovery.Open(ended, discovery.Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v for a context that has ended; want its error", err)
	}
}

func TestCloseDeregistersAndMayBeCalledTwice(t *testing.T) {
	agent, addr := listen(t)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}})
	for _, service := range []string{"order", "user"} {
		registered, err := mesh.Register(registration.Config{Service: service, Port: 8080})
		if err != nil {
			t.Fatal(err)
		}
		_ = registered.Wait(t.Context())
	}
	for range 2 {
		if err := mesh.Close(); err != nil {
			t.Fatal(err)
		}
	}
	services, err := agent.Client().Agent().Services()
	if err != nil || len(services) != 0 {
		t.Errorf("got %v, %v after Close; want no service left", services, err)
	}
	if _, err := mesh.Register(registration.Config{Service: "order", Port: 8080}); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("register: got %v after Close; want ErrClosed", err)
	}
	if _, err := mesh.Latest(t.Context(), "order"); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("latest: got %v after Close; want ErrClosed", err)
	}
	if _, err := get(t, mesh, "http://order/"); !errors.Is(err, catalog.ErrClosed) {
		t.Errorf("get: got %v after Close; want ErrClosed", err)
	}
}

func TestCloseCalledTwiceAtOnceWaitsForTheWholeEndBothTimes(t *testing.T) {
	agent, addr := listen(t)
	mesh, err := discovery.Open(t.Context(), discovery.Config{Consul: discovery.Consul{Address: addr}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mesh.Register(registration.Config{Service: "order", ID: "order-1", Host: "127.0.0.1", Port: 8080}); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		_, _, err := agent.Client().Agent().Service("order-1", nil)
		return err == nil
	}
	eventually(t, "the entry", there)
	agent.Break("/v1/agent/service/deregister", consultest.Paused())
	type end struct {
		err  error
		left bool
	}
	ends := make(chan end, 2)
	leave := func() {
		err := mesh.Close()
		ends <- end{err, there()}
	}
	go leave()
	eventually(t, "the mesh is closing", func() bool {
		_, err := mesh.Register(registration.Config{Service: "order", Port: 8080})
		return errors.Is(err, catalog.ErrClosed)
	})
	go leave()
	var got []end
	select {
	case e := <-ends:
		got = append(got, e)
	case <-time.After(100 * time.Millisecond): // time for the second to come too early
	}
	agent.Mend()
	for len(got) < 2 {
		got = append(got, <-ends)
	}
	for _, e := range got {
		if e.err == nil && e.left || !errors.Is(e.err, got[0].err) {
			t.Errorf("got %v with the entry there: %v; want both calls to return the same, after the end", e.err, e.left)
		}
	}
}

func TestShutdownWaitsForTheBodyInFlight(t *testing.T) {
	var source catalog.Fixed
	arrived, leave := make(chan struct{}), make(chan struct{})
	port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(arrived)
			<-leave
		}
		fmt.Fprint(w, "laptop")
	}))
	if err := source.Set("order", catalog.Instance{ID: "order-1", Host: "127.0.0.1", Port: port}); err != nil {
		t.Fatal(err)
	}
	mesh := open(t, discovery.Config{Source: &source, HTTP: httpmesh.Config{TryTimeout: -1}})
	answer, done := make(chan string, 1), make(chan error, 1)
	go func() {
		body, err := get(t, mesh, "http://order/slow")
		if err != nil {
			t.Error(err)
		}
		answer <- body
	}()
	<-arrived
	go func() { done <- mesh.Shutdown(t.Context()) }()
	eventually(t, "new requests refused", func() bool {
		_, err := get(t, mesh, "http://order/")
		return errors.Is(err, catalog.ErrClosed)
	})
	select {
	case err := <-done:
		t.Fatalf("shut down (%v) with a request in flight", err)
	default:
	}
	close(leave)
	if got := <-answer; got != "laptop" {
		t.Errorf("got %q; want the whole answer", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTracesOfAllRoomsAreCalled(t *testing.T) {
	_, addr := listen(t)
	port := serve(t, "order", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	changed, sent, state := make(chan int, 16), make(chan string, 16), make(chan registration.State, 16)
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Address: addr}, Trace: &discovery.Trace{
		Watch:        &watch.Trace{Changed: func(s *catalog.Snapshot) { changed <- s.Len() }},
		Registration: &registration.Trace{Changed: func(_, _ string, _, to registration.State, _ string) { state <- to }},
		HTTP:         &httpmesh.Trace{Done: func(_ context.Context, r *httpmesh.Report) { sent <- r.Outcome.String() }},
	}})
	registered, err := mesh.Register(registration.Config{Service: "order", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	_ = registered.Wait(t.Context())
	if to := <-state; to != registration.StateRegistered {
		t.Errorf("got state %s first; want registered", to)
	}
	eventually(t, "one instance", func() bool {
		_, err := get(t, mesh, "http://order/")
		return err == nil && <-sent == "ok"
	})
	if n := <-changed; n != 1 {
		t.Errorf("got %d instances at first; want 1", n)
	}
}

func TestClientOfTheCallersOwnWatchesAndRegisters(t *testing.T) {
	_, addr := listen(t)
	var asked atomic.Int64
	counting := roundTrip(func(r *http.Request) (*http.Response, error) {
		asked.Add(1)
		return http.DefaultTransport.RoundTrip(r)
	})
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	client, err := api.NewClient(&api.Config{Address: addr, HttpClient: &http.Client{Transport: counting}})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONSUL_HTTP_ADDR", closed(t)) // not asked
	mesh := open(t, discovery.Config{Consul: discovery.Consul{Client: client, Address: addr}})
	if _, err := mesh.Register(registration.Config{Service: "order", Port: 8080}); err != nil {
		t.Fatal(err)
	}
	registering := asked.Load()
	eventually(t, "the instance in the watch", func() bool {
		s, err := mesh.Latest(t.Context(), "order")
		return err == nil && s.Len() == 1
	})
	if asked.Load() <= registering {
		t.Error("the watch has not used the client")
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestSettingsOfConsulReachItsQuestions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-file"), 0o600); err != nil {
		t.Fatal(err)
	}
	type question struct{ path, dc, ns, token string }
	asked := make(chan question, 100)
	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		select {
		case asked <- question{r.URL.Path, q.Get("dc"), q.Get("ns"), r.Header.Get("X-Consul-Token")}:
		default:
		}
		http.Error(w, "not now", http.StatusInternalServerError)
	}))
	t.Cleanup(consul.Close)
	mesh := open(t, discovery.Config{
		Consul: discovery.Consul{Address: consul.URL + "/consul/", TokenFile: file, Datacenter: "dc2", Namespace: "team"},
		Follow: []string{"order"},
		Log:    slog.New(slog.DiscardHandler),
	})
	if got, want := <-asked, (question{"/consul/v1/health/service/order", "dc2", "team", "from-file"}); got != want {
		t.Errorf("a watch asked %+v; want %+v", got, want)
	}
	if _, err := mesh.Register(registration.Config{Service: "order", Host: "127.0.0.1", Port: 8080}); err != nil {
		t.Fatal(err)
	}
	for {
		if q := <-asked; q.dc == "" && q.token == "from-file" && q.ns == "team" {
			return // of the registration, which goes to the agent's own datacenter
		}
	}
}

// The real thing: two meshes, one real Consul.
func TestTwoMeshesMeetThroughARealConsul(t *testing.T) {
	consul := consultest.Real(t)
	port := serve(t, "order", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "laptop") }))
	server, client := open(t, discovery.Config{Consul: discovery.Consul{Address: consul.Addr()}}), open(t, discovery.Config{Consul: discovery.Consul{Address: consul.Addr()}})
	registered, err := server.Register(registration.Config{Service: "order", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	_ = registered.Wait(t.Context())
	eventually(t, "an answer by name", func() bool {
		body, err := get(t, client, "http://order/orders/1")
		return err == nil && body == "laptop"
	})
	consul.Pause()
	defer consul.Resume()
	for range 20 {
		if _, err := get(t, client, "http://order/orders/1"); err != nil {
			t.Fatalf("with Consul paused: %v", err)
		}
	}
}

func Example() {
	var source catalog.Fixed // a real program leaves Source out: then it is Consul
	server := httptest.NewServer(httpmesh.RequireService("user", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"id":1,"name":"Alice"}`)
	})))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	if err := source.Set("user", catalog.Instance{ID: "user-1", Host: "127.0.0.1", Port: port}); err != nil {
		log.Fatal(err)
	}

	mesh, err := discovery.Open(context.Background(), discovery.Config{Source: &source})
	if err != nil {
		log.Fatal(err)
	}
	defer mesh.Close()
	resp, err := mesh.Client().Get("http://user/users/1") // the host is a service name
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	var user struct{ Name string }
	if err := json.NewDecoder(resp.Body).Decode(&user); err != nil {
		log.Fatal(err)
	}
	fmt.Println(user.Name)
	// Output: Alice
}
